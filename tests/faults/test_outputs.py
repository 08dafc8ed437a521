"""No command removes or overwrites a file that it did not write: every option that names one."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from inspect import unwrap
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import xarray as xr
from helpers.command import call
from helpers.fields import tiny_study, write_field, write_table_of_fields
from helpers.powers import bound_by_modes
from helpers.predictors import predictor

from mitolume import cli
from mitolume.io.draft import draft_table
from mitolume.io.listing import image_files
from mitolume.io.write import is_ours, write_image
from mitolume.models.bundle import DenoiserCard, save_bundle
from mitolume.models.networks import DenoisingNetwork
from mitolume.models.settings import DenoiserNetworkSettings

READ = {"recipe", "files", "fields", "folder", "model", "masks", "truth", "like", "intensity",
        "stacks", "run", "ceiling", "example", "package", "objects"}  # fmt: skip
STACK = ("denoise", "train", "{d}/s.ome.tif", "--method", "wiener")
# What is written into a folder or a file that others may use, too: a call, and its outputs.
SHARED: dict[tuple[str, str], tuple[str, ...]] = {
    ("predict", "out"): ("predict", "{d}/model", "{d}/f0.ome.tif", "--probability", "--overlay",
                         "--out", "{o}"),
    ("evaluate", "out"): ("evaluate", "{d}/f0_mask.ome.tif", "{d}/f1_mask.ome.tif",
                          "--out", "{o}/x.csv"),
    ("evaluate", "consensus"): ("evaluate", "{d}/f0_mask.ome.tif", "{d}/f1_mask.ome.tif",
                                "--agreement", "--consensus", "{o}", "--out", "{o}/x.csv"),
    ("label", "out"): ("label", "{d}/s.ome.tif", "--channel", "dye", "--out", "{o}"),
    ("export", "out"): ("export", "{d}/model", "--to", "onnx", "--out", "{o}/x.onnx"),
    ("import", "out"): ("import", "{d}/model.zip", "--out", "{o}/model"),
    ("convert", "out"): ("convert", "{d}/f0_mask.ome.tif", "--to", "zip", "--out", "{o}"),
    ("measure", "out"): ("measure", "{d}/f0_mask.ome.tif", "--out", "{o}/x.csv"),
    ("compare", "out"): ("compare", "{d}/objects.csv", "--column", "area", "--out", "{o}/x.csv"),
    ("focus", "out"): ("focus", "{d}/s.ome.tif", "--channel", "light", "--out", "{o}"),
    ("denoise check", "out"): ("denoise", "check", "{d}/s.ome.tif", "--channel", "light",
                               "--out", "{o}"),
    ("denoise apply", "out"): ("denoise", "apply", "{d}/denoiser", "{d}/s.ome.tif",
                               "--channel", "light", "--out", "{o}"),
} | {
    ("measure", option): ("measure", "{d}/f0_mask.ome.tif", "--intensity", "{d}/f0.ome.tif",
                          "--out", "{o}/t/x.csv", f"--{option}", "{o}")
    for option in ("crops", "rois", "labels", "pictures")
}  # fmt: skip
# Folders that belong to what is made in them: they must be new, or have been begun by the same.
OWN: dict[tuple[str, str], tuple[str, ...]] = {
    ("run", "out"): ("run", "--fields", "{d}/fields.csv", "--out", "{o}"),
    ("study run", "out"): ("study", "--fields", "{d}/fields.csv", "--out", "{o}"),
    ("demo", "out"): ("demo", "--out", "{o}"),
    ("simulate", "out"): ("simulate", "--out", "{o}"),
    ("denoise train", "out"): (*STACK, "--channel", "light", "--out", "{o}"),
    ("fields", "out"): ("fields", "{d}", "--out", "{o}/fields.csv"),  # never replaces anything
}
# These need a finished run, or a study of two; `rerun` writes as `run` does.
SLOW = {("suggest", "out"), ("report", "export"), ("rerun", "out")}
FETCHED = {("sample", "out")}  # needs a server: test_samples.py
REPLACES = {"focus", "denoise check"}  # their own results, without being asked


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_option_that_names_a_path_is_known_to_be_read_or_written() -> None:
    found = {
        (command, parameter)
        for command, parsed in commands(cli.command_line())
        for parameter, kind in get_type_hints(unwrap(parsed.callback)).items()
        if "Path" in str(kind)
    }
    assert len(found) > 30
    assert {one for one in found if one[1] not in READ} == {*SHARED, *OWN, *SLOW, *FETCHED}


FOLDERS = {"crops", "rois", "labels", "pictures", "consensus", "export"}
A_FILE = {"fields", "focus", "convert", "evaluate", "measure", "compare", "export"}


@pytest.mark.parametrize("case", sorted({*SHARED, *OWN, *SLOW, *FETCHED}), ids=" ".join)
def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(
    case: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    """No input exists, and still the sentence is on the output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t3").write_text("a file")
    command, option = case
    parsed = dict(commands(cli.command_line()))[command]
    given = ("phase-cell",) * (command == "sample")
    needed = [p for p in parsed.params if p.required and p.name != option]
    words = [w for p in needed for w in (*p.opts[:1] * (p.param_type_name == "option"), "onnx")]
    is_folder = option in FOLDERS or command not in A_FILE
    places = [Path("t3", "x"), Path("t3") if is_folder else Path("/proc/mitolume/x.csv")]
    for place in places:
        own = (f"--{option}", place)
        assert call(monkeypatch, *command.split(), *given, *words, *own) == 1
        said = capsys.readouterr().err
        assert said.startswith("mitolume: ")
        assert said.count("\n") == 1
        assert "can't be written: " in said
        assert said.split("mitolume: ")[1].startswith((str(place), str(place.parent)))
    assert [path.name for path in tmp_path.iterdir()] == ["t3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make inputs of every kind, of which the program claims to have written none."""
    data = tmp_path_factory.mktemp("made")
    write_table_of_fields(data)
    light = np.stack([np.random.default_rng(z).normal(90, 9, (64, 80)) for z in range(5)])
    dye = np.zeros((5, 64, 80))
    dye[:, 20:26, 10:70] = 900
    image = xr.DataArray(
        np.stack([light, dye + light]).astype(np.uint16), dims=tuple("CZYX"),
        coords={"C": np.array(["light", "dye"], dtype=object)},
        attrs={"pixel_size_um": {"Z": 0.3, "Y": 0.1, "X": 0.1}},
    )  # fmt: skip
    write_image(data / "s.ome.tif", image)
    model = predictor()
    save_bundle(data / "model", model.network.state_dict(), model.card)
    settings = DenoiserNetworkSettings(width=4)
    card = DenoiserCard(method="wiener", network=settings, channels=0)
    save_bundle(data / "denoiser", DenoisingNetwork(settings, 0).state_dict(), card)
    shutil.make_archive(str(data / "model"), "zip", data / "model")
    rows = [
        f"{side} {n},{side} {n},{side},{n + 1}" for side in ("control", "FCCP") for n in range(3)
    ]
    (data / "objects.csv").write_text("\n".join(["image,specimen,condition,area", *rows]))
    (data / ".mitolume").unlink()
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "data")


def files_of(folder: Path) -> dict[Path, str]:
    return {
        file: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    }


def filled(words: tuple[str, ...], data: Path, out: Path) -> list[str]:
    return [word.format(d=data, o=out) for word in words]


@pytest.mark.parametrize("case", SHARED, ids=" ".join)
def test_only_own_and_unchanged_results_are_replaced(
    case: tuple[str, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    words, replacing = filled(SHARED[case], data, out), case[0] in REPLACES
    again = [] if replacing else ["--overwrite"]
    assert call(monkeypatch, *words) == 0
    written = list(files_of(out))
    results_beside_images_are_no_inputs(case, data, out)
    results = [file for file in written if file.suffix != ".jsonl"]
    assert call(monkeypatch, *words, *again) == 0, "own results are replaced where asked"
    shutil.copytree(out, tmp_path / "moved")
    moved = tmp_path / "moved" / results[0].relative_to(out)
    assert is_ours(moved) or is_ours(moved.parent), "also of a copied folder"
    monkeypatch.chdir(tmp_path)
    for file in results:  # one after the other belongs to someone else
        own = file.read_bytes()
        file.write_bytes(b"precious")
        before = files_of(tmp_path)
        capsys.readouterr()
        assert call(monkeypatch, *words) == 1
        assert call(monkeypatch, *words, *again) == 1, file
        said = capsys.readouterr().err
        assert file.name in said or file.parent.name in said
        assert "unexpected" not in said
        changed = {name for name, one in files_of(tmp_path).items() if before.get(name) != one}
        assert file not in changed
        assert changed <= set(results), "nothing else was touched"
        file.write_bytes(own)
    assert {file: one for file, one in files_of(data).items()} == before_of(data, before)


def results_beside_images_are_no_inputs(case: tuple[str, str], data: Path, out: Path) -> None:
    """Of results, only masks of a person or of the dye, and new images, are taken as inputs."""
    images = [data / "s.ome.tif", data / "f0.ome.tif", data / "f1.ome.tif"]
    together = shutil.copytree(out, data.parent / "together")
    for image in images:
        shutil.copy(image, together)
    assert [path.name for path in image_files([together], [])[0]] == sorted(p.name for p in images)
    drafted = draft_table(together)
    if case[0] not in ("convert", "label", "denoise apply") and case[1] != "consensus":
        assert len(drafted.text.splitlines()) == 4, drafted
        assert "(0 with a mask" in drafted.lines[0]
        wrote_some = any(path.suffix in (".tif", ".png", ".zip") for path in files_of(out))
        assert ("by mitolume, left out" in "".join(drafted.lines)) == wrote_some
    elif case[0] != "denoise apply":
        assert "(1 with a mask" in drafted.lines[0]
    shutil.rmtree(together)


def before_of(folder: Path, files: dict[Path, str]) -> dict[Path, str]:
    return {file: one for file, one in files.items() if folder in file.parents}


@pytest.mark.parametrize("case", [*SHARED, *OWN], ids=" ".join)
def test_an_output_is_never_an_input(
    case: tuple[str, str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option names each file that is read, and the folder of all of them."""
    words = (SHARED | OWN)[case]
    at = max(number for number, word in enumerate(words) if "{o}" in word and word != "{o}/t/x.csv")
    before = files_of(data)
    read = [word.format(d=data) for word in words[1:at] if word.startswith("{d}/")]
    for place in (*read, *(() if case in SHARED else (str(data),))):
        asked = filled(words, data, data / "new")
        asked[at] = place
        # `demo --resume` would simulate and train in a folder beside the others.
        for more in ((), ("--overwrite",), ("--resume",))[: 2 if case[0] == "demo" else 3]:
            call(monkeypatch, *asked, *more)
            after = files_of(data)
            assert {file: after.get(file) for file in before} == before, (asked, more)


@pytest.mark.parametrize("case", OWN, ids=" ".join)
@pytest.mark.parametrize(
    "name",
    ["fields.csv", "recipe.yaml", "study.json", "dye/a.tif", "scratch/a.tif", "folds/a.tif",
     ".part-1.a.tif", "images/a.tif", "data/a.tif", "run/a.tif", "last.ckpt", "log.csv"],
)  # fmt: skip
def test_a_folder_of_something_else_is_refused(
    case: tuple[str, str], name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case[0] == "fields" and name != "fields.csv":
        pytest.skip("writes beside other files")
    if case[0] == "demo" and name.split("/")[0] not in ("data", "run"):
        pytest.skip("demo --resume writes to data and run only")
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    words = filled(OWN[case], data, tmp_path / "out")
    for more in ((), ("--resume",)) if case != ("demo", "out") or name[:4] == "data" else ((),):
        assert call(monkeypatch, *words, *more) != 0
        assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [file]
        assert file.read_text() == "precious"


@pytest.mark.parametrize("case", [*SHARED, *OWN], ids=" ".join)
def test_a_folder_that_may_not_be_written_to_is_a_sentence(
    case: tuple[str, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    before = files_of(tmp_path)
    out.chmod(0o555)
    with bound_by_modes():
        place = out if case in SHARED else out / "new"
        assert call(monkeypatch, *filled((SHARED | OWN)[case], data, place)) == 1
    out.chmod(0o755)
    said = capsys.readouterr().err
    assert re.search(rf"^mitolume: .*{out}.* can't be written: Permission denied", said, re.M)
    assert "unexpected" not in said
    assert {p for p in files_of(tmp_path).items() if p[0].name != "x.csv"} == {*before.items()}


@pytest.mark.parametrize("case", [*SHARED, *OWN], ids=" ".join)
def test_a_file_that_may_not_be_read_is_a_sentence(
    case: tuple[str, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    words = filled((SHARED | OWN)[case], data, tmp_path / "out")
    read = [Path(word) for word in words if word.startswith(str(data)) and Path(word) != data]
    inner = [file for path in read if path.is_dir() for file in path.iterdir()]
    if "--fields" in words:
        inner += [data / "f0.ome.tif", data / "f0_mask.ome.tif"]
    for path in (*read, *inner):
        path.chmod(0)
        with bound_by_modes():
            assert call(monkeypatch, *words) in (1, 2), path
        path.chmod(0o755)
        said = capsys.readouterr().err
        assert path.name in said
        assert re.search("Permission denied|not readable", said)
        assert "unexpected" not in said


def test_crops_of_a_list_that_someone_wrote_are_not_removed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops, raw = tmp_path / "crops", tmp_path / "crops" / "raw.tif"
    words = filled(SHARED["measure", "crops"], data, crops)
    assert call(monkeypatch, *words) == 0
    raw.write_text("precious")
    first = sorted(crops.glob("f0_*.ome.tif"))[0]
    first.write_text("precious")
    listing = (crops / "crops.csv").read_text().splitlines()
    listing.append(listing[-1].replace(listing[-1].split(",")[0], "raw.tif"))
    (crops / "crops.csv").write_text("\n".join(listing))
    assert call(monkeypatch, *words, "--overwrite", "--min-size", "3") == 1
    assert raw.read_text() == first.read_text() == "precious"


def test_a_table_or_zarr_that_is_read_is_no_place_for_results(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    table, out = data / "fields.csv", tmp_path / "x.csv"
    (data / "z").mkdir()
    image, mask = write_field(data / "z", "a", 0)
    words = ("convert", mask, "--out", data / "z" / "b_mask.ome.tif")
    assert call(monkeypatch, *words) == 0  # the program's own, and an input all the same
    lists = data / "z" / "own.csv"
    assert call(monkeypatch, "focus", "--fields", table, "--out", lists) == 0
    for asked in (
        ("measure", mask, "--fields", lists, "--out", lists, "--overwrite"),
        ("focus", "--fields", lists, "--out", lists),
        ("measure", mask, "--intensity", image, "--crops", image, "--out", out, "--overwrite"),
        ("measure", mask, "--labels", image / "below", "--out", out, "--overwrite"),
    ):
        before, _ = files_of(tmp_path), capsys.readouterr()
        assert call(monkeypatch, *asked) == 1
        assert files_of(tmp_path) == before
        assert "unexpected" not in capsys.readouterr().err


@pytest.mark.slow
def test_pages_and_exports_replace_their_own_only(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = tmp_path / "study", tmp_path / "out"
    recipe = tiny_study(data)
    assert call(monkeypatch, "study", recipe, "--out", study) == 0
    run = next((study / "runs").iterdir())
    asks: list[tuple[Callable[[], int], Path]] = [
        (lambda: call(monkeypatch, "report", study, "--export", out), out),
        (lambda: call(monkeypatch, "suggest", run, "--out", out / "s"), out / "s"),
    ]
    for ask, folder in asks:
        assert ask() == 0
        assert ask() == 0
        for file in [p for p in folder.iterdir() if p.is_file() and p.name[0] != "."]:
            own = file.read_bytes()
            file.write_text("precious")
            assert ask() == 1
            assert file.read_text() == "precious"
            file.write_bytes(own)
