"""QuPath's GeoJSON to outlines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mitolume.errors import MitolumeError, Note, in_words, some_names
from mitolume.io.formats import read_json, require_file
from mitolume.io.outlines import Outline, Ring
from mitolume.io.rois import is_unsure

_UNCLASSIFIED = "without a class"
_NUMBER = re.compile(r"0*[1-9][0-9]{0,8}")  # an object's, as a name: of earlier versions' files


def read_geojson(path: str | Path) -> tuple[list[Outline], list[str]]:
    """Read outlines that QuPath exported (File > Export objects as GeoJSON).

    The notices say what was left out. The file holds a FeatureCollection, a list of features, one
    feature, or a bare geometry, in pixels of the full image. Objects whose class or name is
    ``Ignore*``, ``ignore``, ``unsure`` or ``255`` are unsure. Other classes that end in ``*``
    (QuPath's ``Region*``) are left out. If any class begins with ``mito``, only such classes are
    used.
    """
    path = Path(path)
    require_file(path)
    skipped = Counter[str]()
    try:
        content = read_json(path)
        if isinstance(content, dict) and "type" not in content:
            raise MitolumeError(
                f"{path} is JSON, but not GeoJSON: it has {some_names(content)}, as COCO, labelme "
                "and others write it; make masks of its outlines, 0 being background, one an image"
            )
        drawn = list(_drawn(content, skipped))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MitolumeError(
            f"{path} is not readable GeoJSON ({in_words(error)}); export it again from QuPath "
            "(File > Export objects as GeoJSON, FeatureCollection)"
        ) from error
    skips = f"{', '.join(_counted(skipped))} without an area left out"
    notices: list[str] = [Note(skips)] if skipped else []
    outlines = _of_class(drawn, notices)
    if isinstance(content, dict) and content.get("crs"):
        notices.append(
            "it names a coordinate system (crs); its numbers are read as pixels all the same"
        )
    # QuPath writes no plane for the first one; a file without any may be of a single plane.
    if any(outline.z is not None for outline in outlines):
        outlines = [replace(o, z=o.z or 0, t=o.t or 0) for o in outlines]
    return outlines, notices


def _drawn(content: Any, skipped: Counter[str]) -> Iterator[tuple[str, Outline]]:
    """Walk through features and those nested in them; yield the class and outline of each."""
    if isinstance(content, list):
        for part in content:
            yield from _drawn(part, skipped)
        return
    kind = content["type"]
    if kind == "FeatureCollection":
        yield from _drawn(content["features"], skipped)
        return
    feature = content if kind == "Feature" else {"geometry": content}
    geometry, properties = feature.get("geometry"), feature.get("properties") or {}
    if geometry and (rings := _rings(geometry, skipped)):
        name, class_name = str(properties.get("name") or ""), _class_name(properties)
        plane = geometry.get("plane") or properties.get("plane")
        yield (
            class_name or _UNCLASSIFIED,
            Outline(
                name or class_name or "object",
                tuple(rings),
                int(plane.get("z", 0)) if plane else None,
                int(plane.get("t", 0)) if plane else None,
                is_unsure(class_name) or is_unsure(name),
                int(name) if _NUMBER.fullmatch(name) else None,
            ),
        )
    elif not geometry:
        skipped["object"] += 1
    yield from _drawn(properties.get("childObjects") or [], skipped)


def _rings(geometry: dict[str, Any], skipped: Counter[str]) -> list[Ring]:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        return [ring for part in geometry["geometries"] for ring in _rings(part, skipped)]
    if kind == "Polygon":
        polygons = [geometry["coordinates"]]
    elif kind == "MultiPolygon":
        polygons = geometry["coordinates"]
    else:  # points, lines, and what other programs add
        skipped[str(kind)] += 1
        return []
    rings = [
        np.array([corner[:2] for corner in ring], np.float64)
        for polygon in polygons
        for ring in polygon
    ]
    if not all(ring.shape[1:] == (2,) and np.isfinite(ring).all() for ring in rings):
        raise ValueError("a corner is not two numbers")
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        skipped[kind] += 1
    return rings


def _class_name(properties: dict[str, Any]) -> str:
    found = properties.get("classification") or {}
    if isinstance(found, str):
        return found
    return str(found.get("name") or ": ".join(found.get("names") or ()))


def _of_class(drawn: list[tuple[str, Outline]], notices: list[str]) -> list[Outline]:
    """Keep what marks mitochondria or is unsure, and say what that is."""
    classes = Counter(class_name for class_name, outline in drawn if not outline.unsure)
    taken = {name for name in classes if not name.endswith("*")}
    mitochondria = {name for name in taken if name.lower().startswith("mito")}
    if mitochondria:
        taken = mitochondria
    elif len(taken) > 1:
        notices.append(f"all of these are taken as mitochondria: {', '.join(sorted(taken))}")
    left_out = Counter({name: count for name, count in classes.items() if name not in taken})
    if left_out:
        notices.append(
            f"taken as mitochondria: {', '.join(sorted(taken)) or 'nothing'}; left out: "
            + ", ".join(_counted(left_out))
        )
    return [outline for class_name, outline in drawn if outline.unsure or class_name in taken]


def _counted(names: Counter[str]) -> list[str]:
    return [f"{count} {name}" for name, count in sorted(names.items())]
