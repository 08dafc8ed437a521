"""Turns exact masks into masks as a person would draw them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, gaussian_filter, label
from scipy.ndimage import distance_transform_edt as edt

from mitolume.simulate.settings import HandLabelSettings

Flags = NDArray[np.bool_]

SMOOTH_UM = 0.6  # a hand draws strokes, so that its errors are alike along this length
NEAR_UM = (1.0, 8.0)  # from a mitochondrion to an outline of something else in the same cell
_TOUCHING = np.ones((3, 3), bool)


def imitate_hand_labels(
    mask: NDArray[np.uint8],
    pixel_um: float,
    rng: np.random.Generator,
    settings: HandLabelSettings,
    *,
    plausible: Flags | None = None,
) -> NDArray[np.uint8]:
    """Outline the objects of one plane as a person would: inexactly, missing and inventing some.

    An object is missed as a whole. What is invented has the shape of a single object of the plane,
    turned, at a free place nearby. Then all outlines are displaced: a point of the plane is
    foreground where its distance inside the outline exceeds a smooth random field.

    Masks are uint8 (Y, X), 0 background and 1 mitochondria. ``plausible``, bool (Y, X), is where
    something may be invented, such as the cytoplasm; by default anywhere.

    Examples
    --------
    >>> mask = np.zeros((40, 60), np.uint8)
    >>> mask[10:20, 10:50] = 1
    >>> settings = HandLabelSettings(jitter_um=0.1, missed=0, invented=0)
    >>> drawn = imitate_hand_labels(mask, 0.1, np.random.default_rng(0), settings)
    >>> bool(0 < (drawn != mask).sum() < 120)
    True
    """
    objects, count = label(mask, _TOUCHING)
    seen = np.append(False, rng.random(count) >= settings.missed)
    closed = np.zeros(mask.shape, bool) if plausible is None else ~plausible
    invented = _invent(objects, closed, rng.poisson(settings.invented * count), pixel_um, rng)
    drawn = seen[objects] | invented
    return _displace(drawn, settings.jitter_um, pixel_um, rng).astype(np.uint8)


def _invent(
    objects: NDArray[np.int32], closed: Flags, count: int, pixel_um: float, rng: np.random.Generator
) -> Flags:
    """Put copies of objects where no object is; one that finds no place is left out."""
    invented = np.zeros(objects.shape, bool)
    if not count:
        return invented
    taken = closed | binary_dilation(objects > 0, _TOUCHING, iterations=2)
    boxes = find_objects(objects)
    places = np.argwhere(objects > 0)
    areas = np.bincount(objects.ravel())[1:]
    single = 1 + np.flatnonzero(areas <= 2 * np.median(areas))  # no heap of touching objects
    for _ in range(count):
        number = int(rng.choice(single))
        shape = np.rot90(objects[boxes[number - 1]] == number, int(rng.integers(4)))
        shape = shape[:, ::-1] if rng.random() < 0.5 else shape
        for _ in range(30):
            bearing, far = rng.uniform(0, 2 * np.pi), rng.uniform(*NEAR_UM) / pixel_um
            near = places[rng.integers(len(places))]
            corner = np.rint(near + far * np.array([np.sin(bearing), np.cos(bearing)])).astype(int)
            if (corner < 0).any() or (corner + shape.shape > objects.shape).any():
                continue
            place = tuple(slice(c, c + n) for c, n in zip(corner, shape.shape, strict=True))
            if not (taken[place] & shape).any():
                invented[place] |= shape
                taken[place] |= binary_dilation(shape, _TOUCHING)
                break
    return invented


def _displace(drawn: Flags, jitter_um: float, pixel_um: float, rng: np.random.Generator) -> Flags:
    """Move the boundary by a smooth random displacement of this standard deviation."""
    sigma = SMOOTH_UM / pixel_um
    # A Gaussian filter leaves 1 / (4 pi sigma^2) of the variance of white noise.
    noise = gaussian_filter(rng.standard_normal(drawn.shape), sigma, mode="wrap")
    noise *= 2 * np.sqrt(np.pi) * sigma * jitter_um
    if drawn.all() or not drawn.any():
        return drawn
    # The boundary runs between pixels, half a pixel from their centres.
    inside = edt(drawn) - edt(~drawn)
    inside -= 0.5 * np.sign(inside)
    return np.asarray(inside * pixel_um > noise)
