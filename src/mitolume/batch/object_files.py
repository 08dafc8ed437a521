"""What `measure` writes beside its tables: crops, outlines, label images, pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from roifile import ImagejRoi

from mitolume.analysis.crops import MOST, Crop, contact_sheet
from mitolume.analysis.object_pictures import outlines_by_value, superplot, write_figure
from mitolume.analysis.objects import Frame, crops_of_frame
from mitolume.analysis.pictures import write_png
from mitolume.io.rois import labels_to_rois, write_rois
from mitolume.io.write import below_each_other, is_ours, write_image, write_labels, write_table

_EDGES = [f"{axis}{end}_px" for axis in "zyx" for end in (0, 1)]
_LINKS = ["crop", "image", "t", "plane", "label", *_EDGES]
_PLOTTED = ("area", "volume", "length", "width", "aspect_ratio", "form_factor", "contrast")


@dataclass(frozen=True)
class Outputs:
    """What to write beside the tables, each into its folder; None writes none.

    ``crops``: an OME-TIFF of each object, contact sheets, and ``crops.csv``, with ``margin_um``
    around each crop (in pixels where the pixel size is unknown). ``pictures``: outlines in colour
    and superplots.
    """

    crops: Path | None = None
    margin_um: float = 0.5
    rois: Path | None = None
    labels: Path | None = None
    pictures: Path | None = None

    def files_of(self, name: str) -> list[Path]:
        """Return the files that a field of this name has to itself, but for crops and pictures."""
        rois = [] if self.rois is None else [self.rois / f"{name}_rois.zip"]
        return rois + ([] if self.labels is None else [self.labels / f"{name}_labels.ome.tif"])

    def folders(self) -> tuple[Path | None, ...]:
        """Return the folders that are written to."""
        return self.crops, self.rois, self.labels, self.pictures

    def shared_files(self) -> list[Path]:
        """Return the files that all fields share."""
        return [] if self.crops is None else [self.crops / "crops.csv"]


@dataclass
class FieldFiles:
    """Writes the files of one field, frame by frame; their names begin with the field's."""

    name: str
    outputs: Outputs
    size: dict[str, float]
    frames: list[Frame] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    shown: list[Crop] = field(default_factory=list)

    def add(
        self, frame: Frame, grey: xr.DataArray | None, table: pd.DataFrame, facts: dict[str, Any]
    ) -> None:
        """Write what belongs to one frame, whose image has dims ``C Z Y X``."""
        if self.outputs.rois is not None or self.outputs.labels is not None:
            self.frames.append(frame)
        place = "".join(f"_{axis[0]}{facts[axis]:03}" for axis in ("t", "plane") if axis in facts)
        if self.outputs.crops is not None:
            self._write_crops(frame, grey, place, facts)
        if self.outputs.pictures is not None:
            _write_picture(
                self.outputs.pictures / f"{self.name}{place}_objects.png",
                frame, grey, table, self.size.get("X"),
            )  # fmt: skip

    def close(self, folder: Path) -> None:
        """Write what needs all frames, and leave the list of crops in a folder."""
        if self.outputs.rois is not None:
            write_rois(self.outputs.rois / f"{self.name}_rois.zip", self._rois())
        if self.outputs.labels is not None:
            stack = np.stack([np.asarray(frame.labels[:]) for frame in self.frames])
            times = len({frame.t for frame in self.frames})
            stack = stack.reshape(times, -1, *stack.shape[-2:])
            image = xr.DataArray(stack, dims=("T", "Z", "Y", "X"))
            image = image.squeeze([axis for axis in "TZ" if image.sizes[axis] == 1])
            if sizes := {axis: um for axis, um in self.size.items() if axis in image.dims}:
                image.attrs["pixel_size_um"] = sizes
            write_labels(self.outputs.labels / f"{self.name}_labels.ome.tif", image)
        if self.shown and self.outputs.crops is not None:
            for channel, name in enumerate(self.shown[0].pixels["C"].values):
                sheet = contact_sheet(self.shown, channel)
                safe = re.sub(r"[^\w.-]+", "_", str(name))
                write_png(self.outputs.crops / f"{self.name}_sheet_{safe}.png", sheet)
        table = pd.DataFrame(self.rows)
        known = [name for name in _LINKS if name in table or name not in ("t", "plane")]
        table.reindex(columns=known).to_parquet(folder / "crops.parquet")

    def _rois(self) -> Iterator[ImagejRoi]:
        """Outline the objects, each on its plane and time point."""
        times = dict.fromkeys(frame.t for frame in self.frames)
        for t in times:
            own = [np.asarray(frame.labels[:]) for frame in self.frames if frame.t == t]
            planes = np.concatenate(own)
            for roi in labels_to_rois(planes if len(planes) > 1 else planes[0]):
                if len(times) > 1:
                    roi.name = f"t{t + 1:04}-{roi.name}"
                    roi.position, roi.z_position, roi.t_position = 0, roi.position, t + 1
                yield roi

    def _write_crops(
        self, frame: Frame, grey: xr.DataArray | None, place: str, facts: dict[str, Any]
    ) -> None:
        where = self.outputs.crops
        assert where is not None
        assert grey is not None
        for crop in crops_of_frame(frame, grey, self.size, self.outputs.margin_um):
            name = f"{self.name}{place}_{crop.label:05}.ome.tif"
            write_image(where / name, crop.pixels.assign_attrs(pixel_size_um=self.size))
            ends = [end for part in crop.box for end in (part.start, part.stop)]
            self.rows.append(
                {"crop": name, "image": self.name, "label": crop.label}
                | {axis: facts[axis] for axis in ("t", "plane") if axis in facts}
                | dict(zip(_EDGES, ends, strict=True))
            )
            if len(self.shown) < MOST:
                self.shown.append(crop)


def finish_crops(crops: Path, folders: Sequence[Path], fields: Sequence[str]) -> None:
    """Write ``crops.csv``, which links crops, objects, images and boxes.

    The folders are those that `FieldFiles.close` wrote to, one for each field. Crops of an earlier
    ``crops.csv`` that are no longer listed are removed, and those of the fields that a measurement
    left that was killed before it listed them.
    """
    table = below_each_other([pd.read_parquet(folder / "crops.parquet") for folder in folders])
    table = table[[name for name in _LINKS if name in table]]
    listing = crops / "crops.csv"
    crop_of = re.compile(
        rf"({'|'.join(map(re.escape, fields))})(_[tp]\d{{3,}})*_\d{{5,}}\.ome\.tif"
    )
    earlier = {path.name for path in crops.glob("*.ome.tif") if crop_of.fullmatch(path.name)}
    if listing.exists():
        earlier |= set(pd.read_csv(listing)["crop"].astype(str))
    for name in earlier - set(table["crop"]):
        if is_ours(old := crops / Path(name).name):
            old.unlink()
    write_table(listing, table)


def write_superplots(folder: Path, objects: pd.DataFrame) -> None:
    """Plot the main measurements per condition, as PNG and SVG, where conditions are known."""
    if "condition" not in objects or "specimen" not in objects:
        return
    for column in map(str, objects):
        known = objects[column].notna().any() if column.startswith(_PLOTTED) else False
        if known:
            for ending in (".png", ".svg"):
                write_figure(folder / f"superplot_{column}{ending}", superplot(objects, column))


def _write_picture(
    path: Path, frame: Frame, grey: xr.DataArray | None, table: pd.DataFrame, pixel_um: float | None
) -> None:
    """Draw a frame's outlines coloured by length; of a volume, the plane with most foreground."""
    step = max(1, max(frame.labels.shape[1:]) // 4096)
    labels = np.asarray(frame.labels[:, ::step, ::step])
    z = int((labels > 0).sum(axis=(1, 2)).argmax())
    image = np.zeros(labels.shape[1:], np.uint8)
    if grey is not None:
        image = np.asarray(grey[0, z if len(labels) > 1 else grey.sizes["Z"] // 2, ::step, ::step])
    length = next(name for name in map(str, table) if name.startswith("length_"))
    width_um = pixel_um and pixel_um * frame.labels.shape[2]
    write_figure(path, outlines_by_value(image, labels[z], table, length, width_um))
