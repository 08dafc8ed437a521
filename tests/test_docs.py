"""The examples of the documentation, run as they stand; links and keys that exist."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.microscope_files import write_lif
from typer.core import TyperGroup

import mitolume
from mitolume.cli import command_line
from mitolume.io.table import read_table
from mitolume.runs.recipe import load_preset, load_recipe
from mitolume.study.arms import load_study, planned_runs

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
MODULES = sorted(m.name for m in pkgutil.walk_packages(mitolume.__path__, "mitolume."))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if blocks(p, "python") and p.name != "fields.md"],  # see the next test
    ids=lambda p: p.name,
)
def test_python_examples_run(page: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


def test_a_plate_map_becomes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plates" / "day1").mkdir(parents=True)
    pixels = ("CYX", np.ones((2, 9, 9), np.uint8))
    write_lif(tmp_path / "plates" / "day1" / "a.lif", {"A01": pixels, "B2 snap": pixels})
    Path("platemap.csv").write_text("well,treatment\nA01,control\nB02,FCCP\n")
    Path("objects.csv").write_text("specimen,area_um2\nday1 B02,1\nday1 B02,2\n")
    first, joined = blocks(ROOT / "docs" / "fields.md", "python")
    exec(first, {})
    rows = read_table("fields.csv")
    assert [(r.scene, r.specimen, r.condition, r.extra["well"]) for r in rows] == [
        ("A01", "day1 A01", "control", "A01"), ("B2 snap", "day1 B02", "FCCP", "B02"),
    ]  # fmt: skip
    exec(joined, found := {})
    assert list(found["objects"]["well"]) == ["B02", "B02"]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    import numpy as np

    if name.startswith("mitolume.napari."):
        pytest.importorskip("napari")
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert doctest.testmod(module, extraglobs={"np": np}).failed == 0


def test_the_recipe_page_shows_every_key_with_the_defaults(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "recipe.md", "yaml")
    shown = yaml.safe_load(block)
    assert {k: v for k, v in shown.items() if k not in ("preset", "fields")} == load_preset(
        "default"
    )
    (tmp_path / "r.yaml").write_text(block)
    expected = load_recipe(fields=tmp_path / "fields.csv")
    assert load_recipe(tmp_path / "r.yaml") == expected


def test_the_studies_page_shows_a_study_of_as_many_runs_as_it_says(tmp_path: Path) -> None:
    page = ROOT / "docs" / "studies.md"
    (block,) = blocks(page, "yaml")
    (tmp_path / "study.yaml").write_text(block)
    asked = load_study(tmp_path / "study.yaml")
    assert asked.reference == next(iter(asked.arms))
    assert f": {len(planned_runs(asked))} here" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8"))
    for target, place in links:
        if not target.startswith("http"):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name} links to {target}"
            titles = (
                re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.M) if place else []
            )
            anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
            assert place in ["", *anchors], f"{page.name} links to {target}#{place}"


def test_the_readme_shows_every_folder_of_the_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"```text\nsrc/mitolume/(.*?)```", text, re.DOTALL)
    assert tree is not None
    real = {p.parent.name for p in (ROOT / "src" / "mitolume").glob("*/__init__.py")}
    assert set(re.findall(r"([a-z]+)/ ", tree[1])) == real


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_on_the_pages_have_the_options_that_are_shown(page: Path) -> None:
    shown = "".join(blocks(page, "console")).replace("\\\n", " ")
    for line in re.findall(r"^\$ mitolume (.*)", shown, re.MULTILINE):
        words = shlex.split(line, comments=True)
        words = words[: words.index(">")] if ">" in words else words
        command = command_line()
        while isinstance(command, TyperGroup) and words:
            context = command.make_context("mitolume", words, resilient_parsing=True)
            words = [*context._protected_args, *context.args]
            _, command, words = command.resolve_command(context, words)
        command.make_context("mitolume", words)


def test_the_architecture_page_lists_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"## The tree\n+```text\n(.*?)```", text, re.DOTALL)
    assert tree is not None
    listed = sorted(re.findall(r"^ *(\w+\.py) ", tree[1], re.MULTILINE))
    source = ROOT / "src" / "mitolume"
    assert listed == sorted(p.name for p in source.rglob("*.py") if p.name != "__init__.py")
