"""A finished run repeated from its folder, and what is not the same then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mitolume.errors import some_names
from mitolume.io.formats import sha256
from mitolume.models.bundle import WEIGHTS
from mitolume.runs.folder import Run, open_run
from mitolume.runs.recipe import load_recipe
from mitolume.runs.run import compute_run
from mitolume.text import count

_CIRCUMSTANCES = ("device", "threads")


def repeat(path: Path, out: Path, *, go_on: bool, quiet: bool) -> tuple[Run, Run]:
    """Do a finished run once more, on as many threads; return it and the new one."""
    first, threads = open_run(path), torch.get_num_threads()
    torch.set_num_threads(first.record.get("threads", threads))
    try:
        recipe = load_recipe(first.recipe_file)
        return first, compute_run(recipe, out, go_on=go_on, quiet=quiet)
    finally:
        torch.set_num_threads(threads)


def circumstances(first: Run, second: Run) -> list[str]:
    """Say in what two runs differ that may change the last bits: versions, commit, machine."""
    before, now = (
        run.record.get("versions", {}) | {name: run.record.get(name) for name in _CIRCUMSTANCES}
        for run in (first, second)
    )
    return [
        f"{name} was {before.get(name, 'not noted')} and is {now.get(name, 'not noted')}"
        for name in before | now
        if before.get(name) != now.get(name)
    ]


def differences_of_results(first: Run, second: Run) -> list[str]:
    """Say in what the data, the models and the scores of two runs differ."""
    found = []
    # A run's own table no longer names outlines that it left aside.
    before, now = map(_data, (first, second))
    if changed := [path for path in now if before.get(path, now[path]) != now[path]]:
        found.append(f"{count(len(changed), 'file')} of the data changed: {some_names(changed)}")
    for name in sorted({*first.models, *second.models}):
        files = [run.model_folder(name) / WEIGHTS for run in (first, second)]
        digests = [sha256(file) if file.exists() else None for file in files]
        if digests[0] != digests[1]:
            found.append(f"the weights of {name.replace('_', ' ')} are others")
    scores, again = map(_scores, (first, second))
    differing = [key for key in scores | again if scores.get(key) != again.get(key)]
    found += [
        f"{metric} of {model.replace('_', ' ')} ({subset}) was {scores.get(key)} and is "
        f"{again.get(key)}"
        for key in differing[:3]
        for model, subset, metric in [key]
    ]
    if differing[3:]:
        found.append(f"{count(len(differing[3:]), 'more score')} differ")
    if first.kept != second.kept:
        found.append(f"{first.kept} was kept and {second.kept} is")
    return found


def _data(run: Run) -> dict[Path, str]:
    return {(run.path / file).resolve(): digest for file, digest in run.record["sha256"].items()}


def _scores(run: Run) -> dict[tuple[Any, ...], str]:
    """Return the values of results.csv as text, so that NaN equals itself."""
    rows = run.results[["model", "subset", "metric", "value"]].to_numpy()
    return {tuple(row[:3]): f"{row[3]:.6g}" for row in rows}
