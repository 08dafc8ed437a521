"""The shape of an ImageJ ROI as rings of corners, such as ImageJ fills. Knows no file."""

from __future__ import annotations

import math
import struct

import numpy as np
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from scipy.interpolate import CubicSpline

from mitolume.errors import MitolumeError
from mitolume.io.outlines import Ring

_PATH_POINTS = {0: 1, 1: 1, 2: 2, 3: 3, 4: 0}  # move, line, quadratic, cubic curve, close
_CURVE_STEPS = np.linspace(0, 1, 33)[1:, np.newaxis]
_ELLIPSE_CORNERS = 72  # ImageJ's rotated ellipse


def roi_rings(roi: ImagejRoi) -> list[Ring]:
    """Return the rings of a ROI.

    Parameters
    ----------
    roi
        Any ImageJ ROI.

    Returns
    -------
    list of numpy.ndarray
        Each (corners, 2): x, y in pixels. Empty for what has no area: lines, points, angles,
        text, pasted images.

    Raises
    ------
    MitolumeError
        A composite ROI holds what no version of ImageJ writes.
    """
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE):
        return []
    if roi.multi_coordinates is not None:
        return _composite(roi)
    match roi.roitype, roi.subtype:
        case ROI_TYPE.RECT, _:
            return [_rectangle(roi)]
        case ROI_TYPE.OVAL, _:
            return [_oval(*_box(roi))]
        case ROI_TYPE.FREEHAND, ROI_SUBTYPE.ELLIPSE:
            return [_rotated_ellipse(roi)]
        case ROI_TYPE.FREEHAND, ROI_SUBTYPE.ROTATED_RECT:
            return [_rotated_rectangle(roi)]
        case ((ROI_TYPE.POLYGON | ROI_TYPE.FREEHAND | ROI_TYPE.TRACED), _):
            corners = np.asarray(roi.coordinates(), np.float64).reshape(-1, 2)
            if len(corners) < 3:
                return []
            return [_spline(corners) if roi.options & ROI_OPTIONS.SPLINE_FIT else corners]
    return []


def _box(roi: ImagejRoi) -> tuple[int, int, int, int]:
    """Return left, top, width and height in whole pixels: ImageJ has no finer boxes in masks."""
    if roi.subpixelrect:
        left, top, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
        if not all(map(math.isfinite, (left, top, width, height))):
            raise MitolumeError(f"ROI {roi.name!r} has a box that is not finite; draw it again")
        return int(left), int(top), max(math.ceil(width), 1), max(math.ceil(height), 1)
    return roi.left, roi.top, max(roi.right - roi.left, 1), max(roi.bottom - roi.top, 1)


def _rectangle(roi: ImagejRoi) -> Ring:
    left, top, width, height = _box(roi)
    # The corners' circles, squeezed where the rectangle is thinner than they are wide.
    rx, ry = (min(roi.rounded_rect_arc_size, size) / 2 for size in (width, height))
    if rx <= 0:
        corners = [(0, 0), (width, 0), (width, height), (0, height)]
        return np.asarray(np.array(corners) + np.array([left, top]), np.float64)
    quarter = np.linspace(0, np.pi / 2, 65)
    centres = [(width - rx, height - ry), (rx, height - ry), (rx, ry), (width - rx, ry)]
    arcs = [
        np.column_stack([np.cos(quarter + turn), np.sin(quarter + turn)]) * (rx, ry) + centre
        for turn, centre in zip(np.arange(4) * np.pi / 2, centres, strict=True)
    ]
    return np.asarray(np.concatenate(arcs) + np.array([left, top]))


def _oval(left: int, top: int, width: int, height: int) -> Ring:
    """Trace the pixels whose centre lies within or on the ellipse, as OvalRoi.getMask has them."""
    a, b = width / 2, height / 2
    y = np.arange(height) + 0.5 - b
    guess = np.floor(a - a * np.sqrt(1 - (y / b) ** 2))
    columns = guess[:, np.newaxis] + np.arange(-1, 3)  # one of them is the first pixel inside
    # The same expression as ImageJ's, so that ties fall the same way.
    inside = (columns - (a - 0.5)) ** 2 / (a * a) + (y * y / (b * b))[:, np.newaxis] <= 1
    first = np.where(inside.any(axis=1), columns[np.arange(height), inside.argmax(axis=1)], a)
    rows = np.repeat(np.arange(height + 1), 2)[1:-1]
    down = np.column_stack([np.repeat(first, 2), rows])
    up = np.column_stack([width - np.repeat(first, 2), rows])[::-1]
    return np.asarray(np.concatenate([down, up]) + np.array([left, top]))


def _parameter(roi: ImagejRoi) -> float:
    """Return the number that roifile reads as three others: aspect ratio, or width."""
    parts = roi.arrow_style_or_aspect_ratio, roi.arrow_head_size, roi.rounded_rect_arc_size
    return float(struct.unpack(">f", struct.pack(">BBh", *parts))[0])


def _rotated_ellipse(roi: ImagejRoi) -> Ring:
    major = np.array([roi.x2 - roi.x1, roi.y2 - roi.y1]) / 2
    minor = np.array([-major[1], major[0]]) * min(max(_parameter(roi), 0), 1)
    angle = np.arange(_ELLIPSE_CORNERS)[:, np.newaxis] * (2 * np.pi / _ELLIPSE_CORNERS)
    centre = np.array([roi.x1 + roi.x2, roi.y1 + roi.y2]) / 2
    return _rounded(centre + np.cos(angle) * major + np.sin(angle) * minor)


def _rotated_rectangle(roi: ImagejRoi) -> Ring:
    begin, end = np.array([roi.x1, roi.y1]), np.array([roi.x2, roi.y2])
    along = end - begin
    length = math.hypot(*along) or 1.0
    across = np.array([along[1], -along[0]]) / length * _parameter(roi) / 2
    return _rounded(np.array([begin + across, end + across, end - across, begin - across]))


def _rounded(corners: Ring) -> Ring:
    """Round corners as ImageJ does, which holds them in single precision."""
    return corners.astype(np.float32).astype(np.float64)


def _spline(corners: Ring) -> Ring:
    """Return the curve that ImageJ's "Fit Spline" puts through the corners."""
    closed = np.concatenate([corners, corners[:1]])
    steps = np.hypot(*np.diff(closed, axis=0).T)
    knots = np.concatenate([[0], np.cumsum(np.maximum(np.sqrt(steps), 0.001))])
    points = max(100, int(steps.sum() / 2))
    curve = CubicSpline(knots, closed, bc_type="periodic")
    return np.asarray(curve(np.linspace(0, knots[-1], points)))


def _composite(roi: ImagejRoi) -> list[Ring]:
    """Return the rings of a composite ROI: a java.awt path, its curves as short lines."""
    assert roi.multi_coordinates is not None
    path = roi.multi_coordinates.astype(np.float64).tolist()
    rings: list[list[tuple[float, float]]] = []
    at = 0
    while at < len(path):
        count = _PATH_POINTS.get(int(path[at]) if math.isfinite(path[at]) else -1)
        numbers = path[at + 1 : at + 1 + 2 * (count or 0)]
        if count is None or len(numbers) < 2 * count or (path[at] and not rings):
            raise MitolumeError(
                f"ROI {roi.name!r} holds a path that ImageJ does not write; draw it again"
            )
        points = list(zip(numbers[0::2], numbers[1::2], strict=True))
        if path[at] == 0:
            rings.append(points)
        elif count:
            rings[-1] += _curve([rings[-1][-1], *points])
        at += 1 + 2 * count
    return [np.array(ring) for ring in rings if len(ring) > 2]


def _curve(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Follow a line or a Bezier curve from the first of two to four points."""
    if len(points) == 2:
        return points[1:]
    degree, s = len(points) - 1, _CURVE_STEPS
    curve = sum(
        math.comb(degree, i) * s**i * (1 - s) ** (degree - i) * np.array(point)
        for i, point in enumerate(points)
    )
    return [(float(x), float(y)) for x, y in np.asarray(curve)]
