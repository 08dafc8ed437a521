"""ImageJ ROIs: their files, their shapes as outlines, and label images as ROIs.

Shapes are those that ImageJ 1.54 fills (RoiDecoder, PolygonFiller and OvalRoi).
"""

from __future__ import annotations

import logging
import math
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from scipy import ndimage

from mitolume.errors import DAMAGED_ZIP, MitolumeError, Note, in_words
from mitolume.io.formats import decoding, require_file
from mitolume.io.masks import compact
from mitolume.io.outlines import Inside, Labels, Outline, Ring, trace
from mitolume.io.write import atomic

_MOST_CORNERS, _MOST_COORDINATE = 65_535, 60_000  # of an integer polygon in a .roi file
# With a number behind, as Fiji makes names unique; "2550" and "0255" are numbers of objects.
_UNSURE = re.compile(r"(unsure|ignore\*?)[-_ ]?\d*|255([-_ ]\d+)?", re.IGNORECASE)
_PLANE_IN_NAME = re.compile(r"(\d{4})-\d{4}-\d{4}|(\d{5})-\d{5}-\d{5}|(\d{6})-\d{6}-\d{6}")
_MOST_BYTES = 2**29
_LARGEST_OVAL = 2**25  # pixels; it is filled in memory
_ELLIPSE_CORNERS = 72  # ImageJ's rotated ellipse
_NUMBER = "object"  # the property that holds an object's number


def is_unsure(name: str) -> bool:
    """Tell whether an object of this name marks what nobody can tell."""
    return _UNSURE.fullmatch(name.strip()) is not None


def read_rois(path: str | Path) -> list[ImagejRoi]:
    """Read the ROIs of a ROI set (``.zip``), a ``.roi`` file, or a TIFF with an overlay.

    Parameters
    ----------
    path
        The file. Of a TIFF, its overlay; its selection where it has no overlay.

    Returns
    -------
    list of roifile.ImagejRoi
        At least one, in the order of the file. A ROI without a name has that of its file.

    Raises
    ------
    MitolumeError
        The file can't be read, or holds no ROI.
    """
    path = Path(path)
    require_file(path)
    try:
        stored = _stored(path)
    except (*DAMAGED_ZIP, OSError, ValueError, struct.error) as error:
        raise MitolumeError(
            f"{path} can't be read ({in_words(error)}); save the ROI set again in Fiji "
            "(ROI Manager: More >> Save)"
        ) from error
    if not stored:
        raise MitolumeError(
            f"{path} holds no ImageJ ROI; save it from Fiji's ROI Manager, or unpack it if it is "
            "GeoJSON that QuPath compressed"
            if path.suffix.lower() == ".zip"
            else f"{path} is the image itself and holds no overlay; outline the mitochondria in "
            "Fiji (Image > Overlay > Add Selection) and save it as TIFF"
        )
    return [_decoded(entry, data, path) for entry, data in stored]


def write_rois(path: str | Path, rois: Iterable[ImagejRoi]) -> None:
    """Write a ROI set, whole or not at all.

    Parameters
    ----------
    path
        Must end in ``.zip``.
    rois
        Each becomes a file with its name; names that repeat get a number, as in Fiji.
    """
    taken: Counter[str] = Counter()
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for roi in rois:
            # A slash in a name would make a folder, which Fiji does not look into.
            entry = re.sub(r"[/\\\0]", "_", _name(roi))
            while taken[entry]:
                repeat, taken[entry] = taken[entry], taken[entry] + 1
                entry = f"{entry}-{repeat}"
            taken[entry] += 1
            # A fixed date: the same ROIs give the same file.
            info = zipfile.ZipInfo(f"{entry}.roi")
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, roi.tobytes())


def outlines_of_rois(
    rois: Sequence[ImagejRoi], *, depth: int = 1
) -> tuple[list[Outline], list[str]]:
    """Turn ROIs into outlines, in the same order, and say what was left out, having no area.

    ``depth`` is the number of z-planes of the image. Only a stack makes names like
    ``0005-0123-0456`` mean plane 5, where no ROI says its position otherwise: so does ImageJ.
    """
    outlines, left_out = [], Counter[str]()
    by_name = depth > 1 and not any(_position(roi) != (None, None) for roi in rois)
    for roi in rois:
        name = _name(roi)
        rings = _rings(roi, name)
        if not rings:
            left_out[_kind(roi)] += 1
            continue
        if not all(np.isfinite(ring).all() for ring in rings):
            raise _unfit(name, "has corners that are not finite numbers")
        z, t = (_plane_in(name), None) if by_name else _position(roi)
        number = roi.properties.get(_NUMBER)
        is_ours = isinstance(number, int) and 0 < number < 2**31
        unsure = is_unsure(name)
        outlines.append(Outline(name, tuple(rings), z, t, unsure, number if is_ours else None))
    listing = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
    said = Note(f"ROIs without an area are left out: {listing}")
    return outlines, [said] if left_out else []


def labels_to_rois(labels: Labels, unsure: Inside | None = None) -> list[ImagejRoi]:
    """Outline the objects of a label image as ROIs that fill exactly the same pixels.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X), whole numbers, 0 is background.
    unsure
        The same shape, bool: what becomes a ROI named ``unsure`` on each plane.

    Returns
    -------
    list of roifile.ImagejRoi
        One for each object and plane. It is named by its number (``0012``, in a stack by plane
        and number: ``0003-0012``) and also holds the number as its property ``object``. One of a
        single ring is a traced ROI; one of several parts or with holes is a composite one.

    Examples
    --------
    >>> rois = labels_to_rois(np.array([[0, 7, 7], [0, 7, 0]]))
    >>> [(roi.name, roi.roitype.name, roi.left, roi.top) for roi in rois]
    [('0007', 'TRACED', 1, 0)]
    """
    planes = np.asarray(labels)
    if planes.dtype.kind not in "bui" or planes.ndim not in (2, 3) or planes.min(initial=0) < 0:
        raise MitolumeError(
            f"a label image holds whole numbers from 0 as (Y, X) or (Z, Y, X), not {planes.dtype} "
            f"of shape {planes.shape}"
        )
    stack = planes.ndim == 3
    planes = planes if stack else planes[np.newaxis]
    doubt = np.zeros((0, 0, 0), bool) if unsure is None else unsure.reshape(planes.shape)
    rois = []
    for z, number, rings in _traced(planes):
        name = f"{z + 1:04}-{number:04}" if stack else f"{number:04}"
        rois.append(_roi(name, z + 1 if stack else 0, rings))
        rois[-1].properties = {_NUMBER: number}
    for z, plane in enumerate(doubt):
        if plane.any():
            name = f"unsure-{z + 1}" if stack else "unsure"
            rois.append(_roi(name, z + 1 if stack else 0, trace(plane)))
    return rois


def _traced(planes: Labels) -> Iterator[tuple[int, int, list[Ring]]]:
    """Yield the plane, number and rings of each object of label images (Z, Y, X)."""
    for z, plane in enumerate(planes if planes.size else ()):
        small, numbers = compact(plane)
        for index, box in enumerate(ndimage.find_objects(small.astype(np.int32)), start=1):
            if box is not None:
                corner = np.array([box[1].start, box[0].start])
                rings = [ring + corner for ring in trace(small[box] == index)]
                yield z, int(numbers[index]), rings


def _roi(name: str, position: int, rings: list[Ring]) -> ImagejRoi:
    corners = np.concatenate(rings).astype(np.int32)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    roi = ImagejRoi(name=name, position=position, left=left, top=top, right=right, bottom=bottom)
    roi.options = ROI_OPTIONS.SCALE_STROKE_WIDTH
    if len(rings) == 1 and len(corners) <= _MOST_CORNERS and corners.max() <= _MOST_COORDINATE:
        roi.roitype = ROI_TYPE.TRACED
        roi.integer_coordinates = corners - np.array([left, top], np.int32)
        roi.n_coordinates = len(corners)
        return roi
    path: list[float] = []
    for ring in rings:
        steps = np.column_stack([np.ones(len(ring)), ring])  # 1: a line to
        steps[0, 0] = 0  # 0: move to
        path += [*steps.ravel().tolist(), 4]  # 4: close
    roi.roitype = ROI_TYPE.RECT  # what ImageJ calls a composite ROI in files
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    return roi


def _stored(path: Path) -> list[tuple[str, bytes]]:
    """Return the ROIs of a file as bytes, each with its name."""
    ending = path.suffix.lower()
    if ending == ".roi" and path.stat().st_size <= _MOST_BYTES:
        return [(path.name, path.read_bytes())]
    if ending == ".zip":
        with zipfile.ZipFile(path) as file:
            listed = [one for one in file.infolist() if one.filename.lower().endswith(".roi")]
            own = [one for one in listed if not Path(one.filename).name.startswith("._")]  # macOS's
            if sum(one.file_size for one in own) > _MOST_BYTES:
                raise MitolumeError(
                    f"{path} unpacks to more than {_MOST_BYTES / 1e9:.1g} GB, which no ROIs take"
                )
            # By their places: two may have one name, and all have a name in the ROI itself.
            return [(one.filename, file.read(one)) for one in own]
    if ending not in (".tif", ".tiff"):
        return []
    import tifffile

    with decoding(path), tifffile.TiffFile(path, is_mmstack=False) as tif:
        found = (tif.imagej_metadata if tif.pages else None) or {}
    data = found.get("Overlays") or found.get("ROI") or []
    return [("", roi) for roi in ([data] if isinstance(data, bytes) else data)]


def _decoded(entry: str, data: bytes, path: Path) -> ImagejRoi:
    logger = logging.getLogger("roifile")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what it warns of makes a ROI without an area: a notice
    name = Path(entry).name.removesuffix(".roi")
    try:
        roi = ImagejRoi.frombytes(data)
    except (ValueError, TypeError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise MitolumeError(
            f"{path}: ROI {name or '(unnamed)'} can't be read ({in_words(error)}); it may be "
            "damaged: save it again in Fiji"
        ) from error
    finally:
        logger.setLevel(level)
    roi.name = roi.name or name
    return roi


def _name(roi: ImagejRoi) -> str:
    """Return a ROI's name, or the one that Fiji gives: the y and x of its middle."""
    return roi.name or f"{(roi.top + roi.bottom) // 2:04}-{(roi.left + roi.right) // 2:04}"


def _kind(roi: ImagejRoi) -> str:
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE, ROI_SUBTYPE.ARROW):
        return str(roi.subtype.name).lower()
    return str(roi.roitype.name).lower()


def _position(roi: ImagejRoi) -> tuple[int | None, int | None]:
    """Return plane and time point from 0, None for all; the channel says nothing of either."""
    if roi.c_position > 0 or roi.z_position > 0 or roi.t_position > 0:
        z, t = roi.z_position, roi.t_position
    else:
        z, t = roi.position, 0
    return z - 1 if z > 0 else None, t - 1 if t > 0 else None


def _plane_in(name: str) -> int | None:
    found = _PLANE_IN_NAME.match(name)
    plane = int(next(filter(None, found.groups()))) if found else 0
    return plane - 1 if plane else None


def _unfit(name: str, why: str) -> MitolumeError:
    return MitolumeError(
        f"ROI {name!r} {why}, which can't be filled; in Fiji make a polygon of it (Edit > "
        "Selection > Interpolate) or draw it again"
    )


def _rings(roi: ImagejRoi, name: str) -> list[Ring]:
    """Return the rings of a ROI; none of what has no area: lines, points, angles, text, images."""
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE):
        return []
    if roi.multi_coordinates is not None:
        try:
            paths = roi.path2coords(roi.multi_coordinates)
        except (NotImplementedError, RuntimeError, ValueError, IndexError, OverflowError):
            raise _unfit(name, "holds curves or a damaged path") from None
        return [path.astype(np.float64) for path in paths if len(path) > 2]
    match roi.roitype, roi.subtype:
        case ROI_TYPE.RECT, _:
            if roi.rounded_rect_arc_size > 0:
                raise _unfit(name, "is a rectangle with rounded corners")
            left, top, width, height = _box(roi, name)
            right, bottom = left + width, top + height
            return [np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)]
        case ROI_TYPE.OVAL, _:
            left, top, width, height = _box(roi, name)
            if width * height > _LARGEST_OVAL:
                raise _unfit(name, f"is an oval of {width} x {height} pixels")
            return [_oval(left, top, width, height)]
        case ROI_TYPE.FREEHAND, ROI_SUBTYPE.ELLIPSE:
            return [_rotated_ellipse(roi)]
        case ROI_TYPE.FREEHAND, ROI_SUBTYPE.ROTATED_RECT:
            raise _unfit(name, "is a rotated rectangle")
        case ((ROI_TYPE.POLYGON | ROI_TYPE.FREEHAND | ROI_TYPE.TRACED), _):
            if roi.options & ROI_OPTIONS.SPLINE_FIT:
                raise _unfit(name, "is a spline")
            with np.errstate(invalid="ignore"):  # a signalling NaN, which is refused like others
                corners = np.asarray(roi.coordinates(), np.float64).reshape(-1, 2)
            return [corners] if len(corners) > 2 else []
    return []


def _box(roi: ImagejRoi, name: str) -> tuple[int, int, int, int]:
    """Return left, top, width and height in whole pixels: ImageJ has no finer boxes in masks."""
    left, top = roi.left, roi.top
    width, height = roi.right - left, roi.bottom - top
    if roi.subpixelrect:
        left, top, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
        if not all(abs(one) < 2**31 for one in (left, top, width, height)):
            raise _unfit(name, "has a box that is not finite, or larger than any image")
    return int(left), int(top), max(math.ceil(width), 1), max(math.ceil(height), 1)


def _oval(left: int, top: int, width: int, height: int) -> Ring:
    """Trace the pixels whose centre lies within or on the ellipse, as OvalRoi.getMask has them."""
    a, b = width / 2, height / 2
    y, x = np.arange(height)[:, np.newaxis] - (b - 0.5), np.arange(width) - (a - 0.5)
    outer, *_ = trace(x * x / (a * a) + y * y / (b * b) <= 1)
    return np.asarray(outer + np.array([left, top]))


def _rotated_ellipse(roi: ImagejRoi) -> Ring:
    major = np.array([roi.x2 - roi.x1, roi.y2 - roi.y1]) / 2
    # roifile reads the aspect ratio as three other numbers.
    parts = roi.arrow_style_or_aspect_ratio, roi.arrow_head_size, roi.rounded_rect_arc_size
    (ratio,) = struct.unpack(">f", struct.pack(">BBh", *parts))
    minor = np.array([-major[1], major[0]]) * min(max(ratio, 0), 1)
    angle = np.arange(_ELLIPSE_CORNERS)[:, np.newaxis] * (2 * np.pi / _ELLIPSE_CORNERS)
    centre = np.array([roi.x1 + roi.x2, roi.y1 + roi.y2]) / 2
    corners = centre + np.cos(angle) * major + np.sin(angle) * minor
    return np.asarray(corners, np.float32).astype(float)  # ImageJ's are in single precision
