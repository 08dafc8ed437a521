"""From stacks to a trained denoiser: planes, method, training, bundle. Knows no table of fields."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr

from mitolume.errors import MitolumeError
from mitolume.inference.denoise import FLIPS, run_network
from mitolume.inference.jobs import image_files, named_scenes
from mitolume.io.channels import select_channel
from mitolume.io.check import sha256
from mitolume.io.planes import format_planes, parse_planes
from mitolume.io.read import read, read_plane
from mitolume.io.write import write_text
from mitolume.models.bundle import CARD, save_bundle
from mitolume.models.denoiser import DenoiserCard
from mitolume.models.networks import KERNEL, DenoisingNetwork
from mitolume.models.settings import DenoiserNetworkSettings
from mitolume.preprocess.focus import focus_scores, planes_in_focus
from mitolume.preprocess.normalise import is_flat, measure_range, normalise
from mitolume.preprocess.stripes import remove_stripes
from mitolume.preprocess.wiener import expected_error, wiener_kernel
from mitolume.progress import Advance, progress_bar, say
from mitolume.study.images import ArrayFile
from mitolume.study.recipe import load_recipe
from mitolume.training.denoise_methods import DENOISING_METHODS, Run, Sample
from mitolume.training.denoising import Denoising, hold_out
from mitolume.training.loop import CHECKPOINT, fit, resolve_precision
from mitolume.training.record import Progress, Trained, Watch
from mitolume.training.settings import DenoisingSettings

BEGUN = "denoising.json"  # what a folder was begun with
_SCRATCH = "scratch"
_LEAST = 32  # pixels a side of planes that can be learnt from
_MEASURED = 12  # planes by which filters are measured
_SHARED = 0.5  # of the noise of planes: where neighbours leave less of it, it is theirs too
T = TypeVar("T")


@dataclass(frozen=True)
class Stack:
    """Planes to learn from.

    ``image`` has dims ``T C Z Y X``, C of length 1; ``planes`` are numbers along Z.
    """

    path: Path
    image: xr.DataArray
    planes: tuple[int, ...]

    @property
    def runs(self) -> list[list[int]]:
        """The planes, parted where one is missing between them."""
        runs: list[list[int]] = []
        for z in self.planes:
            if runs and z == runs[-1][-1] + 1:
                runs[-1].append(z)
            else:
                runs.append([z])
        return runs


def open_stacks(
    paths: Sequence[Path],
    planes: str = "all",
    *,
    channel: str | None = None,
    scene: str | None = None,
) -> list[Stack]:
    """Open files, and what is in folders, and choose their planes.

    Parameters
    ----------
    paths
        Images, or folders of them.
    planes
        ``all``, ``focus``, or numbers from 0 such as ``3-20``.
    channel, scene
        Where to look in the files.

    Raises
    ------
    MitolumeError
        A file can't be opened, or lacks one of the planes.
    """
    faults: list[str] = []
    stacks = []
    for path in dict.fromkeys(image_files(paths, faults)):
        for own, _ in named_scenes(path, scene):
            image = select_channel(read(path, scene=own), channel)
            stacks.append(Stack(path, image, chosen_planes(image, planes)))
    if faults:
        raise MitolumeError("; ".join(faults))
    return stacks


def chosen_planes(image: xr.DataArray, planes: str) -> tuple[int, ...]:
    """Return the planes that ``all``, ``focus`` or a list of numbers means in an image."""
    depth = image.sizes["Z"]
    if planes == "all":
        return tuple(range(depth))
    if planes == "focus":
        size = image.attrs.get("pixel_size_um", {})
        stack = (read_plane(image, z=z) for z in range(depth))
        return tuple(planes_in_focus(focus_scores(stack, pixel_size_um=size.get("X"))))
    try:
        found = parse_planes(planes) or ()
    except ValueError as error:
        raise MitolumeError(f"--planes: {error}, all or focus") from None
    if found and found[-1] >= depth:
        raise MitolumeError(
            f"{image.attrs.get('source', 'the image')} has no plane {found[-1]}: it has {depth}, "
            "counted from 0"
        )
    return found


def denoising_settings(preset: str = "default", changes: Sequence[str] = ()) -> DenoisingSettings:
    """Return the section `denoising` of a preset, with some settings changed.

    Parameters
    ----------
    preset
        ``default``, ``quick`` or ``paper``.
    changes
        ``key=value`` with dots for nested keys, such as ``network.width=32``.
    """
    full = [f"denoising.{change}" for change in changes]
    return load_recipe(preset=preset, fields="none", settings=full).denoising


def train_denoiser(
    stacks: Sequence[Stack],
    out: Path,
    settings: DenoisingSettings,
    *,
    method: str = "auto",
    stripes: str = "auto",
    seed: int = 0,
    resume: bool = False,
    quiet: bool = False,
) -> DenoiserCard:
    """Train a denoiser on noisy stacks, and write its bundle.

    Parameters
    ----------
    stacks
        What to learn from.
    out
        The bundle; a new folder, unless ``resume``.
    settings
        How to train.
    method
        One of `DENOISING_METHODS`, or ``auto``: `choose_method` decides.
    stripes
        ``auto`` removes scan-line noise first, ``none`` doesn't.
    seed
        Of weights and patches.
    resume
        Go on with a training that was stopped; what is finished is kept.
    quiet
        Show no progress.

    Returns
    -------
    DenoiserCard

    Raises
    ------
    MitolumeError
        The planes can't be learnt from, or the folder holds something else.
    """
    settings = settings.model_copy(update={"precision": resolve_precision(settings.precision)})
    asked = {
        "method": method,
        "stripes": stripes,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "stacks": [_entry(stack) for stack in stacks],
    }
    if _is_done(out, asked, resume):
        return DenoiserCard.model_validate_json((out / CARD).read_text(encoding="utf-8"))
    if method != "auto" and method not in DENOISING_METHODS:
        names = ", ".join(["auto", *DENOISING_METHODS])
        raise MitolumeError(f"there is no method {method!r}; there are {names}")
    if stripes not in ("auto", "none"):
        raise MitolumeError(f"stripes can be auto or none, not {stripes!r}")
    name, check = choose_method(stacks) if method == "auto" else (method, {})
    if check and not quiet:
        say(f"note: {check['reason']}, so the method is {name}")
    scratch = out / _SCRATCH
    try:
        with progress_bar("preparing planes", quiet=quiet) as advance:
            runs = _prepared(stacks, stripes, scratch, advance)
        network, trained, facts = _train(runs, out, settings, name, seed, quiet)
        doubt = facts.pop("doubt", "")
        if method == "auto" and doubt:
            check = {"verdict": "not suitable", "reason": doubt}
            name = "wiener"
            say(f"note: {doubt}, so the method is {name}", quiet=quiet)
            network, trained, facts = _train(runs, out, settings, name, seed, quiet)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    card = DenoiserCard(
        method=name,
        network=network_settings(settings, name),
        channels=DENOISING_METHODS[name].channels,
        stripes=stripes,
        pixel_size_um=_pixel_size(stacks),
        settings=asked["settings"],
        stacks=asked["stacks"],
        check=check,
        chosen=trained.chosen,
        history=trained.history,
        seed=seed,
        **facts,
    )
    save_bundle(out, network.state_dict(), card)
    (out / CHECKPOINT).unlink(missing_ok=True)
    (out / BEGUN).unlink(missing_ok=True)
    return card


def choose_method(stacks: Sequence[Stack]) -> tuple[str, dict[str, Any]]:
    """Choose how to denoise some stacks, and say why.

    Returns
    -------
    str, dict
        ``noise2stack`` where neighbouring planes show nearly the same and have noise of their
        own, else ``wiener``; and what was found.
    """
    longest = max(stacks, key=lambda stack: max(map(len, stack.runs)))
    depth = max(map(len, longest.runs))
    if depth < 3:
        return "wiener", {"verdict": "not suitable", "reason": "there are no neighbouring planes"}
    return "noise2stack", {"verdict": "suitable", "reason": f"there are {depth} planes"}


def _is_done(out: Path, asked: dict[str, Any], resume: bool) -> bool:
    """Tell whether the denoiser is there already; begin its folder where it is not."""
    begun = out / BEGUN
    if out.exists() and not resume and any(out.iterdir()):
        raise MitolumeError(f"{out} is no empty folder; choose another --out, or go on with what "
                            "was stopped by --resume")  # fmt: skip
    if (out / CARD).exists():
        return True
    if begun.exists() and json.loads(begun.read_text(encoding="utf-8")) != asked:
        raise MitolumeError(f"{out} was begun with other stacks or settings; choose another --out")
    write_text(begun, json.dumps(asked, indent=2) + "\n")
    return False


def _prepared(stacks: Sequence[Stack], stripes: str, scratch: Path, advance: Advance) -> list[Run]:
    """Read and normalise all planes, kept on disk so that memory stays flat."""
    for stack in stacks:
        _require_size(stack)
    file = ArrayFile(scratch / "planes", np.float32)
    lengths: list[int] = []
    total = sum(len(stack.planes) * stack.image.sizes["T"] for stack in stacks)
    done = 0
    with file.file:
        for stack, t, run in _all_runs(stacks):
            lengths.append(0)
            for z in run:
                advance(done, total, stack.path.name)
                done += 1
                plane = read_plane(stack.image, t=t, z=z)
                if is_flat(measure_range(plane)):  # an empty frame is nobody's neighbour
                    lengths.append(0)
                    continue
                file.append(normalise(remove_stripes(plane) if stripes == "auto" else plane))
                lengths[-1] += 1
    advance(total, total)
    planes = file.read_all()
    ends = np.cumsum(lengths)
    return [planes[end - n : end] for n, end in zip(lengths, ends, strict=True) if n]


def _all_runs(stacks: Sequence[Stack]) -> Iterator[tuple[Stack, int, list[int]]]:
    """Yield each stack with its time points and the runs of its planes."""
    for stack in stacks:
        for t in range(stack.image.sizes["T"]):
            for run in stack.runs:
                yield stack, t, run


def _require_size(stack: Stack) -> None:
    height, width = stack.image.sizes["Y"], stack.image.sizes["X"]
    if min(height, width) < _LEAST:
        raise MitolumeError(
            f"{stack.path} has planes of {height} x {width} pixels; a denoiser needs {_LEAST} x "
            f"{_LEAST} or more to learn from"
        )


def _train(
    runs: list[Run], out: Path, settings: DenoisingSettings, name: str, seed: int, quiet: bool
) -> tuple[DenoisingNetwork, Trained, dict[str, Any]]:
    """Train, measure what is to be given back, and return facts for the card."""
    method = DENOISING_METHODS[name]
    if not runs:
        raise MitolumeError("all planes have one grey value only: there is nothing to learn from")
    runs = [run for run in runs if len(run) >= method.fewest_planes]
    if not runs:
        raise MitolumeError(
            f"{name} needs neighbouring planes, and there are only single ones; give it z-stacks, "
            "or choose --method wiener or blind_spot"
        )
    planes = [plane for run in runs for plane in run]
    typical = spread_over(planes, _MEASURED)
    network = DenoisingNetwork(network_settings(settings, name), method.channels, seed)
    network.alone.copy_(torch.from_numpy(wiener_kernel(typical, KERNEL)))
    if method.channels == 0:
        return network, Trained({}, "no network", []), {}
    directions = settings.directions
    if settings.protect:
        samples, held_out = hold_out(runs, method, directions)
    else:
        samples, held_out = [s for run in runs for s in method.samples(run, (), directions)], []
    settings = settings.for_images(len(samples))
    task = Denoising(samples, held_out, method, settings, seed)
    with progress_bar("training denoiser", quiet=quiet) as advance:
        trained = fit(
            network, task, settings=settings, folder=out, watch=Watch(step=_reporting(advance))
        )
    network.load_state_dict(trained.weights)
    network.eval()
    if not held_out:
        return network, trained, {}
    # A spectrum needs many planes; those that were learnt from tell as much of it.
    judged = [*held_out, *spread_over(samples, _MEASURED)] if method.channels > 1 else held_out
    keep = method.keep(judged, lambda given: run_network(network, given, FLIPS))
    network.keep.copy_(torch.from_numpy(keep))
    best = max(record["validation_db"] or -np.inf for record in trained.history)
    doubt = _doubt(judged, network) if method.channels > 1 else ""
    scores = {"validation_db": round(best, 3), "n_held_out": len(held_out)}
    kept = round(float(keep[KERNEL // 2, KERNEL // 2]), 4)
    return network, trained, {"kept": kept, "scores": scores, "doubt": doubt}


def network_settings(settings: DenoisingSettings, method: str) -> DenoiserNetworkSettings:
    """Return the network of some settings, as a method can use it."""
    residual = settings.network.residual and DENOISING_METHODS[method].residual
    return settings.network.model_copy(update={"residual": residual})


def spread_over(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, evenly spread over all."""
    count = min(most, len(items))
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count)]


def _doubt(judged: Sequence[Sample], network: DenoisingNetwork) -> str:
    """Say why a filter of the plane alone would be better than its neighbours' answer; "" if not.

    Noise that the neighbours can predict is missing in the difference to their answer.
    """
    answers = [run_network(network, given, FLIPS) for given, _, _ in judged]
    error, floor = expected_error(
        [plane - answer for (_, _, plane), answer in zip(judged, answers, strict=True)]
    )
    error_alone, floor_alone = expected_error([plane for _, _, plane in judged])
    if floor < _SHARED * floor_alone:
        return "neighbouring planes share their noise"
    return "neighbouring planes tell nothing of each other" if error >= error_alone else ""


def _reporting(advance: Advance) -> Any:
    def report_step(at: Progress) -> None:
        note = "" if at.score is None else f"held-out planes {at.score:.2f} dB"
        advance(at.step, at.steps, note)

    return report_step


def _entry(stack: Stack) -> dict[str, Any]:
    return {
        "image": stack.path.name,
        "channel": str(stack.image["C"].values[0]),
        "planes": format_planes(stack.planes),
        "n_times": stack.image.sizes["T"],
        "sha256": sha256(stack.path),
    }


def _pixel_size(stacks: Sequence[Stack]) -> float | None:
    known = [size["Y"] for s in stacks if "Y" in (size := s.image.attrs.get("pixel_size_um", {}))]
    return float(np.median(known)) if known else None
