"""The demo: simulated fields as a lab would have them, and a run on them. Knows no optics."""

from __future__ import annotations

from pathlib import Path

from mitolume.batch.simulate import plan, write_data_set
from mitolume.errors import MitolumeError
from mitolume.progress import progress_bar, say
from mitolume.run.recipe import load_recipe
from mitolume.run.run import run


def demo(out: str | Path, *, resume: bool = False, quiet: bool = False) -> Path:
    """Simulate the data set ``demo`` and run preset ``quick`` on it.

    Parameters
    ----------
    out
        A new folder; ``data`` and ``run`` are made in it.
    resume
        Go on with a demo that was stopped.
    quiet
        Show no progress.

    Returns
    -------
    pathlib.Path
        The report.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not resume)):
        raise MitolumeError(
            f"{out} exists and is no empty folder; choose another --out, or --resume"
        )
    with progress_bar("simulating fields", quiet=quiet) as advance:
        table = write_data_set(
            plan(preset="demo"), out / "data", jobs=2, command="mitolume demo", progress=advance
        )
    say("training on them with preset quick (some minutes on a laptop)", quiet=quiet)
    recipe = load_recipe(preset="quick", fields=table)
    return run(recipe, out / "run", resume=resume, quiet=quiet) / "report.html"
