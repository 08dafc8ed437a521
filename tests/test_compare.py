"""`mitolume compare`: means of specimens against the control, its error rates, and its words."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.command import Shell
from scipy import stats

from mitolume.analysis.replicates import compare_conditions, control_of, suits_log
from mitolume.errors import MitolumeError
from mitolume.io.fields import Field
from mitolume.runs import folder


def cells(
    rng: np.random.Generator,
    specimens: dict[str, int],
    gains: dict[str, float] | None = None,
    *,
    n: int = 30,
    dishes: bool = True,
) -> pd.DataFrame:
    """Simulate objects: log areas vary within specimens, and their means between these."""
    parts = []
    for condition, number in specimens.items():
        for k in range(number):
            # A specimen of all conditions (not `dishes`) is the same in all of them.
            seed = rng if dishes else np.random.default_rng(k)
            mean = seed.normal(0, 0.3) + (gains or {}).get(condition, 0)
            name = f"{condition} {k}" if dishes else f"dish {k}"
            parts.append(
                pd.DataFrame(
                    {"condition": condition, "specimen": name, "image": f"{condition} {k}",
                     "label": range(n), "area_um2": np.exp(rng.normal(mean, 0.8, n))}
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def means(table: pd.DataFrame, condition: str, log: bool) -> np.ndarray:
    own = table[table["condition"] == condition]
    values = np.log(own["area_um2"]) if log else own["area_um2"]
    return values.groupby(own["specimen"]).mean().to_numpy()


@pytest.mark.parametrize("log", [False, True])
def test_effects_are_those_of_specimen_means(log: bool) -> None:
    table = cells(np.random.default_rng(0), {"control": 4, "FCCP": 6}, {"FCCP": 0.7})
    (found,) = compare_conditions(table, "area_um2", "control", log=log)
    a, b = means(table, "FCCP", log), means(table, "control", log)
    va, vb = a.var(ddof=1) / 6, b.var(ddof=1) / 4
    freedom = (va + vb) ** 2 / (va**2 / 5 + vb**2 / 3)  # Welch's
    half = stats.t.ppf(0.975, freedom) * np.sqrt(va + vb)
    edges = a.mean() - b.mean() + np.array([-half, half])
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(edges) if log else edges))
    t = (a.mean() - b.mean()) / np.sqrt(va + vb)
    assert found.p == found.p_holm == pytest.approx(2 * stats.t.sf(abs(t), freedom))
    if log:
        assert found.ratio == pytest.approx(np.exp(a.mean() - b.mean()))
    else:
        assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.p_least == pytest.approx(2 / 210)
    assert found.verdict == ("larger" if found.p < 0.05 else "no difference shown")
    assert "6 and 4 specimens, 6 and 4 images, 180 and 120 objects" in found.sentence


def test_specimens_in_both_conditions_are_paired() -> None:
    table = cells(np.random.default_rng(1), {"control": 5, "FCCP": 4}, {"FCCP": 0.3}, dishes=False)
    (found,) = compare_conditions(table, "area_um2", "control", log=True)
    a, b = means(table, "FCCP", True), means(table, "control", True)[:4]
    assert found.p == pytest.approx(float(stats.ttest_rel(a, b).pvalue))
    assert found.n_specimens == found.n_specimens_control == 4
    assert "Left out, as they are on one side only: dish 4." in found.sentence
    assert found.p_least == 2 / 16


def test_several_treatments_are_corrected_and_few_specimens_get_no_test() -> None:
    n = {"control": 5, "a": 5, "b": 5, "c": 5, "d": 2}
    table = cells(np.random.default_rng(2), n, {"a": 0.6, "b": 0.5})
    found = compare_conditions(table, "area_um2", "control", log=True)
    assert [one.treatment for one in found] == ["a", "b", "c", "d"]
    *tested, few = found
    order = sorted(tested, key=lambda one: one.p)
    assert order[0].p_holm == pytest.approx(3 * order[0].p)
    assert [one.p_holm for one in order] == sorted(one.p_holm for one in tested)
    assert all(one.p_holm >= one.p for one in tested)
    assert few.verdict == "too few specimens"
    assert np.isnan(few.p)
    assert "a test needs 3 specimens" in few.sentence
    alike = table.assign(area_um2=1.0)
    assert {one.verdict for one in compare_conditions(alike, "area_um2", "control")} == {
        "undetermined", "too few specimens",
    }  # fmt: skip


def test_the_scale_follows_the_distribution_within_conditions() -> None:
    rng = np.random.default_rng(3)
    groups = pd.Series(np.repeat(["a", "b"], 200))
    skewed = pd.Series(rng.lognormal(np.repeat([0, 5], 200), 1), name="area_um2")
    assert suits_log(skewed, groups)[0]
    assert not suits_log(skewed - 1e4, groups)[0]
    assert not suits_log(skewed.rename("n_branches"), groups)[0]
    # Two conditions far apart are skewed together, but not within.
    apart = pd.Series(rng.normal(np.repeat([10, 100], 200), 1), name="length_um")
    assert not suits_log(apart, groups)[0]


def test_the_control_is_found_or_asked_for() -> None:
    assert control_of(["FCCP", "DMSO 0.1%"]) == "DMSO 0.1%"
    assert control_of(["FCCP", "a"], "a") == "a"
    for names, named in ((["FCCP", "a"], None), (["control 1", "control 2"], None), (["a"], "b")):
        with pytest.raises(MitolumeError, match="--control"):
            control_of(names, named)


def scores(area_off: dict[str, float], specimens: int = 4) -> Any:
    """Return what a run says of test images in which areas are off by so much."""
    rows = [
        {"model": "model_1", "subset": "test", "image": f"{name} {k}", "plane": 0, "line": k,
         "specimen": f"{name} {k}", "condition": name, "batch": "", "tp": 1000 + k, "fn": 0,
         "fp": round(1000 * off), "tn": 9000}
        for name, off in area_off.items() for k in range(specimens)
    ]  # fmt: skip
    model = {"threshold": 0.5, "thresholds": {"FCCP": {"threshold": 0.4}}}
    record = {"model_1": model}
    learnt = [Field(Path("x.tif"), role="train", specimen="FCCP 1")]
    one, *others = [SimpleNamespace(row=Field(Path("x.tif"), condition=name)) for name in area_off]
    one.row = replace(one.row, label="dye")
    images = [one, *others]
    return SimpleNamespace(
        kept="model_1", scores=pd.DataFrame(rows), record=record, rows=learnt,
        images=lambda _: images,
    )  # fmt: skip


def test_what_the_masks_add_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    table = cells(np.random.default_rng(4), {"control": 4, "FCCP": 4, "rotenone": 4})
    table.loc[0, "area_um2"] = np.nan
    table.to_csv(tmp_path / "objects.csv", index=False)
    monkeypatch.setattr(folder, "open_run", lambda _: scores({"control": 0.1, "FCCP": 0.43}))
    given = ["compare", tmp_path / "objects.csv", "--column", "area"]
    for name in ("c.html", "c.csv", "c.svg"):
        lines = shell(*given, "--run", tmp_path, "--out", tmp_path / name).splitlines()
    mixed = lines.pop(0)
    assert mixed.startswith("note: Scored against outlines: 1 test image (FCCP); against masks")
    assert "made from the dye: 1 test image (control). " in mixed
    unknown = f"accuracy was never checked on rotenone: {tmp_path} has no test image of it"
    assert lines[0] == f"note: {unknown}"
    assert "unequal in FCCP" in lines[1]
    assert "a threshold for each condition (control 0.5, FCCP 0.4, rotenone 0.5);" in lines[2]
    assert "predict again with `--threshold 0.5` for all" in lines[2]
    assert lines[3] == "note: 1 of 360 rows left out: no condition, specimen or area_um2"
    assert (
        "that the model has learnt from, whose masks are better than others: 0 % of con" in lines[4]
    )
    (bias,) = [line for line in lines[:8] if line.startswith("Bias")]
    assert "measured 1.30 times as large in FCCP as in control (95 %" in bias
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.index("never checked on rotenone") < page.index("times the control")
    assert "+43\N{NO-BREAK SPACE}%" in page
    assert "<code>--threshold 0.5</code> for all" in page
    rows = pd.read_csv(tmp_path / "c.csv")
    assert rows["treatment"].tolist() == ["FCCP", "rotenone"]
    assert (rows["n_specimens"] == 4).all()
    # Without a run, nobody knows.
    assert "is not known here" in shell(*given).splitlines()[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--column", "volume"], "no measurement volume; there are area_um2"),
        (["--column", "area"], "more; objects of z-stacks have a volume in place of an area"),
        (["--column", "area", "--by", "batch"], "does not say the batch"),
        (["--column", "area", "--scale", "cubic"], "auto, linear or log"),
        (["--column", "area", "--control", "none"], "--control none: there are control, FCCP"),
        (["--column", "area", "--out", "x.pdf"], "must end in .html"),
        (["--column", "footprint_share"], "what is measured of whole images is in"),
        (["--column", "area", "--by", "alike"], "'FCCP' (line 12, 14, 16 and "),
    ],
)
def test_what_can_not_be_compared_is_refused(
    options: list[str], says: str, tmp_path: Path, shell: Shell
) -> None:
    table = cells(np.random.default_rng(0), {"control": 3, "FCCP": 3}, n=3)
    if "stack" in says:
        table = table.rename(columns={"area_um2": "volume_um3"})
        table[[f"intensity_{n}" for n in range(30)]] = 1.0
    cased = table["condition"].str.lower()
    table["alike"] = table["condition"].where(table.index % 2 == 0, cased)
    table.to_csv(tmp_path / "o_images.csv", index=False)
    table.to_csv(tmp_path / "o.csv", index=False, sep=";", decimal=",")  # as Excel here writes it
    assert says in shell("compare", tmp_path / "o.csv", *options, code=1)
    (tmp_path / "o.xlsx").write_bytes(b"PK\x03\x04")
    assert "is not a CSV" in shell("compare", tmp_path / "o.xlsx", "--column", "area", code=1)


@pytest.mark.parametrize(("sep", "decimal"), [*zip(",;;\t\t", ".,.,.", strict=True)])
def test_a_table_in_any_dialect_gives_the_same_answer(
    sep: str, decimal: str, tmp_path: Path, shell: Shell
) -> None:
    table = cells(np.random.default_rng(0), {"control": 4, "None": 4}, n=3)
    numbers = table.groupby("specimen", sort=False).ngroup()
    table["specimen"] = np.where(numbers % 2, "0", "") + (numbers // 2).astype(str)  # 1 and 01
    table["image"] = table["image"].where(table.index % 2 == 0, "1,5 uM")
    table.to_csv(tmp_path / "o.csv", index=False, sep=sep, decimal=decimal)
    asked = tmp_path / "o.csv", "--column", "area", "--control", "control"
    assert "None against control" in (said := shell("compare", *asked))
    assert "4 and 4 specimens" in said
    text = (tmp_path / "o.csv").read_text().splitlines()
    text[1] = text[1].rpartition(sep)[0] + f"{sep}x"
    (tmp_path / "o.csv").write_text("\n".join(text))
    assert "area_um2 is no number in 1 row (x)" in shell(
        "compare", tmp_path / "o.csv", "--column", "area_um2", code=1
    )


def test_a_pipe_is_no_table_to_wait_for(tmp_path: Path, shell: Shell) -> None:
    os.mkfifo(tmp_path / "o.csv")
    said = shell("compare", tmp_path / "o.csv", "--column", "area", code=1)
    assert "is no regular file, but a pipe" in said


@pytest.mark.slow
@pytest.mark.parametrize(("treated", "control"), [(3, 3), (3, 6), (5, 5)])
def test_equal_conditions_differ_in_one_of_twenty(treated: int, control: int) -> None:
    """Two treatments that do nothing: how often one of them is said to; the truth is covered."""
    rng = np.random.default_rng(treated)
    wrong = {True: 0, False: 0}
    covered, studies = 0, 600
    for _ in range(studies):
        table = cells(rng, {"control": control, "a": treated, "b": treated}, n=12)
        for log in wrong:
            found = compare_conditions(table, "area_um2", "control", log=log)
            wrong[log] += any(one.verdict != "no difference shown" for one in found)
            covered += log and found[0].low <= 1 <= found[0].high
    print(f"{treated} and {control} specimens: wrong in {wrong} of {studies}, covered {covered}")
    assert max(wrong.values()) / studies < 0.075  # 5 % and three standard errors
    assert covered / studies > 0.92
