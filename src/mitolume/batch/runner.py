"""Many files in, many results out: what every command over files does around its own work."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mitolume.errors import (
    MitolumeError,
    Note,
    TooLittleMemoryError,
    disk_fault,
    rank_of,
    shorten,
    some_lines,
    some_names,
)
from mitolume.io.formats import bare_name, sha256, told_apart
from mitolume.io.listing import image_files, is_other_channel, named_scenes
from mitolume.io.write import is_ours, remove_parts, require_folder, require_ours
from mitolume.parallel import run_side_by_side
from mitolume.progress import Advance
from mitolume.text import count, of_scene


@dataclass(frozen=True)
class Report:
    """What a computed job has to say: its answer, and warnings."""

    text: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Job:
    """One input, or several that belong together, and the results that they become.

    Attributes
    ----------
    name
        How progress and messages call the job.
    inputs
        Files or OME-Zarr folders that are read; a result with one of these names is refused.
    results
        Files or folders that are written, each under a temporary name first (`mitolume.io.write`),
        the last one last: with it the job is done. Empty where the answer is only shown.
    compute
        Does the work and writes the results. It is called with a function that it should call
        with the units of work done. Where jobs are computed in other processes it must be
        picklable, such as a `functools.partial` of a function of a module.
    settings
        All that changes the results besides the inputs, as JSON can hold it.
    work
        Number of units of work, such as planes or blocks.
    smaller
        What the user can do where memory is too little, such as "choose a smaller --tile-size".
    scene
        Which scene of the file ``name`` it is, where it is one; faults and notices then name it.
    """

    name: str
    inputs: tuple[Path, ...]
    results: tuple[Path, ...]
    compute: Callable[[Callable[[int], None]], Report]
    settings: Mapping[str, Any] = field(default_factory=dict)
    work: int = 1
    smaller: str = "close other programs"
    scene: str | None = None


@dataclass(frozen=True)
class Finished:
    """A job that was computed, with what its inputs were, or the sentence in which it failed."""

    job: Job
    report: Report = Report()
    inputs: tuple[Mapping[str, Any], ...] = ()
    fault: str = ""


# Computes jobs in any order; is called with the jobs, and with what shows progress.
Scheduler = Callable[[Sequence[Job], Advance], Iterator[Finished]]


@dataclass
class Outcome:
    """What became of the jobs, and a sentence for each input that could not be used."""

    finished: list[Finished] = field(default_factory=list)
    before: list[Job] = field(default_factory=list)  # results existed already
    faults: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    summary: str = ""  # of all results together
    next: str = ""  # what a user may do with them

    @property
    def written(self) -> list[Path]:
        """The last result of each job that was computed, its main one."""
        return [one.job.results[-1] for one in self.finished if one.job.results]

    @property
    def done(self) -> list[Path]:
        """The main result of each job that is done, now or before."""
        return [*(job.results[-1] for job in self.before), *self.written]

    def raise_faults(self, what: str, done: str) -> None:
        """Raise one `MitolumeError` that counts what was found and used, and names all faults.

        Parameters
        ----------
        what
            The inputs in the plural, such as "images".
        done
            What happens to them, such as "predicted".
        """
        used = len(self.finished) + len(self.before)
        if self.faults and used + len(self.faults) == 1:
            raise MitolumeError(self.faults[0])
        if self.faults:
            found = f"{used + len(self.faults)} {what} found, {used or 'none'} {done}"
            count = f"{found}; the others failed:" if used else f"{found}:"
            raise MitolumeError("\n  ".join([count, *some_lines(self.faults)]))


def run_files(
    paths: Sequence[Path],
    open_scene: Callable[[Path, str | None, str], Job],
    record: Path | None = None,
    *,
    scene: str | None = None,
    scenes: Callable[[Path], Iterable[tuple[str | None, str]]] | None = None,
    first: str = "",
    every: bool = False,
    progress: Advance = lambda done, total, note="": None,
    **options: Any,
) -> Outcome:
    """Open image files, and those in folders, before anything is computed; compute their jobs.

    Parameters
    ----------
    paths, every
        As for `mitolume.io.listing.image_files`.
    open_scene
        Opens a scene of a file, given by its name (None: the only one), and returns its job, whose
        results are named as the third argument says: after its file, and where files of several
        folders have one name after the folder, too. One that can't be opened does not stop the
        others.
    scene, scenes
        A scene of each file, see `named_scenes`; or what returns those of a file with their names.
    first
        A channel that files may be named after. Those that differ from them in the channel alone
        and can't be opened are no faults.
    record, progress, options
        As for `run_jobs`.
    """
    faults: list[str] = []
    jobs: list[Job] = []
    others: list[Path] = []
    files, notices = image_files(paths, faults, every=every)
    apart = told_apart(files)

    def named(file: Path) -> Iterator[tuple[str | None, str]]:
        for own, name in scenes(file) if scenes else named_scenes(file, scene):
            yield own, apart[file] + name.removeprefix(bare_name(file))

    for number, file in enumerate(files):
        progress(number, len(files), f"opening {file.name}")
        for own, one in _opened(file, open_scene, named):
            if isinstance(one, Job):
                jobs.append(one)
            elif not isinstance(one, MitolumeError):
                faults.append(_unexpected(of_scene(str(file), own), one))
            elif first and is_other_channel(file, files, first):
                others.append(file)
            else:
                faults.append(_naming(str(one), file.name, own))
    if others:
        taken = f"{count(len({*others}), 'file')} taken as other channels of those named {first}"
        notices.append(f"{taken}, not as images of their own: {some_names(others)}")
    return run_jobs(jobs, record, faults=faults, notices=notices, progress=progress, **options)


def _opened(
    file: Path,
    open_scene: Callable[[Path, str | None, str], Job],
    scenes: Callable[[Path], Iterable[tuple[str | None, str]]],
) -> Iterator[tuple[str | None, Job | Exception]]:
    """Open the scenes of a file; what goes wrong, with one or with all of them, takes its place."""
    try:
        for scene, name in scenes(file):
            try:
                job = open_scene(file, scene, name)
            except Exception as error:  # a reader's fault must not cost the rest of a batch
                yield scene, error
            else:
                yield scene, replace(job, scene=scene)
    except Exception as error:
        yield None, error


def _naming(text: str, file: str, scene: str | None) -> str:
    """Name a scene where a sentence names its file, unless it does so already."""
    if not scene or re.search(rf"\bscene '?{re.escape(scene)}(?!\w)", text):
        return text
    named = of_scene(file, scene)
    whole = text.replace(file, named, 1) if file in text else f"{named}: {text}"
    return Note(whole, rank_of(text))


def run_jobs(
    jobs: Sequence[Job],
    record: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    scheduler: Scheduler | None = None,
    faults: Sequence[str] = (),
    notices: Sequence[str] = (),
    progress: Advance = lambda done, total, note="": None,
) -> Outcome:
    """Compute jobs; one that fails does not stop the others.

    Parameters
    ----------
    jobs
        What to compute.
    record
        A file beside the results that keeps what each was made of, one line of JSON for each job.
        Without one, jobs can't be resumed.
    resume
        Leave out jobs whose results exist. If the content of an input has changed, its results
        are computed again, unless someone has edited them since. Results of other settings are
        refused, because they may have taken days.
    overwrite
        Replace existing results.
    scheduler
        What computes the jobs: `one_after_the_other` by default, see also `side_by_side`.
    faults, notices
        Sentences about inputs that could not be opened, and about those that were.
    progress
        Called with units of work done, units in total, and the job's name.

    Raises
    ------
    MitolumeError
        A result would be lost: two jobs have the same, it is an input, or it exists already.
        Nothing has been computed then. Or the scheduler was lost.
    """
    if resume and overwrite:
        raise MitolumeError("--resume keeps results and --overwrite replaces them; choose one")
    _refuse_twins(jobs)
    results = [path for job in jobs for path in job.results]
    refuse_inputs(results, [path for job in jobs for path in job.inputs])
    for folder in {path.parent for path in results}:
        require_folder(folder)
    require_free(
        [] if resume else results,
        replace=overwrite,
        hint=", or skip what is done with --resume" if record is not None else "",
    )
    known, outcome = _Record(record), Outcome(faults=list(faults), notices=list(notices))
    if resume:
        jobs = _missing(jobs, known, outcome)
    if not jobs:
        return outcome
    for folder in {path.parent for path in results}:
        remove_parts(folder, tuple(path.name for path in results if path.parent == folder))
    told: dict[tuple[str, str], list[str]] = {}
    for one in (scheduler or one_after_the_other)(jobs, progress):
        if one.fault:
            outcome.faults.append(_naming(one.fault, one.job.name, one.job.scene))
        else:
            outcome.finished.append(one)
            for notice in one.report.notices:  # once of all scenes of which it is said
                told.setdefault((notice, one.job.name), []).append(one.job.scene or "")
            known.add(one)
    said = (_naming(text, name, some_names(own)) for (text, name), own in told.items())
    outcome.notices = list(dict.fromkeys([*outcome.notices, *said]))
    return outcome


def one_after_the_other(jobs: Sequence[Job], progress: Advance) -> Iterator[Finished]:
    """Compute jobs in this process, the simplest `Scheduler`."""
    total, before = sum(job.work for job in jobs), 0
    for job in jobs:

        def advance(done: int, before: int = before, name: str = job.name) -> None:
            progress(before + done, total, name)

        advance(0)
        yield _compute(job, advance)
        before += job.work
    progress(total, total)


def side_by_side(*, inputs: Sequence[Path] = (), **where: Any) -> Scheduler:
    """Return a `Scheduler` that computes jobs in other processes, see `run_side_by_side`.

    ``inputs`` are those that are no job's own.
    """

    def schedule(jobs: Sequence[Job], progress: Advance) -> Iterator[Finished]:
        total, done = sum(job.work for job in jobs), 0
        progress(0, total)
        tasks = {number: (_compute, job) for number, job in enumerate(jobs)}
        read = [*inputs, *(path for job in jobs for path in job.inputs)]
        for number, result in run_side_by_side(tasks, inputs=read, **where):
            job = jobs[number]
            done += job.work
            progress(done, total, job.name)
            if isinstance(result, BaseException):
                yield Finished(job, fault=_sentence(job, result))
            else:
                yield replace(result, job=job)

    return schedule


def _compute(job: Job, advance: Callable[[int], None] = lambda done: None) -> Finished:
    """Compute one job; whatever goes wrong becomes a sentence."""
    try:
        # Before the work: an input that changes meanwhile is found to be another by --resume.
        inputs = tuple(
            {"file": str(path), "sha256": sha256(path)} for path in job.inputs if job.results
        )
        return Finished(job, job.compute(advance), inputs)
    except Exception as error:  # one file must not cost the rest of a batch
        return Finished(job, fault=_sentence(job, error))


def _sentence(job: Job, error: BaseException) -> str:
    """Say what went wrong with a job."""
    if type(error).__name__ == "KilledWorker":
        dead = f"{job.name}: every worker that tried it died, perhaps for lack of memory"
        return f"{dead}; give the workers more, or {job.smaller}"
    if isinstance(error, TooLittleMemoryError):
        return f"{job.name}: {error}; or {job.smaller}"
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return f"{job.name}: too little memory ({shorten(error)}); {job.smaller}"
    return str(error) if isinstance(error, MitolumeError) else _unexpected(job.name, error)


def _unexpected(name: str, error: BaseException) -> str:
    """Return the sentence for a fault that nobody foresaw."""
    if said := disk_fault(error):
        return f"{name}: {said}"
    return (
        f"{name}: unexpected {type(error).__name__}: {shorten(error)}. This is a fault of "
        "mitolume; please report it, with the file if you can"
    )


def require_free(results: Sequence[Path], *, replace: bool, hint: str = "") -> None:
    """Refuse results that exist; if they are to be replaced, those that someone else wrote.

    Raises
    ------
    MitolumeError
        Names the first such result, and ends with the hint.
    """
    for folder in {path.parent for path in results}:
        require_folder(folder)
    found = [path for path in results if os.path.lexists(path)]
    if found and not replace:
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise MitolumeError(
            f"{found[0]} exists already{others}; choose another --out, or replace results with "
            f"--overwrite{hint}"
        )
    for path in found:
        require_ours(path)


def refuse_inputs(results: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse files and folders to write, if they are inputs or lie in one that is a folder.

    Raises
    ------
    MitolumeError
        Names the first of them.
    """
    read = {_same_name(os.path.realpath(path)) for path in inputs if path}
    for path in filter(None, results):
        real = Path(_same_name(os.path.realpath(path)))
        if any(str(place) in read for place in (real, *real.parents)):
            raise MitolumeError(f"{path} is one of the inputs, or in one; choose another --out")


def _refuse_twins(jobs: Sequence[Job]) -> None:
    owners: dict[str, Job] = {}
    for job in jobs:
        for path in job.results:
            other = owners.setdefault(_same_name(os.path.abspath(path)), job)
            if other is not job:
                both = " and ".join(str((*one.inputs, one.name)[0]) for one in (other, job))
                raise MitolumeError(
                    f"{both} would both become {path}; take them apart, each with another --out"
                )


def _same_name(path: str) -> str:
    """Return what is the same for names that some system takes for the same file."""
    return unicodedata.normalize("NFC", path).casefold()


def _missing(jobs: Sequence[Job], known: _Record, outcome: Outcome) -> list[Job]:
    """Return the jobs that are not done; put those that are done or can't be done aside."""
    missing, changed = [], 0
    for job in jobs:
        there = [path for path in job.results if path.exists()]
        made = known.entry(job.results[-1]) if job.results else {}
        if made and job.results[-1].exists():
            _require_same_settings(job, made)
        same = bool(there) and _is_made_of(made, job.inputs)
        if same and len(there) == len(job.results):
            outcome.before.append(job)
        elif edited := next((p for p in there if not is_ours(p)), None):
            outcome.faults.append(
                f"{edited} would be computed again, but it was edited, or made by something else; "
                "move it away first"
            )
        else:
            missing.append(job)
            changed += bool(there) and "settings" in made and not same
    if changed:
        outcome.notices.append(f"{changed} computed again, because their inputs have changed")
    return missing


def _require_same_settings(job: Job, made: Mapping[str, Any]) -> None:
    asked = json.loads(json.dumps(job.settings))
    before = made.get("settings", asked)
    for name in asked | before:
        if asked.get(name) != before.get(name):
            raise MitolumeError(
                f"{job.results[-1]} was made with {name} {before.get(name)}, not "
                f"{asked.get(name)}; choose another --out, or replace results with --overwrite"
            )


# --- what results were made of ------------------------------------------------------------------


class _Record:
    """A file beside results: one line of JSON a job, of which the last one counts.

    Lines that can't be read, as a killed process leaves one, are passed over. Without a path
    nothing is known and nothing is kept. Names of results are as seen from the file, so that the
    folder may be moved.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        if path is None or not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                _ = [one["sha256"] for one in entry["inputs"]], {**entry["settings"]}
                self._entries |= dict.fromkeys(entry["results"], entry)
            except (ValueError, KeyError, TypeError):
                continue

    def entry(self, result: Path) -> dict[str, Any]:
        """Return what is known of a result, {} where nothing is."""
        return self._entries.get(self._name(result), {})

    def _name(self, result: Path) -> str:
        return Path(os.path.relpath(result, (self._path or result).parent)).as_posix()

    def add(self, one: Finished) -> None:
        """Keep what the results of a finished job were made of."""
        if self._path is None:
            return
        entry = {
            "results": [self._name(path) for path in one.job.results],
            "inputs": one.inputs,
            "settings": dict(one.job.settings),
            "mitolume": version("mitolume"),
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            said = f"{self._path} can't be written: {error.strerror}"
            raise MitolumeError(disk_fault(error, self._path) or said) from error


def _is_made_of(made: Mapping[str, Any], inputs: Sequence[Path]) -> bool:
    """Tell whether results were made of inputs of this content; size and time can't tell it."""
    before = made.get("inputs")
    return before is not None and [one["sha256"] for one in before] == [*map(sha256, inputs)]
