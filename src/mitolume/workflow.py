"""Whole ways, each one call: compute, then write the page. The demo is one of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mitolume.batch.simulate import plan, write_data_set
from mitolume.errors import MitolumeError
from mitolume.progress import progress_bar, say
from mitolume.report.run_page import report_run
from mitolume.report.study_page import report_study
from mitolume.runs.recipe import Recipe, load_recipe
from mitolume.runs.rerun import circumstances, differences_of_results, repeat
from mitolume.runs.run import compute_run
from mitolume.study.arms import StudyRecipe, load_study
from mitolume.study.compute import FailedRunsError, compute_study
from mitolume.study.folder import Study


def run(
    recipe: Recipe | str | Path | None = None,
    out: str | Path = "run",
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train, label, train again, score and report.

    Parameters
    ----------
    recipe
        A recipe or the path of one. None goes on with the recipe in ``out``.
    out
        The run folder. It must be new, unless ``resume``.
    resume
        Continue a run that was stopped, or begin where there is none. What is finished is kept; a
        training continues from its last epoch and ends with the weights of an unbroken run.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The run folder, with ``report.html``.

    Raises
    ------
    MitolumeError
        The recipe, the table or a file is faulty; the folder holds another run.
    """
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    finished = compute_run(recipe, out, go_on=resume, quiet=quiet)
    if not finished.report_file.exists():
        report_run(finished.path)
    return finished.path


def rerun(
    folder: str | Path, out: str | Path, *, resume: bool = False, quiet: bool = False
) -> tuple[list[str], list[str]]:
    """Repeat a finished run from its folder, and compare.

    Parameters
    ----------
    folder
        The run's folder. The images must lie where they lay, as seen from it.
    out, resume, quiet
        As for `run`.

    Returns
    -------
    list of str, list of str
        What else differs (versions, commit, machine), and how the results do: hashes of the data,
        of the models' weights, and scores. Where the second is empty, the run was repeated.

    Raises
    ------
    MitolumeError
        The run is not finished, or can't be repeated.
    """
    first, second = repeat(Path(folder), Path(out), go_on=resume, quiet=quiet)
    if not second.report_file.exists():
        report_run(second.path)
    return circumstances(first, second), differences_of_results(first, second)


def study(
    recipe: StudyRecipe | str | Path,
    out: str | Path = "study",
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    quiet: bool = False,
) -> Path:
    """Compute all runs that are missing of a study, and write its page.

    Parameters
    ----------
    recipe
        A study or the path of one.
    out
        The study's folder; called again, the study goes on where it was stopped.
    jobs
        Runs at a time on this machine, 1 or more.
    scheduler
        ``tcp://HOST:PORT`` of a dask scheduler whose workers compute the runs instead.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The study's folder, with ``report.html``.

    Raises
    ------
    MitolumeError
        The study, the table or a file is faulty; the folder holds another study.
    FailedRunsError
        A run failed; the others are finished, and the page is written if they can be compared.
    """
    asked = recipe if isinstance(recipe, StudyRecipe) else load_study(recipe)
    try:
        compute_study(asked, out, jobs=jobs, scheduler=scheduler, quiet=quiet)
    except FailedRunsError:
        with suppress(MitolumeError):  # there may be too little to compare
            report_study(out)
        raise
    report_study(out)
    return Path(out)


def report(
    folder: str | Path, *, ceiling: str | Path | None = None, export: str | Path | None = None
) -> Path:
    """Write the page of a run or a study anew.

    Parameters
    ----------
    folder
        The folder of a run or a study.
    ceiling
        Of a run: the table of `mitolume evaluate --agreement --out`, how far two people agree.
    export
        Of a study: a folder for its tables (CSV, Markdown) and figures (SVG, PNG).

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    MitolumeError
        The folder holds neither, nothing is finished, or an option belongs to the other kind.
    """
    if Study(folder).is_begun:
        if ceiling is not None:
            raise MitolumeError(f"--ceiling belongs to the report of a run; {folder} is a study")
        return report_study(folder, export)
    if export is not None:
        raise MitolumeError(f"--export belongs to the report of a study; {folder} is not one")
    return report_run(folder, ceiling)


def demo(out: str | Path, *, resume: bool = False, quiet: bool = False) -> Path:
    """Simulate the data set ``demo``, and run preset ``quick`` on its dye, without an outline.

    Parameters
    ----------
    out
        A new folder; ``data`` and ``run`` are made in it.
    resume
        Continue a demo that was stopped.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    MitolumeError
        The folder is in use.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not resume)):
        raise MitolumeError(
            f"{out} exists and is not empty; choose another --out, or continue with --resume"
        )
    with progress_bar("simulating fields", quiet=quiet) as advance:
        table = write_data_set(
            plan(preset="demo"), out / "data", jobs=2, command="mitolume demo", progress=advance
        )
    say("training on their dye, with preset quick (some minutes on a laptop)", quiet=quiet)
    recipe = load_recipe(preset="quick", fields=table, settings=["labels=0"])
    return run(recipe, out / "run", resume=resume, quiet=quiet) / "report.html"
