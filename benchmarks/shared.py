"""What the benchmarks share: simulated dishes, tables of them, and runs that are computed once.

A benchmark is a list of runs, each named by what distinguishes it. Its CSV holds the scores of
those that are finished; called again, it computes the others, two at a time with one thread each.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd

from mitolume.analysis.metrics import best_threshold, probability_histogram
from mitolume.batch.simulate import write_data_set
from mitolume.inference.predictor import Predictor
from mitolume.progress import progress_bar
from mitolume.runs.images import predictor_inputs
from mitolume.runs.results import image_scores
from mitolume.simulate.presets import TREATMENTS, Group, plan_fields
from mitolume.simulate.settings import SimulationSettings

Key = dict[str, Any]  # what distinguishes a run
CONDITIONS = ("control", *TREATMENTS)


def compute_missing(
    results: Path, keys: Sequence[Key], compute: Callable[[Key], pd.DataFrame], jobs: int = 2
) -> pd.DataFrame:
    """Compute the runs that the table of results lacks, and return it whole.

    Parameters
    ----------
    results
        The CSV file; a finished run is added to it at once.
    keys
        All runs of the benchmark.
    compute
        Returns the rows of a run; the columns of its key are put before them.
    jobs
        How many runs at a time, each in a process of its own with one thread.
    """
    table = pd.read_csv(results) if results.exists() else pd.DataFrame()
    known = set() if table.empty else {_named(row, keys[0]) for row in table.to_dict("records")}
    missing = [key for key in keys if _named(key, key) not in known]
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with (
        ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_end_with_parent) as pool,
        progress_bar(results.stem) as advance,
    ):
        running = {pool.submit(compute, key): key for key in missing}
        for done, future in enumerate(as_completed(running), 1):
            rows = future.result()
            for column, value in reversed(running[future].items()):
                rows.insert(0, column, value)
            table = pd.concat([table, rows], ignore_index=True)
            # Not by mitolume's own writer: it replaces nothing that came with a clone.
            temporary = results.with_suffix(".part")
            table.convert_dtypes().to_csv(temporary, index=False, float_format="%.4f")
            temporary.replace(results)
            advance(done, len(missing))
    return table


def _end_with_parent() -> None:
    """Let a process end when the benchmark was killed; it would go on training unseen."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _named(row: Key, columns: Key) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in columns)


def simulated_dishes(
    folder: Path,
    settings: SimulationSettings,
    seed: int,
    *,
    control: int,
    treated: int,
    test_control: int,
    test_treated: int,
) -> pd.DataFrame:
    """Simulate control dishes and dishes of each treatment, for training and for the test.

    Every field is a dish of its own. Fields that are there already are kept.

    Returns
    -------
    pandas.DataFrame
        A row for each field, paths absolute: ``image``, ``exact`` and ``hand`` (its masks),
        ``fluorescence``, ``planes`` (the middle one), ``specimen``, ``condition``, and ``test``.
    """
    groups = [Group("control", control), *(Group(name, treated) for name in TREATMENTS)]
    groups += [Group("control", test_control), *(Group(name, test_treated) for name in TREATMENTS)]
    plans = plan_fields(settings, groups, seed)
    exact = pd.read_csv(write_data_set(plans, folder), dtype=str)
    hand = pd.read_csv(folder / "fields_hand.csv", dtype=str)

    def absolute(column: pd.Series) -> pd.Series:
        return column.map(lambda name: str((folder / name).resolve()))

    return pd.DataFrame(
        {
            "image": absolute(exact["image"]),
            "exact": absolute(exact["mask"]),
            "hand": absolute(hand["mask"]),
            "channel": "Transmitted",
            "fluorescence": "Mitochondria",
            "planes": str(settings.planes // 2),
            "specimen": exact["specimen"],
            "condition": exact["condition"],
            "test": [number >= control + 4 * treated for number in range(len(exact))],
        }
    )


def scores_by_condition(
    run: Path, model: str = "", adapt: Callable[..., Predictor] | None = None
) -> pd.DataFrame:
    """Return the foreground IoU of a finished run on its test images, by condition.

    Pixels are pooled over the images of a condition; ``model`` is the kept one by default. ``iou``
    is that at the threshold of all conditions, since most rows are of runs that had no other;
    ``best`` at the best threshold for the test images of the condition. ``adapt`` gives the
    predictor of an image and of what its network sees, if not all have the same.
    """
    from mitolume.runs.folder import Run

    opened = Run(run)
    opened.quiet = True
    predictor = opened.predictor(model or opened.kept)
    rows = []
    for image, prepared in predictor_inputs(opened.images("test"), predictor):
        plane, truth, _ = image.read()
        assert truth is not None
        by = adapt(image, prepared) if adapt else predictor
        probability = by.predict_boxes(prepared, plane.shape)
        scores = image_scores((probability >= by.card.threshold).astype("uint8"), truth)
        row = image.row
        names = {"all", row.condition} | ({"treated"} if row.condition in TREATMENTS else set())
        found = scores | {
            "histogram": probability_histogram(probability, truth), "specimen": row.specimen
        }  # fmt: skip
        rows += [found | {"condition": name} for name in names]
    by_condition = []
    for condition, own in pd.DataFrame(rows).groupby("condition"):
        tp, fp, fn = (int(own[count].sum()) for count in ("tp", "fp", "fn"))
        by_condition.append(
            {"condition": condition, "n_images": len(own), "n_specimens": own["specimen"].nunique()}
            | {"iou": tp / (tp + fp + fn), "best": best_threshold(own["histogram"].sum())[1]}
        )
    return pd.DataFrame(by_condition)


def fresh(folder: Path) -> Path:
    """Return a folder for a run that nothing of a stopped one is left in."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder
