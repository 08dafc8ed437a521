"""Many files in, many results out: twins, results that are there, what has changed, bad files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mitolume.batch.runner import Job, Outcome, Report, run_files, run_jobs, side_by_side
from mitolume.errors import MitolumeError
from mitolume.io.listing import image_files
from mitolume.io.masks import meaning_of
from mitolume.io.write import write_text
from mitolume.runs.folder import find_bundle

RECORD = "provenance.jsonl"


def upper(source: Path, target: Path, advance: Callable[[int], None]) -> Report:
    """Write a text in capitals; a job that other processes can do."""
    text = source.read_text()
    if text == "bad":
        raise MitolumeError(f"{source} is bad")
    if text == "odd":
        raise ValueError("nobody foresaw this")
    write_text(target, text.upper())
    advance(1)
    return Report(str(target), (f"{source.name} is long",) if len(text) > 9 else ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"a": "one", "b": "two", "c": "three"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def run(folder: Path, settings: dict[str, object] | None = None, **options: object) -> Outcome:
    def open_one(file: Path, scene: str | None, name: str) -> Job:
        target = folder / "out" / f"{name}.up"
        return Job(file.name, (file,), (target,), partial(upper, file, target), settings or {})

    return run_files(sorted(folder.glob("*.txt")), open_one, folder / "out" / RECORD, **options)


def test_a_scene_that_fails_is_named_and_costs_no_other(tmp_path: Path) -> None:
    (plate := tmp_path / "plate.lif").write_text("")
    faults = {"B1": MitolumeError(f"{plate} has no channel"), "B2": ValueError("odd")}

    def open_one(file: Path, name: str | None, _: str) -> Job:
        assert name
        if name in faults:
            raise faults[name]
        (source := tmp_path / name / plate.name).parent.mkdir()
        source.write_text("bad" if name == "B3" else "rather long")
        work = partial(upper, source, tmp_path / f"{name}.up")
        return Job(plate.name, (source,), (tmp_path / f"{name}.up",), work)

    names = ["B1", "A1", "B2", "B3", "A2"]
    outcome = run_files([plate], open_one, scenes=lambda _: [(name, name) for name in names])
    assert [path.name for path in outcome.written] == ["A1.up", "A2.up"]
    assert outcome.notices == ["plate.lif (scene A1, A2) is long"]
    with pytest.raises(MitolumeError) as error:
        outcome.raise_faults("images", "predicted")
    counted, *told = str(error.value).splitlines()
    assert counted == "5 images found, 2 predicted; the others failed:"
    for name, line in zip(["B1", "B2", "B3"], told, strict=True):
        assert f"plate.lif (scene {name})" in line


def test_results_are_written_and_never_replaced_unasked(folder: Path) -> None:
    seen: list[tuple[object, ...]] = []
    outcome = run(folder, progress=lambda *now: seen.append(now))
    assert [path.read_text() for path in outcome.written] == ["ONE", "TWO", "THREE"]
    assert seen[-1][:2] == (3, 3)
    with pytest.raises(MitolumeError, match=r"a\.up exists already \(and 2 more\).*--resume"):
        run(folder)
    with pytest.raises(MitolumeError, match="choose one"):
        run(folder, resume=True, overwrite=True)
    (folder / "a.txt").write_text("new")
    assert len(run(folder, overwrite=True).written) == 3
    assert (folder / "out" / "a.up").read_text() == "NEW"


def test_resume_goes_by_content_and_not_by_name(folder: Path) -> None:
    run(folder)
    assert len(run(folder, resume=True).before) == 3
    (folder / "out" / "b.up").unlink()
    (folder / "a.txt").write_text("one")  # a new time, and the same content
    (folder / "c.txt").write_text("four and more")
    outcome = run(folder, resume=True)
    assert [path.name for path in outcome.written] == ["b.up", "c.up"]
    assert outcome.notices == [
        "1 computed again, because their inputs have changed",
        "c.txt is long",
    ]
    assert len(run(folder, resume=True).before) == 3
    before = (folder / "b.txt").stat()
    (folder / "b.txt").write_text("TWO"[::-1])  # as long, and copied with an old time
    os.utime(folder / "b.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [path.name for path in run(folder, resume=True).written] == ["b.up"]


def test_results_of_other_settings_are_refused(folder: Path) -> None:
    run(folder, {"threshold": 0.5})
    with pytest.raises(MitolumeError, match=r"a\.up was made with threshold 0\.5, not 0\.4"):
        run(folder, {"threshold": 0.4}, resume=True)
    assert len(run(folder, {"threshold": 0.4}, overwrite=True).written) == 3
    assert len(run(folder, {"threshold": 0.4}, resume=True).before) == 3


def test_what_a_person_made_or_edited_is_never_replaced_by_resume(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "b.up").write_text("by hand")
    outcome = run(folder, resume=True)
    assert len(outcome.written) == 2
    assert "b.up would be computed again, but it was edited, or made by" in outcome.faults[0]
    (folder / "a.txt").write_text("changed")
    (folder / "out" / "a.up").write_text("corrected by hand")
    assert len(run(folder, resume=True).faults) == 2
    assert (folder / "out" / "a.up").read_text() == "corrected by hand"


def test_what_a_killed_process_left_is_made_anew(folder: Path) -> None:
    run(folder)
    record = folder / "out" / RECORD
    lines = record.read_text().splitlines()
    assert json.loads(lines[0])["results"] == ["a.up"]
    record.write_text("\n".join([lines[0], lines[1][:20]]))
    outcome = run(folder, resume=True)
    assert [path.name for path in outcome.written] == ["b.up", "c.up"]


def test_a_moved_folder_can_be_resumed(folder: Path) -> None:
    run(folder)
    moved = folder.with_name("moved")
    folder.rename(moved)
    assert len(run(moved, resume=True).before) == 3


@pytest.mark.parametrize("processes", [1, 2])
def test_a_bad_file_does_not_stop_the_others(folder: Path, processes: int) -> None:
    (folder / "a.txt").write_text("bad")
    (folder / "b.txt").write_text("odd")
    scheduler = side_by_side(processes=2) if processes > 1 else None
    outcome = run(folder, scheduler=scheduler)
    assert [path.name for path in outcome.written] == ["c.up"]
    with pytest.raises(MitolumeError) as error:
        outcome.raise_faults("texts", "written")
    lines = str(error.value).splitlines()
    assert lines[0] == "3 texts found, 1 written; the others failed:"
    assert sorted(line.strip() for line in lines[1:]) == [
        f"{folder / 'a.txt'} is bad",
        "b.txt: unexpected ValueError: nobody foresaw this. This is a fault of mitolume; please "
        "report it, with the file if you can",
    ]
    assert [path.name for path in run(folder, resume=True).written] == []


def test_a_lone_fault_is_its_own_sentence_and_leaves_nothing(folder: Path) -> None:
    for name in "bc":
        (folder / f"{name}.txt").unlink()
    (folder / "a.txt").write_text("bad")
    with pytest.raises(MitolumeError, match=r"^\S+a\.txt is bad$"):
        run(folder).raise_faults("texts", "written")
    assert not (folder / "out").exists()


def test_results_that_would_lose_a_file_are_refused(folder: Path) -> None:
    def make(name: str) -> list[Job]:
        source, target = folder / "a.txt", folder / name
        return [Job(name, (source,), (target,), partial(upper, source, target))]

    twins = [*make("Ä.up"), *make("a\u0308.up")]  # one name, composed or not
    with pytest.raises(MitolumeError, match=r"would both become .*a\u0308\.up"):
        run_jobs(twins)
    with pytest.raises(MitolumeError, match=r"A\.txt is one of the inputs"):
        run_jobs(make("A.txt"), overwrite=True)
    assert (folder / "a.txt").read_text() == "one"


def test_jobs_without_inputs_are_made_of_their_settings(tmp_path: Path) -> None:
    def write(target: Path, advance: Callable[[int], None]) -> Report:
        write_text(target, "made")
        return Report()

    target = tmp_path / "a.txt"
    jobs = [Job("a", (), (target,), partial(write, target), {"seed": 1})]
    target.write_text("by hand")
    assert len(run_jobs(jobs, tmp_path / RECORD, resume=True).faults) == 1
    with pytest.raises(MitolumeError, match="was not written by mitolume"):
        run_jobs(jobs, tmp_path / RECORD, overwrite=True)
    target.unlink()
    run_jobs(jobs, tmp_path / RECORD, overwrite=True)
    assert len(run_jobs(jobs, tmp_path / RECORD, resume=True).before) == 1
    with pytest.raises(MitolumeError, match="a and a would both become"):
        run_jobs([jobs[0], Job("a", (), (target,), jobs[0].compute)])


def test_inputs_that_cannot_be_opened_are_named_and_the_others_done(folder: Path) -> None:
    def open_one(file: Path, *_: object) -> Job:
        if file.stem == "b":
            raise ValueError("odd")
        return Job(file.name, (file,), (), lambda advance: Report(file.read_text()))

    outcome = run_files(sorted(folder.glob("*.txt")), open_one)
    assert [one.report.text for one in outcome.finished] == ["one", "three"]
    assert "b.txt: unexpected ValueError: odd" in outcome.faults[0]


def test_a_folder_that_is_none_of_images_or_no_model_names_what_to_name(tmp_path: Path) -> None:
    (tmp_path / "day 1").mkdir()
    (tmp_path / "day 1" / "a.tif").touch()
    image_files([tmp_path], faults := [])
    assert faults[0].endswith(f"name a folder that has images, such as '{tmp_path / 'day 1'}'")
    run = tmp_path / "study" / "runs" / "r1"
    (run / "masks").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    for path, says in (tmp_path / "study", f"such as {run}"), (run / "masks", f"part of: {run}"):
        with pytest.raises(MitolumeError, match=says):
            find_bundle(path)
    grey = {f"{n}.png": set(map(float, range(9, 90))) for n in "ab"}
    for kind in ("auto", "labels"):
        with pytest.raises(MitolumeError, match="it is an image: name its mask"):
            meaning_of(grey, kind)
