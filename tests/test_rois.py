"""ImageJ ROIs: files read and written back, filled as ImageJ fills them, written anew."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
import xarray as xr
from helpers.fields import blobs
from helpers.roi_files import (
    ELSEWHERE,
    FREEHAND,
    OVAL,
    POLYGON,
    RECT,
    SPLINE,
    SUBPIXEL,
    one,
    roi_file,
    roi_set,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from mitolume.errors import MitolumeError
from mitolume.io.outlines import draw, fill, trace
from mitolume.io.read import read, read_plane
from mitolume.io.rois import is_unsure, labels_to_rois, outlines_of_rois, read_rois, write_rois
from mitolume.io.write import write_image, write_labels, write_mask

# --- ROI files -----------------------------------------------------------------------------


def test_a_roi_set_written_elsewhere_is_written_back(tmp_path: Path) -> None:
    rois = read_rois(roi_set(tmp_path / "fiji.zip"))
    write_rois(tmp_path / "again.zip", rois)
    with zipfile.ZipFile(tmp_path / "again.zip") as file:
        assert file.namelist() == list(ELSEWHERE)
    assert read_rois(tmp_path / "again.zip") == rois
    assert [roi.name for roi in rois] == [n.removesuffix(".roi") for n in ELSEWHERE]
    assert rois[1].group == 3
    assert rois[2].properties == {"who": "Ada"}


def test_roifile_understands_the_files_made_here() -> None:
    roi = roifile.ImagejRoi.frombytes(ELSEWHERE["freehand µ.roi"])
    assert (roi.name, roi.left, roi.top, roi.right, roi.bottom) == ("freehand µ", 1, 1, 6, 7)
    assert roi.coordinates().tolist() == [[1.25, 1.5], [6.5, 2.25], [4.75, 7.5]]
    assert roifile.ImagejRoi.frombytes(ELSEWHERE["points.roi"]).counter_positions.tolist() == [0, 5]


@pytest.mark.parametrize(
    ("name", "unsure"),
    [
        *((name, True) for name in ("unsure", "Unsure-2", "IGNORE", "Ignore*", "255", "255-1")),
        *((name, False) for name in ("0255", "2550", "0255-0123", "surely", "ignored?", "")),
    ],
)
def test_names_that_mean_unsure(name: str, unsure: bool) -> None:
    assert is_unsure(name) is unsure


def test_names_in_a_roi_set_are_unique_and_no_folders(tmp_path: Path) -> None:
    rois = [roifile.ImagejRoi(name=name, right=2, bottom=2) for name in ("a", "a", "a", "b/c")]
    write_rois(tmp_path / "a.zip", rois)
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        names = file.namelist()
    assert len(set(names)) == 4
    assert names[0] == "a.roi"
    assert names[3] == "b_c.roi"
    first = (tmp_path / "a.zip").read_bytes()
    write_rois(tmp_path / "a.zip", rois)
    assert (tmp_path / "a.zip").read_bytes() == first


def test_what_macos_leaves_in_archives_is_no_roi(tmp_path: Path) -> None:
    roi_set(tmp_path / "a.zip", {"a.roi": ELSEWHERE["oval.roi"], "__MACOSX/._a.roi": b"\0" * 99})
    assert [roi.name for roi in read_rois(tmp_path / "a.zip")] == ["oval"]


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize("damage", [b"\xff", b"\x00", b"\x7f" * 10])
def test_any_damage_to_an_archive_is_a_sentence(
    compression: int, damage: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a.roi", ELSEWHERE["oval.roi"])
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 2):
        path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
        try:
            read_rois(path)  # what isn't noticed may be read
        except MitolumeError:
            refused += 1
    assert refused


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(MitolumeError, match=r"a\.zip can't be read"):
        read_rois(tmp_path / "a.zip")
    for data in (b"Iout", b"JPEG" * 20, ELSEWHERE["0005-0004.roi"][:66]):
        roi_set(tmp_path / "b.zip", {"cell 3.roi": data})
        with pytest.raises(MitolumeError, match=r"b\.zip: ROI cell 3 can't be read"):
            read_rois(tmp_path / "b.zip")
    roi_set(tmp_path / "c.zip", {"results.csv": b"1"})
    with pytest.raises(MitolumeError, match="holds no ImageJ ROI"):
        read_rois(tmp_path / "c.zip")


# --- filling -------------------------------------------------------------------------------

CORNER = st.tuples(st.integers(-3, 12), st.integers(-3, 12))


@given(st.lists(st.lists(CORNER, min_size=3, max_size=9), min_size=1, max_size=3), st.booleans())
def test_filling_takes_the_pixels_whose_centre_is_inside(
    rings: list[list[tuple[int, int]]], halves: bool
) -> None:
    """Against exact arithmetic, ties as in ImageJ: left and lower edges are outside."""
    scale = 2 if halves else 1
    shape = 9, 10
    window, inside = fill([np.array(ring) / scale for ring in rings], shape)
    found = np.zeros(shape, bool)
    found[window] = inside
    expected = np.zeros(shape, bool)
    for y, x in np.ndindex(shape):
        cx, cy = x + Fraction(1, 2), y + Fraction(1, 2)
        for ring in rings:
            points = [(Fraction(a, scale), Fraction(b, scale)) for a, b in ring]
            for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
                if min(y1, y2) <= cy < max(y1, y2):
                    expected[y, x] ^= x1 + (cy - y1) * (x2 - x1) / (y2 - y1) < cx
    np.testing.assert_array_equal(found, expected)


@given(st.integers(1, 40), st.integers(1, 40))
def test_ovals_are_those_of_imagej(width: int, height: int) -> None:
    found = one(roi_file(OVAL, (3, 2, 3 + width, 2 + height)), (45, 45))
    expected = np.zeros((45, 45), bool)
    for y in range(height):  # OvalRoi.getMask
        for x in range(width):
            xx, yy = x - (width / 2 - 0.5), y - (height / 2 - 0.5)
            expected[y + 2, x + 3] = xx * xx / (width / 2) ** 2 + yy * yy / (height / 2) ** 2 <= 1
    np.testing.assert_array_equal(found, expected)


def test_rectangles() -> None:
    plain = one(ELSEWHERE["rectangle.roi"])
    assert plain[1:9, 3:7].all()
    assert plain.sum() == 32
    # ImageJ: the box of a float rectangle is cut to whole pixels, its size rounded up.
    part = one(roi_file(RECT, (1, 2, 4, 5), options=SUBPIXEL, four=(1.5, 2.5, 2.25, 2.0)))
    assert part[2:4, 1:4].all()
    assert part.sum() == 6


def test_composites_have_holes() -> None:
    found = one(ELSEWHERE["brush.roi"])
    assert found.sum() == 64 - 4
    assert not found[4:6, 4:6].any()


def test_rotated_ellipses() -> None:
    flat = one(ELSEWHERE["ellipse.roi"])
    axis = one(roi_file(OVAL, (2, 4, 18, 12)))
    assert (flat & axis).sum() / (flat | axis).sum() > 0.95
    assert not (flat & ~axis).any()  # 72 corners cut it off a little


SQUARE = [(0, 0), (8, 0), (8, 8), (0, 8)]
CORNERS = np.array([(0.5, 0.5), (3.25, 0.5), (8.5, 8.5)], np.float32)
SIGNALLING = (  # a corner is a NaN that warns when it is cast
    roifile.ImagejRoi.frompoints(CORNERS).tobytes().replace(b"\x40\x50\0\0", b"\x7f\xa0\0\0")
)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (roi_file(RECT, (0, 0, 12, 8), parameter=b"\0\0\0\x06"), "rounded corners"),
        (roi_file(FREEHAND, (0, 0, 8, 8), SQUARE, subtype=5), "a rotated rectangle"),
        (roi_file(POLYGON, (0, 0, 8, 8), SQUARE, options=SPLINE), "a spline"),
        (roi_file(RECT, (0, 0, 8, 8), path=[0, 1, 1, 2, 5, 0, 8, 1, 4]), "curves"),
        (roi_file(RECT, (0, 0, 8, 8), path=[0, 1, 1, 9, 2]), "a damaged path"),
        (SIGNALLING, "corners that are not finite numbers"),
        (roi_file(OVAL, (0, 0, 8, 8), options=SUBPIXEL, four=(1e30, 0, 3, 3)), "larger than any"),
    ],
)
def test_rare_shapes_are_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(MitolumeError, match=f"{what}.* make a polygon of it"):
        one(data)


def test_lines_points_and_text_are_left_out_with_a_notice(tmp_path: Path) -> None:
    outlines, notices = outlines_of_rois(read_rois(roi_set(tmp_path / "a.zip")))
    assert len(outlines) == len(ELSEWHERE) - 3
    assert notices == ["ROIs without an area are left out: 1 line, 1 point, 1 text"]


# --- label images to outlines and back -----------------------------------------------------

LABELS = arrays(
    np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)
)


@settings(max_examples=60)
@given(LABELS)
def test_labels_to_roi_set_and_back(labels: np.ndarray) -> None:
    rois = labels_to_rois(labels)
    outlines, notices = outlines_of_rois([roifile.ImagejRoi.frombytes(r.tobytes()) for r in rois])
    numbers = [outline.number or 0 for outline in outlines]
    assert numbers == [n for n in np.unique(labels) if n]
    np.testing.assert_array_equal(draw(zip(numbers, outlines, strict=True), labels.shape), labels)
    assert not notices


@settings(max_examples=60)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_rings_are_those_of_pieces_and_holes(mask: np.ndarray) -> None:
    rings = trace(mask)
    pieces = ndimage.label(mask, np.ones((3, 3)))[1]
    holes = ndimage.label(~np.pad(mask, 1))[1] - 1
    assert len(rings) == pieces + holes
    found = np.zeros(mask.shape, bool)
    if rings:
        window, found[window] = fill(rings, mask.shape)
    np.testing.assert_array_equal(found, mask)


def test_what_integer_corners_cannot_hold_becomes_composite() -> None:
    wide = np.zeros((2, 70_000), np.uint8)
    wide[0, 65_000:] = 1
    comb = np.zeros((2, 70_000), np.uint8)
    comb[0] = 1
    comb[1, ::2] = 1
    for labels in (wide, comb):
        (roi,) = labels_to_rois(labels)
        again = roifile.ImagejRoi.frombytes(roi.tobytes())
        assert again.composite
        (outline,), _ = outlines_of_rois([again])
        np.testing.assert_array_equal(draw([(1, outline)], labels.shape), labels)


def test_large_numbers_and_wrong_arrays() -> None:
    labels = np.array([[0, 4_000_000_000], [7, 7]], np.uint32)
    assert [roi.name for roi in labels_to_rois(labels)] == ["0007", "4000000000"]
    for wrong in (np.zeros((2, 2)), np.full((2, 2), -1), np.zeros(4, int)):
        with pytest.raises(MitolumeError, match="whole numbers from 0"):
            labels_to_rois(wrong)
    assert labels_to_rois(np.zeros((0, 5), int)) == []


def test_label_images_are_as_wide_as_needed(tmp_path: Path) -> None:
    for most, dtype in ((65_535, np.uint16), (65_536, np.uint32)):
        path = tmp_path / f"{most}.ome.tif"
        values = np.array([[0, most], [1, 0]])
        write_labels(
            path, xr.DataArray(values, dims=("Y", "X"), attrs={"pixel_size_um": {"X": 0.1}})
        )
        again = read(path)
        assert again.dtype == dtype
        assert read_plane(again).tolist() == values.tolist()


@pytest.mark.parametrize("write", [write_image, write_mask, write_labels])
def test_the_pixel_size_is_where_imagej_looks(
    write: Callable[[Path, xr.DataArray], None], tmp_path: Path
) -> None:
    image = xr.DataArray(np.eye(40, 50, dtype=np.uint8), dims=("Y", "X"))
    write(tmp_path / "unknown.ome.tif", image)
    write(tmp_path / "a.ome.tif", image.assign_attrs(pixel_size_um={"Y": 0.13, "X": 0.065}))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        tags = file.pages.first.tags
        x, y = (1e4 * d / n for n, d in (tags[f"{axis}Resolution"].value for axis in "XY"))
        assert tags["ResolutionUnit"].value == 3  # centimetre
    assert (y, x) == pytest.approx((0.13, 0.065))
    with tifffile.TiffFile(tmp_path / "unknown.ome.tif") as file:
        assert file.pages.first.tags["ResolutionUnit"].value == 1  # none
    assert read(tmp_path / "a.ome.tif").attrs["pixel_size_um"] == {"Y": 0.13, "X": 0.065}
    assert "pixel_size_um" not in read(tmp_path / "unknown.ome.tif").attrs


def test_channels_have_colours_in_fiji(tmp_path: Path) -> None:
    names = {"C": np.array(["T PMT", "TMRM", "CellMask"], object)}
    image = xr.DataArray(np.zeros((3, 4, 5), np.uint8), dims=tuple("CYX"), coords=names)
    write_image(tmp_path / "a.ome.tif", image)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        found = re.findall(r'Name="(\S+|T PMT)" Color="(-?\d+)"', file.ome_metadata)
    colours = {name: int(value) % 2**32 for name, value in found}  # red, green, blue, opacity
    assert colours == {"T PMT": 0xFFFFFFFF, "TMRM": 0x00FF00FF, "CellMask": 0xFF00FFFF}


# --- ImageJ itself -------------------------------------------------------------------------

IMAGEJ = Path(os.environ.get("IJ_JAR", "/usr/share/java/ij.jar"))
LOOK = """
import ij.*; import ij.io.*; import ij.gui.*; import java.io.*; import java.util.zip.*;
public class Look {
  public static void main(String[] names) throws Exception {
    ImagePlus i = null;
    for (String name : names) {
      if (!name.endsWith(".zip")) {
        i = IJ.openImage(name);
        System.out.println(i.getWidth() + " " + i.getHeight() + " " + i.getStackSize() + " "
          + i.getCalibration().pixelWidth + " " + i.getCalibration().getUnit() + " "
          + Integer.toHexString(i.getLuts()[0].getRGB(1)) + " " + i.getStatistics().mean);
        continue;
      }
      ZipInputStream in = new ZipInputStream(new FileInputStream(name));
      for (ZipEntry e; (e = in.getNextEntry()) != null;) {
        Roi roi = new RoiDecoder(in.readAllBytes(), e.getName()).getRoi();
        i.setSlice(roi.getPosition());
        i.setRoi(roi);
        ij.process.ImageStatistics s = i.getStatistics();
        System.out.println(roi.getName() + " " + roi.getPosition() + " " + s.pixelCount + " "
          + (int) s.min + " " + (int) s.max);
      }
    }
  }
}
"""


@pytest.mark.slow
@pytest.mark.skipif(not IMAGEJ.exists(), reason="needs ImageJ: IJ_JAR=/path/to/ij.jar")
def test_imagej_itself_shows_what_was_written(tmp_path: Path) -> None:
    labels = np.stack([blobs(seed, (90, 110))[1].astype(np.int64) for seed in range(3)])
    for z in range(3):
        labels[z] = ndimage.label(labels[z])[0]
    attrs = {"pixel_size_um": {"Z": 0.5, "Y": 0.08, "X": 0.08}}
    array = xr.DataArray(labels, dims=tuple("ZYX"), attrs=attrs)
    write_mask(tmp_path / "mask.ome.tif", (array > 0).astype(np.uint8))
    write_image(tmp_path / "probability.ome.tif", (array / 10).astype(np.float32))
    write_labels(tmp_path / "labels.ome.tif", array)
    write_rois(tmp_path / "rois.zip", labels_to_rois(labels))
    (tmp_path / "Look.java").write_text(LOOK)
    names = ("mask.ome.tif", "probability.ome.tif", "labels.ome.tif", "rois.zip")
    java = ["java", "-Djava.awt.headless=true", "-cp", str(IMAGEJ), "Look.java", *names]
    done = subprocess.run(java, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    for line, mean in zip(lines, (labels[0] > 0, labels[0] / 10, labels[0]), strict=False):
        assert line[:5] == ["110", "90", "3", "0.08", "µm"]
        assert float(line[6]) == pytest.approx(mean.mean(), rel=1e-5)
    assert lines[0][5] == "ffffffff", "1 is white"
    found = {(int(z), int(low)): int(n) for _, z, n, low, high in lines[3:] if low == high}
    assert len(found) == len(lines) - 3, "an outline holds one object and no background"
    assert found == {
        (z + 1, n): int((labels[z] == n).sum())
        for z in range(3)
        for n in range(1, labels[z].max() + 1)
    }
