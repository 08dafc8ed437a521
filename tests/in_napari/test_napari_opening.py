"""Files and samples as layers: names, units, contrast, laziness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

import mitolume
from mitolume.io.formats import READERS
from mitolume.io.write import write_image, write_mask

SIZE = {"Z": 0.5, "Y": 0.1, "X": 0.1}


def stack(path: Path) -> Path:
    """Write two channels of three planes."""
    pixels = np.random.default_rng(0).integers(100, 200, (2, 3, 32, 40), dtype=np.uint16)
    coords = {"C": ["Transmitted", "TMRM"]}
    image = xr.DataArray(pixels, dims=tuple("CZYX"), coords=coords, attrs={"pixel_size_um": SIZE})
    write_image(path, image)
    return path


def manifest() -> dict[str, Any]:
    path = Path(mitolume.__file__).parent / "napari" / "napari.yaml"
    return yaml.safe_load(path.read_text())["contributions"]


def test_the_manifest_names_every_format() -> None:
    (reader,) = manifest()["readers"]
    endings = {ending.removeprefix(".ome") for ending in READERS}
    assert set(reader["filename_patterns"]) == {f"*{ending}" for ending in endings}


def test_npe2_finds_no_fault() -> None:
    npe2 = pytest.importorskip("npe2")
    npe2.PluginManifest.from_distribution("mitolume").validate_imports()


def test_a_file_opens_with_names_units_and_contrast(viewer: Any, tmp_path: Path) -> None:
    viewer.open(stack(tmp_path / "a.ome.tif"), plugin="mitolume")
    light, dye = viewer.layers
    assert [light.name, dye.name] == ["a [Transmitted]", "a [TMRM]"]
    assert (light.colormap.name, dye.colormap.name, dye.blending) == ("gray", "magenta", "additive")
    assert light.axis_labels == ("Z", "Y", "X")
    assert [str(unit) for unit in light.units] == ["micrometer"] * 3
    assert light.scale.tolist() == [0.5, 0.1, 0.1]
    low, high = light.contrast_limits
    assert 99 < low < 105 < 195 < high < 200
    assert light.data.chunks[0] == (1, 1, 1), "a plane is read when it is shown"


def test_a_mask_opens_as_labels(viewer: Any, tmp_path: Path) -> None:
    mask = np.zeros((32, 40), np.uint8)
    mask[3:6], mask[9:] = 1, 255
    write_mask(tmp_path / "a_mask.ome.tif", xr.DataArray(mask, dims=tuple("YX")))
    viewer.open(tmp_path / "a_mask.ome.tif", plugin="mitolume")
    assert viewer.layers[0]._type_string == "labels"
    assert viewer.layers[0].get_color(255)[3] == 1


def test_a_sample_is_simulated(viewer: Any) -> None:
    viewer.open_sample("mitolume", "control")
    names = [layer.name.split("[")[-1] for layer in viewer.layers]
    assert names == ["Transmitted]", "Mitochondria]", "CellMask]", "exact mask"]
