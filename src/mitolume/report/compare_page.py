"""Treated against control: from a table of objects to sentences, a superplot or a page.

What draws and opens runs is imported once the table is found to be sound: it takes seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mitolume.analysis.replicates import Effect, compare_conditions, control_of, suits_log
from mitolume.batch.runner import refuse_inputs, require_free
from mitolume.errors import MitolumeError, in_words, some_names
from mitolume.io.formats import require_file
from mitolume.io.h5ad import PLACE
from mitolume.io.pixel_size import unlike_steps
from mitolume.io.readers import as_number
from mitolume.io.table import spelled_twice
from mitolume.io.write import write_table, write_text
from mitolume.text import count, number, percent, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ENDINGS = (".html", ".csv", ".png", ".svg")
_APART = 0.1  # a bias of a ratio that is worth a warning


@dataclass(frozen=True)
class Compared:
    """What `compare` found; ``warnings`` come first."""

    table: pd.DataFrame
    column: str
    by: str
    log: bool
    why: str
    effects: Sequence[Effect]
    warnings: Sequence[str]
    notes: Sequence[str]
    scores: Sequence[dict[str, Any]]
    """Of the run by condition."""
    biases: Sequence[str]
    """How many times as large equal areas are measured in each treatment, as sentences."""

    def superplot(self) -> Figure:
        """Draw the table, on the scale that was compared on."""
        from mitolume.analysis.object_pictures import superplot

        control = self.effects[0].control
        return superplot(self.table, self.column, by=self.by, control=control, log=self.log)

    @property
    def text(self) -> str:
        """All of it for the terminal."""
        notes = [f"note: {one}" for one in (*self.warnings, *self.notes)]
        return "\n".join([*notes, *(one.sentence for one in self.effects), *self.biases])


def compare(
    objects: Path,
    column: str,
    *,
    by: str = "condition",
    control: str | None = None,
    scale: str = "auto",
    run: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Compared:
    """Compare conditions in a table of `measure`, on the means of specimens.

    ``column`` is a measurement, with or without its unit; ``by`` the column of conditions, of which
    ``control`` is one; ``scale`` is ``auto``, ``linear`` or ``log``; ``run`` is the run whose model
    made the masks. ``out`` becomes a page, a table or a superplot, as its ending says;
    ``overwrite`` replaces what an earlier call wrote there.

    Raises
    ------
    MitolumeError
        The table can't be used, there are fewer than two conditions, or none is the control.
    """
    if scale not in ("auto", "linear", "log"):
        raise MitolumeError(f"--scale {scale}: it must be auto, linear or log")
    if out is not None:
        if out.suffix.lower() not in _ENDINGS:
            raise MitolumeError(f"--out {out} must end in {', '.join(_ENDINGS)}")
        refuse_inputs([out], [objects])
        require_free([out], replace=overwrite)
    table, column, notes = _read(objects, column, by)
    names = list(dict.fromkeys(table[by]))
    control = control_of(names, control)
    if len(names) < 2:
        raise MitolumeError(f"{objects}: all rows have the {by} {control}; nothing to compare")
    log, why = suits_log(table[column], table[by])
    if scale != "auto":
        log, why = scale == "log", "as asked for"
    if log and (table[column] <= 0).any():
        raise MitolumeError(f"{objects}: {column} has values of 0 or less, and no logarithms")
    effects = compare_conditions(table, column, control, by=by, log=log)
    found = Compared(
        table, column, by, log, why, effects, *_accuracy(run, table, by, control, notes)
    )
    if out is not None:
        _write(found, out)
    return found


def _write(found: Compared, out: Path) -> None:
    if out.suffix.lower() == ".csv":
        rows = [vars(e) | {"verdict": e.verdict, "sentence": e.sentence} for e in found.effects]
        write_table(out, pd.DataFrame(rows))
    elif out.suffix.lower() == ".html":
        from mitolume.report.charts import conditions_chart
        from mitolume.report.run_page import template

        page = template("compare.html.j2")
        chart = conditions_chart(title_of(found.column), found.superplot)
        write_text(out, page.render(vars(found), chart=chart))
    else:
        from mitolume.analysis.object_pictures import write_figure

        write_figure(out, found.superplot())


_ALIKE = "with the pixel size and z-step of all images (columns `pixel_size_um`, `z_step_um`)"


def _read(objects: Path, column: str, by: str) -> tuple[pd.DataFrame, str, list[str]]:
    """Read a table; return its rows that can be used, the column's full name, and notes."""
    table = _read_cells(objects, by)
    measured = [n for n in map(str, table.select_dtypes("number")) if not PLACE.match(n)]
    with_unit = re.compile(rf"{re.escape(column)}_(um|px)\d?")
    named = [n for n in measured if n == column] or [n for n in measured if with_unit.fullmatch(n)]
    if len(named) > 1:
        raise MitolumeError(
            f"{objects} has {column} in several units ({', '.join(named)}): name one, or measure "
            f"{_ALIKE}"
        )
    if not named:
        deep = column == "area" and "volume_um3" in measured
        hint = "; objects of z-stacks have a volume in place of an area" if deep else ""
        if (beside := objects.with_name(f"{objects.stem}_images{objects.suffix}")).exists():
            hint += f"; what is measured of whole images is in {beside}"
        there = some_names(measured, 12) or "no numbers to compare"
        cells = table.get(column, pd.Series(dtype=float)).dropna()
        if len(odd := cells[cells.map(as_number).isna()]):
            hint = f"; {column} is no number in {count(len(odd), 'row')} ({some_names(odd)})"
        raise MitolumeError(f"{objects} has no measurement {column}; there are {there}{hint}")
    for name in ("image", "specimen", by):
        if name not in table or table[name].isna().all():
            raise MitolumeError(
                f"{objects} does not say the {name} of its rows: measure with --fields, a table "
                f"that has the column {name}"
            )
    twin = re.sub(r"_um\d?$", "_px", named[0])
    other = int(table[twin].notna().sum()) if twin != named[0] and twin in measured else 0
    known = table[["specimen", by]].notna().all(axis=1) & np.isfinite(table[named[0]])
    notes = []
    if left := int((~known).sum()):
        notes = [f"{left} of {count(len(table), 'row')} left out: no {by}, specimen or {named[0]}"]
    if other:
        notes.append(
            f"{other} of {count(len(table), 'row')} have {twin} in its place; measure {_ALIKE}"
        )
    table = table[known].astype({"specimen": str, by: str})
    lines = table.index + 2
    if twice := spelled_twice(by, zip(table[by], lines, strict=True)):
        raise MitolumeError(f"{objects}: {'; '.join(twice)}")
    notes += spelled_twice("specimen", zip(table["specimen"], lines, strict=True))
    if {"centroid_z_px", "centroid_z_um"} <= {*table.select_dtypes("number")}:
        deepest = table.sort_values("centroid_z_px").drop_duplicates("image", keep="last")
        deepest = deepest[deepest["centroid_z_px"] >= 1]  # others are rounded too much
        notes += filter(None, [unlike_steps(deepest["centroid_z_um"] / deepest["centroid_z_px"])])
    deep = table[[n for n in measured if re.fullmatch("volume_(um3|px)", n)]].notna().any(axis=1)
    if deep.any() and not deep.all() and {"area_um2", "area_px"} & {*measured}:
        notes.append(
            f"{int(deep.sum())} of {count(len(deep), 'object')} were measured through z, the "
            "others in single planes, and differ by that alone; measure with --per-plane"
        )
    several = "batch" in table and table["batch"].nunique() > 1
    if several and table.groupby("batch")[by].nunique().max() == 1:
        notes.append(f"each batch has one {by} alone: what differs may be the batch")
    return table, named[0], notes


def _read_cells(objects: Path, by: str) -> pd.DataFrame:
    """Read all cells of a table, names as text."""
    if objects.suffix.lower() not in (".csv", ".parquet", ".tsv", ".txt"):
        raise MitolumeError(f"{objects} is not a CSV or Parquet table; save it as one of them")
    require_file(objects, "table")
    try:
        if objects.suffix.lower() == ".parquet":
            return pd.read_parquet(objects)
        with objects.open(encoding="utf-8-sig") as file:
            start = file.read(2**16)
        sep = max(",;\t", key=start.partition("\n")[0].count)
        comma, point = (len(re.findall(rf"\d{mark}\d", start)) for mark in (",", r"\."))
        decimal = "," if sep != "," and comma > point else "."
        return pd.read_csv(
            objects, sep=sep, decimal=decimal,
            dtype=dict.fromkeys(("image", "specimen", "batch", by), str),  # 01 is not 1
            keep_default_na=False, na_values=["", "NA", "NaN", "nan"],  # "None" is a name
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise MitolumeError(f"{objects} can't be read as a table: {in_words(error)}") from error


def _accuracy(
    folder: Path | None, table: pd.DataFrame, by: str, control: str, notes: list[str]
) -> tuple[list[str], list[str], list[dict[str, Any]], list[str]]:
    """Return warnings, notes, a run's scores by condition, and what its errors add."""
    if folder is None:
        unknown = "how right the masks are in each condition is not known here"
        return [f"{unknown}; name the run that made them with --run"], notes, [], []
    from mitolume.report.run_page import scored_by_dye
    from mitolume.report.run_tables import condition_scores
    from mitolume.runs.folder import open_run
    from mitolume.runs.results import judging_subset

    run, names = open_run(folder), list(dict.fromkeys(table[by]))
    known = {row.specimen for row in run.rows if row.role == "train"}
    seen = table["specimen"].isin(known).groupby(table[by], sort=False).mean()
    if len({percent(share, 0) for share in seen}) > 1:
        said = ", ".join(f"{percent(share, 0)} of {name}" for name, share in seen.items())
        notes.append(f"rows of specimens that the model has learnt from, whose masks are better "
                     f"than others: {said}")  # fmt: skip
    scored = run.scores[(run.scores["model"] == run.kept) & run.scores["tp"].notna()]
    subset = judging_subset(scored)
    scored = scored[(scored["subset"] == subset) & (subset != "train")]
    if by not in scored:
        raise MitolumeError(f"the scores of {folder} know no column {by}")
    scored = scored.assign(condition=scored[by].astype(str))
    scored = scored[scored["condition"].isin(names)]
    sums = scored.groupby(["condition", "specimen"])[["tp", "fp", "fn"]].transform("sum")
    area = (sums["tp"] + sums["fp"]) / (sums["tp"] + sums["fn"])
    usable = scored.assign(area=area)[np.isfinite(area) & (area > 0)]
    biases = []
    if control in set(usable["condition"]):
        biases = compare_conditions(usable, "area", control, log=True)
    warnings = [said.removesuffix(".") for said in scored_by_dye(run, subset)]
    if unchecked := [name for name in names if name not in set(scored["condition"])]:
        warnings.append(
            f"accuracy was never checked on {some_names(unchecked, 9)}: {folder} has no "
            f"{subset if subset != 'train' else 'test or validation'} image of it"
        )
    if far := [one.treatment for one in biases if abs(one.ratio - 1) > _APART]:
        warnings.append(
            "errors of the masks alone make equal areas look unequal in "
            f"{some_names(far, 9)}; see the bias"
        )
    model = run.record[run.kept]
    own = model.get("thresholds", {})
    cut = {name: own.get(name, model)["threshold"] for name in names} if by == "condition" else {}
    if len(set(cut.values())) > 1:
        said = ", ".join(f"{name} {threshold:g}" for name, threshold in cut.items())
        warnings.append(
            f"the run has a threshold for each condition ({said}); unless all masks were made with "
            f"one, predict again with `--threshold {model['threshold']:g}` for all, and see if the "
            "difference stays"
        )
    return warnings, notes, condition_scores(scored), [_bias(one, subset) for one in biases]


def _bias(one: Effect, subset: str) -> str:
    interval = f" (95 % interval {number(one.low, 2)} to {number(one.high, 2)})"
    return (
        f"Bias: equal areas would be measured {number(one.ratio, 2)} times as large in "
        f"{one.treatment} as in {one.control}{interval if math.isfinite(one.p) else ''}; {subset} "
        f"images: {one.counted}."
    )
