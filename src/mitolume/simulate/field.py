"""One simulated field: three channels through focus, and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from mitolume.errors import MitolumeError
from mitolume.simulate.camera import drift_path, drifted, electrons, expose
from mitolume.simulate.dye import as_seen, clipping_gain, dye_of_field, dyed, stain
from mitolume.simulate.hand_labels import imitate_hand_labels
from mitolume.simulate.optics import fluorescence_stack, transmitted_stack
from mitolume.simulate.settings import (
    CONDITIONS,
    CameraSettings,
    DyeSettings,
    OpticsSettings,
    SimulationSettings,
)
from mitolume.simulate.specimen import Volume, grow_specimen

CHANNELS = ("Transmitted", "Mitochondria", "CellMask")
DYES = CHANNELS[1:]

SLICE_UM = 0.2  # height of a voxel: the finest period along the axis is 0.85 um at NA 1.2
MARGIN_UM = 3.2  # structures outside the field, and the wrap-around of the optics
# Brightness that gives ``fluorescence_photons``: mitochondria on top of each other, a fold of
# membrane. One in a thousand pixels of control fields is as bright.
_BRIGHT = {"Mitochondria": 0.6, "CellMask": 2.0}
# Streams of random numbers; 0 to 4 are those of cells.
_STEP, _DRIFT, _PERSON, _NOISE, _DYE = 101, 102, 103, 104, 105

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SimulatedField:
    """One simulated field of view.

    Attributes
    ----------
    condition, seed
        Arguments of `simulate_field`.
    pixel_um, z_step_um
        Side of a pixel and distance from plane to plane in um.
    focus_um
        (Z,), height of each plane above the coverslip in um.
    images
        Camera counts (Z, Y, X) of each of `CHANNELS`.
    clean
        The same without scan lines, noise, rounding and saturation.
    masks
        (Z, Y, X), 1 where a mitochondrion lies within half the depth of field of the plane
        (`depth_of_field`).
    hand_masks
        (Z, Y, X), the masks as a person would have drawn them, plane by plane.
    labels
        (slices, Y, X), the number of each mitochondrion, 0 background.
    label_um
        Voxel size of the labels (Z, Y, X) in um. Slice 0 lies on the coverslip: its centre is half
        a slice above.
    stain
        (Y, X), concentration of the dye of mitochondria relative to an even stain of all cells; 0
        in cells that took up none. It is where the cells are, without ``shift_um`` and drift.
    dye
        Settings of the dye that hold for this field, as ``dye.affected`` decides.
    skeletons
        Points of the centrelines: ``object`` (the number in the labels), ``branch``, ``z``,
        ``y``, ``x`` (0 is the centre of pixel (0, 0)) and ``radius``, in um.
    """

    condition: str
    seed: int
    pixel_um: float
    z_step_um: float
    focus_um: NDArray[np.float64]
    images: dict[str, NDArray[np.uint16]]
    clean: dict[str, Floats]
    masks: NDArray[np.uint8]
    hand_masks: NDArray[np.uint8]
    labels: NDArray[np.int32]
    label_um: tuple[float, float, float]
    stain: Floats
    dye: DyeSettings
    skeletons: pd.DataFrame

    @property
    def near_focus(self) -> tuple[int, ...]:
        """Planes in whose mask at least half as many pixels are mitochondria as in the fullest."""
        counts = self.masks.sum(axis=(1, 2), dtype=np.int64)
        return tuple(np.flatnonzero(2 * counts >= max(counts.max(), 1)).tolist())

    @property
    def unstained(self) -> float:
        """Share of the pixels of the masks that lie in cells without dye."""
        return float(self.masks[:, self.stain == 0].sum() / max(self.masks.sum(), 1))


def simulate_field(
    settings: SimulationSettings | None = None, *, condition: str = "control", seed: int = 0
) -> SimulatedField:
    """Simulate one field of living cells, cut by the field's edge.

    The same arguments give the same bytes. The same seed under another condition gives the same
    cells with other mitochondria: count the two as one specimen. Plane ``planes // 2`` lies at
    the mean height of the mitochondria, or ``middle_um`` above it.

    Parameters
    ----------
    settings
        Size, planes, microscope, camera, annotator; the defaults of `SimulationSettings`.
    condition
        A name in ``settings.CONDITIONS``.
    seed
        Seed of all random numbers; not negative.

    Raises
    ------
    MitolumeError
        For an unknown condition or a negative seed.

    Examples
    --------
    >>> from mitolume.simulate.settings import SimulationSettings
    >>> field = simulate_field(SimulationSettings(shape=(48, 64), planes=3), condition="fccp")
    >>> field.images["Transmitted"].shape, field.masks.shape, field.masks.dtype
    ((3, 48, 64), (3, 48, 64), dtype('uint8'))
    """
    if condition not in CONDITIONS:
        raise MitolumeError(f"no condition {condition!r}; there are {', '.join(CONDITIONS)}")
    if seed < 0:
        raise MitolumeError(f"seed is {seed}: it must not be negative")
    settings = settings or SimulationSettings()
    px, optics = settings.pixel_um, settings.optics
    step = float(np.random.default_rng([seed, _STEP]).uniform(*settings.z_step_um))
    padded, inner = _padded(settings.shape, px)
    staining = np.random.default_rng([seed, _DYE])
    dye = dye_of_field(settings.dye, staining)
    specimen = grow_specimen(padded, px, dyed(CONDITIONS[condition], dye), seed, settings.crowding)
    cells, volume = specimen.cells, specimen.volume(SLICE_UM)
    stained = stain(cells, padded, px, dye, staining)
    volume = replace(volume, mitochondria=volume.mitochondria * stained)
    counts = np.count_nonzero(volume.labels[:, *inner], axis=(1, 2))
    middle = np.average(volume.heights, weights=counts) if counts.any() else 1.5
    steps = np.arange(settings.planes, dtype=np.float64) - settings.planes // 2
    focus: NDArray[np.float64] = middle + settings.middle_um + step * steps
    near = abs(volume.heights - focus[:, None]) <= depth_of_field(optics) / 2
    masks = np.stack([(volume.labels[slices] > 0).any(axis=0) for slices in near]).astype(np.uint8)

    path = drift_path(settings.planes, px, settings.camera, np.random.default_rng([seed, _DRIFT]))
    masks = drifted(masks, path)[:, *inner]
    light = _light(volume, focus, optics, dye)
    away = {name: path + np.array(dye.shift_um) / px * (name in DYES) for name in CHANNELS}
    light = {name: drifted(stack, away[name])[:, *inner] for name, stack in light.items()}
    images, clean = _expose(light, masks, dye.saturated, settings.camera, seed)
    person = np.random.default_rng([seed, _PERSON])
    edge, nucleus = (cells.on_grid(one, padded, px) for one in (cells.edge, cells.nucleus))
    cytoplasm = np.broadcast_to((edge > 0) & (nucleus > 0), (settings.planes, *padded))
    hand = [
        imitate_hand_labels(mask, px, person, settings.hand_labels, plausible=place)
        for mask, place in zip(masks, drifted(cytoplasm, path)[:, *inner], strict=True)
    ]
    return SimulatedField(
        condition=condition,
        seed=seed,
        pixel_um=px,
        z_step_um=step,
        focus_um=focus,
        images=images,
        clean=clean,
        masks=masks,
        hand_masks=np.stack(hand),
        labels=volume.labels[:, *inner],
        label_um=volume.voxel_um,
        stain=stained[inner],
        dye=dye,
        skeletons=specimen.skeletons(settings.shape, (inner[0].start, inner[1].start)),
    )


def depth_of_field(optics: OpticsSettings) -> float:
    """Return the whole depth of field in transmitted light in µm.

    n lambda / NA**2 (Inoué and Spring 1997, Video Microscopy, 2nd ed.) with the mean of both
    apertures, which also gives the resolution lambda / (2 NA).
    """
    na = (optics.objective_na + min(optics.condenser_na, optics.objective_na)) / 2
    return optics.immersion_index * optics.transmitted_um / na**2


def _padded(shape: tuple[int, int], px: float) -> tuple[tuple[int, int], tuple[slice, slice]]:
    """Shape with a margin, of a size that is fast to transform, and where the field lies in it."""
    least = round(MARGIN_UM / px)
    rows, columns = (next_fast_len(n + 2 * least, real=True) for n in shape)
    top, left = (rows - shape[0]) // 2, (columns - shape[1]) // 2
    inner = slice(top, top + shape[0]), slice(left, left + shape[1])
    return (rows, columns), inner


def _light(
    volume: Volume, focus: NDArray[np.float64], optics: OpticsSettings, dye: DyeSettings
) -> dict[str, Floats]:
    """Intensity of each channel (Z, Y, X), 1 for the background or what is bright."""
    where = (volume.voxel_um, volume.heights, focus, optics)
    there = (*where[:2], focus + dye.shift_z_um, optics)
    mitochondria = fluorescence_stack(volume.mitochondria, *there, optics.mitochondria_um)
    mitochondria /= np.float32(_BRIGHT["Mitochondria"])
    membrane = fluorescence_stack(volume.membrane, *there, optics.membrane_um)
    membrane /= np.float32(_BRIGHT["CellMask"])
    return {
        "Transmitted": transmitted_stack(volume.index, *where),
        "Mitochondria": as_seen(mitochondria, membrane, dye),
        "CellMask": membrane,
    }


def _expose(
    light: dict[str, Floats],
    masks: NDArray[np.uint8],
    saturated: float,
    camera: CameraSettings,
    seed: int,
) -> tuple[dict[str, NDArray[np.uint16]], dict[str, Floats]]:
    images, clean = {}, {}
    for number, (name, intensity) in enumerate(light.items()):
        photons, gain = camera.photons, camera.gain
        if name in DYES:
            photons, gain = camera.fluorescence_photons, camera.fluorescence_gain
        if name == "Mitochondria" and saturated and masks.any():
            bright = electrons(intensity, camera, photons)[masks == 1]
            gain = clipping_gain(bright, saturated, 2**camera.bits - 1 - camera.offset)
        detector = camera.model_copy(update={"gain": gain})
        rng = np.random.default_rng([seed, _NOISE, number])
        images[name], clean[name] = expose(
            intensity, detector, rng, photons=photons, scan_lines=name not in DYES
        )
    return images, clean
