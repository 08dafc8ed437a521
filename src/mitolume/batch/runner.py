"""Many files in, many results out: what every command over files does around its own work.

A command makes a `Job` of each input (`open_jobs`), and `run_jobs` computes them.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mitolume.batch.provenance import Provenance, Stamp, fingerprint, stamp
from mitolume.errors import MitolumeError, shorten
from mitolume.parallel import LostError, run_side_by_side
from mitolume.progress import Advance

Input = TypeVar("Input")


@dataclass(frozen=True)
class Report:
    """What there is to say of a computed job: ``text`` is its answer, notices are warnings."""

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
    settings
        All that changes the results besides the inputs, as JSON can hold it.
    compute
        Does the work and writes the results. It is called with a function that it should call
        with the units of work done. Where jobs are computed in other processes it must be
        picklable: a `functools.partial` of a function of a module, or a dataclass.
    work
        Number of units of work, such as planes or blocks.
    """

    name: str
    inputs: tuple[Path, ...]
    results: tuple[Path, ...]
    compute: Callable[[Callable[[int], None]], Report]
    settings: Mapping[str, Any] = field(default_factory=dict)
    work: int = 1


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
    before: list[Job] = field(default_factory=list)  # results were there already
    faults: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def written(self) -> list[Path]:
        """The last result of each job that was computed, its main one."""
        return [one.job.results[-1] for one in self.finished if one.job.results]

    def raise_faults(self, what: str, done: str) -> None:
        """Raise one sentence that counts what was found and used, and says why not the rest.

        Parameters
        ----------
        what
            The inputs in the plural, such as "images".
        done
            What happens to them, such as "predicted".

        Raises
        ------
        MitolumeError
            There are faults.
        """
        used = len(self.finished) + len(self.before)
        if self.faults and used + len(self.faults) == 1:
            raise MitolumeError(self.faults[0])
        if self.faults:
            found = f"{used + len(self.faults)} {what} found, {used or 'none'} {done}"
            count = f"{found}; the others failed:" if used else f"{found}:"
            raise MitolumeError("\n  ".join([count, *self.faults]))


def open_jobs(
    inputs: Sequence[Input],
    make: Callable[[Input], Iterable[Job]],
    faults: list[str],
    progress: Advance = lambda done, total, note="": None,
) -> list[Job]:
    """Open every input before anything is computed.

    Parameters
    ----------
    inputs
        Files, or whatever ``make`` takes.
    make
        Opens one and returns its jobs, one for each scene for example.
    faults
        Gets a sentence for each input that can't be used; it does not stop the others.
    progress
        Called with inputs opened, inputs there are, and what is being done.
    """
    jobs: list[Job] = []
    for number, one in enumerate(inputs):
        name = one.name if isinstance(one, Path) else str(one)
        progress(number, len(inputs), f"opening {name}")
        try:
            jobs += make(one)
        except MitolumeError as error:
            faults.append(str(error))
        except Exception as error:  # a reader's fault must not cost the rest of a batch
            faults.append(unexpected(str(one), error))
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    record: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    scheduler: Scheduler | None = None,
    faults: Sequence[str] = (),
    progress: Advance = lambda done, total, note="": None,
    show: Callable[[Report], None] = lambda report: None,
) -> Outcome:
    """Compute jobs; one that fails does not stop the others.

    Parameters
    ----------
    jobs
        As `open_jobs` made them.
    record
        A file beside the results that keeps what each was made of, see `Provenance`. Without one,
        jobs can't be resumed.
    resume
        Leave out jobs whose results are there. Results of inputs whose content has changed are
        made anew, unless someone has edited them since. Results of other settings are refused,
        for they may have taken days.
    overwrite
        Replace results that are there already.
    scheduler
        What computes the jobs: one after the other in this process by default, see also
        `side_by_side`.
    faults
        Sentences of inputs that could not be opened.
    progress
        Called with units of work done, units there are, and the job's name.
    show
        Called with the report of each job as it is finished.

    Returns
    -------
    Outcome

    Raises
    ------
    MitolumeError
        A result would be lost: two jobs have the same, it is an input, or it is there already.
        Nothing has been computed then. Or the scheduler was lost.
    """
    if resume and overwrite:
        raise MitolumeError("--resume keeps results and --overwrite replaces them; choose one")
    _refuse_lost_files(jobs)
    known, outcome = Provenance(record), Outcome(faults=list(faults))
    if resume:
        missing = _missing(jobs, known, outcome)
    else:
        missing = list(jobs)
        if not overwrite:
            _refuse_replacing(jobs, can_resume=record is not None)
    if not missing:
        return outcome
    known.begin([path for job in missing for path in job.results])
    try:
        for one in (scheduler or one_after_the_other)(missing, progress):
            if one.fault:
                outcome.faults.append(one.fault)
            else:
                outcome.finished.append(one)
                outcome.notices += one.report.notices
                known.add(one.job.results, one.inputs, one.job.settings)
                show(one.report)
    finally:
        known.remove_unused()
    return outcome


def one_after_the_other(jobs: Sequence[Job], progress: Advance) -> Iterator[Finished]:
    """Compute jobs in this process, the simplest `Scheduler`."""
    total, before = sum(job.work for job in jobs), 0
    for job in jobs:

        def advance(done: int, before: int = before, name: str = job.name) -> None:
            progress(before + done, total, name)

        advance(0)
        yield compute(job, advance)
        before += job.work
    progress(total, total)


def side_by_side(processes: int) -> Scheduler:
    """Return a `Scheduler` that computes jobs in processes of this machine.

    Parameters
    ----------
    processes
        How many at a time; with 1 or fewer, jobs are computed in this process.
    """

    def schedule(jobs: Sequence[Job], progress: Advance) -> Iterator[Finished]:
        if processes <= 1 or len(jobs) <= 1:
            yield from one_after_the_other(jobs, progress)
            return
        total, done = sum(job.work for job in jobs), 0
        progress(0, total)
        tasks = {number: (compute, job) for number, job in enumerate(jobs)}
        for number, result in run_side_by_side(tasks, processes=processes):
            job = jobs[number]
            done += job.work
            progress(done, total, job.name)
            if isinstance(result, BaseException):
                yield Finished(job, fault=unexpected(job.name, result))
            else:
                yield replace(result, job=job)

    return schedule


def compute(job: Job, advance: Callable[[int], None] = lambda done: None) -> Finished:
    """Compute one job; whatever goes wrong becomes a sentence, but for a lost cluster."""
    try:
        seen = stamps(job)
        return finish(job, job.compute(advance), seen)
    except LostError:
        raise
    except MitolumeError as error:
        return Finished(job, fault=str(error))
    except Exception as error:  # one file must not cost the rest of a batch
        return Finished(job, fault=unexpected(job.name, error))


def stamps(job: Job) -> list[Stamp]:
    """Return size and time of a job's inputs, from before they are used."""
    return [stamp(path) for path in job.inputs if job.results]


def finish(job: Job, report: Report, seen: Sequence[Stamp]) -> Finished:
    """Return a finished job with what its inputs were, for a `Scheduler` of one's own.

    Parameters
    ----------
    job, report
        The job and what it reported.
    seen
        Its `stamps`, taken before.

    Raises
    ------
    MitolumeError
        An input has changed since.
    """
    pairs = zip(job.inputs, seen, strict=True) if job.results else ()
    return Finished(job, report, tuple(fingerprint(path, before) for path, before in pairs))


def unexpected(name: str, error: BaseException) -> str:
    """Return the sentence for a fault that nobody foresaw."""
    return (
        f"{name}: unexpected {type(error).__name__}: {shorten(error)}. This is a fault of "
        "mitolume; please report it, with the file if you can"
    )


def _refuse_lost_files(jobs: Sequence[Job]) -> None:
    """Refuse two jobs with one result, and results that are inputs."""
    inputs = {_same_name(os.path.realpath(path)) for job in jobs for path in job.inputs}
    owners: dict[str, Job] = {}
    for job in jobs:
        for path in job.results:
            other = owners.setdefault(_same_name(os.path.abspath(path)), job)
            if other is not job:
                both = " and ".join(str((*one.inputs, one.name)[0]) for one in (other, job))
                raise MitolumeError(
                    f"{both} would both become {path}; give each a folder of its own with --out"
                )
            if _same_name(os.path.realpath(path)) in inputs:
                raise MitolumeError(f"{path} is one of the inputs; choose another --out")


def _same_name(path: str) -> str:
    """Return what is the same for names that some system takes for the same file."""
    return unicodedata.normalize("NFC", path).casefold()


def _refuse_replacing(jobs: Sequence[Job], *, can_resume: bool) -> None:
    found = [path for job in jobs for path in job.results if path.exists()]
    if found:
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        way = ", or skip what is done with --resume" if can_resume else ""
        raise MitolumeError(
            f"{found[0]} exists already{others}; choose another --out, or replace results with "
            f"--overwrite{way}"
        )


def _missing(jobs: Sequence[Job], known: Provenance, outcome: Outcome) -> list[Job]:
    """Return the jobs that are not done; put those that are done or can't be done aside."""
    for job in jobs:
        if job.results:
            _require_same_settings(job, known)
    missing, changed = [], 0
    for job in jobs:
        there = [path for path in job.results if path.exists()]
        edited = [path for path in there if not known.is_ours(path)]
        same = bool(there) and known.is_made_of(job.results, job.inputs)
        if same and len(there) == len(job.results):
            outcome.before.append(job)
        elif edited:
            outcome.faults.append(
                f"{edited[0]} would be made anew, but it was edited, or made by something else; "
                "move it away first"
            )
        else:
            missing.append(job)
            changed += bool(there) and known.settings(job.results) is not None and not same
    if changed:
        outcome.notices.append(f"{changed} are made anew, for their inputs have changed")
    return missing


def _require_same_settings(job: Job, known: Provenance) -> None:
    made_with = known.settings(job.results)
    if made_with is None or not job.results[-1].exists():
        return
    asked = json.loads(json.dumps(job.settings))
    for name in asked | made_with:
        if asked.get(name) != made_with.get(name):
            raise MitolumeError(
                f"{job.results[-1]} was made with {name} {made_with.get(name)}, not "
                f"{asked.get(name)}; choose another --out, or replace results with --overwrite"
            )
