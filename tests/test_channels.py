"""Which channel is meant: by name, by number, or the one of transmitted light."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mitolume.errors import MitolumeError
from mitolume.io.channels import file_of_channel, select_channel, transmitted_channel
from mitolume.io.read import AXES


def image(*names: str, light: tuple[str, ...] = ()) -> xr.DataArray:
    values = np.arange(len(names)).reshape(1, -1, 1, 1, 1)
    attrs = {"source": "a.nd2"} | ({"channel_light": light} if light else {})
    return xr.DataArray(values, dims=AXES, coords={"C": np.array(names, object)}, attrs=attrs)


# Between bars, as some have spaces and one has nothing.
LIGHT = """T PMT|T-PMT|TPMT|t pmt-T1|PMT Trans|TL|TL Brightfield|TL-BF|DIC|dic 20x|ch2-DIC|BF|bf_1|
Brightfield|BrightField|bright field|Bright|Trans|Trans. light|Transmitted Light|Phase|ESID|Ph1|TD|
Phase Contrast|PhaseContrast|Nomarski"""
OTHER = """Control|BFP|EBFP2|phase-lag FLIM|DICer|DICER-GFP|S phase|G1-phase reporter|interphase|
Transferrin|transfected|trans-Golgi|Bright GFP|pH|pH3|DiA|tdTomato|outlet|Mono|0|"""


@pytest.mark.parametrize("name", LIGHT.replace("\n", "").split("|"))
def test_names_of_transmitted_light(name: str) -> None:
    assert transmitted_channel(["DAPI", name, "GFP"]) == ([1], "its name says so")


@pytest.mark.parametrize("name", OTHER.replace("\n", "").split("|"))
def test_false_friends(name: str) -> None:
    assert transmitted_channel(["DAPI", name, "GFP"])[0] == []


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_any_names_give_numbers_of_channels(names: list[str]) -> None:
    fits, reason = transmitted_channel(names)
    assert set(fits) <= set(range(len(names)))
    assert bool(fits) == bool(reason)


@pytest.mark.parametrize(
    ("names", "light", "fits"),
    [
        (["A", "B"], ["Epifluorescence", "Transmitted, Brightfield"], [1]),
        (["A", "B"], ["fluorescence, camera", "DIC, camera"], [1]),
        (["A", "DIC"], ["Brightfield", ""], [0, 1]),  # name and file disagree
        (["A", "DIC"], ["brightfield", "brightfield"], [1]),  # said of all, it says nothing
        (["Mono", "B", "C"], ["", "emission 450 nm", "emission 512 nm"], [0]),
        (["Mono", "B", "C"], ["", "", "emission 512 nm"], []),
        (["SHG", "B"], ["", "emission 450 nm"], []),
        (["Cy5", "B"], ["", "emission 450 nm"], []),
        (["A", "B"], ["Transmitted"], []),  # not one for each channel
    ],
)
def test_what_the_file_says_counts(names: list[str], light: list[str], fits: list[int]) -> None:
    assert transmitted_channel(names, light)[0] == fits


def test_one_that_fits_is_taken_and_said() -> None:
    found = select_channel(image("DAPI", "BF"), None)
    assert found.values.item() == 1
    assert found.attrs["channel_found_by"] == "channel 1 = BF (its name says so)"
    only = select_channel(image("DAPI"), None)
    assert "channel_found_by" not in only.attrs
    named = select_channel(image("DAPI", "BF", light=("emission 450 nm", "")), "dapi")
    assert named.values.item() == 0
    assert named.attrs == {"source": "a.nd2", "channel_light": ("emission 450 nm",)}


def test_doubt_is_asked_about_with_the_list() -> None:
    listing = r"a\.nd2 has 2 channels; name one of them \(0 = DAPI, 1 = GFP\)"
    with pytest.raises(MitolumeError, match=listing):
        select_channel(image("DAPI", "GFP"), None)
    with pytest.raises(MitolumeError, match=r"0 and 2 may all be transmitted light"):
        select_channel(image("BF", "GFP", "DIC"), "")


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("t pmt", 1), ("T-PMT", 1), ("TPMT", 1), ("1", 1), (2, 2), ("1.0", 1), ("0", 2)],
)
def test_channels_by_name_and_number(wanted: str | int, number: int) -> None:
    names = ("DAPI", "T PMT", "0") if wanted == "0" else ("DAPI", "T PMT", "GFP")
    assert select_channel(image(*names), wanted).values.item() == number


@pytest.mark.parametrize("wanted", ["RFP", "3", "-1", "1.5"])
def test_channels_that_are_not_there(wanted: str) -> None:
    with pytest.raises(MitolumeError, match=r"no channel .*; it has 0 = DAPI, 1 = T PMT"):
        select_channel(image("DAPI", "T PMT"), wanted)


def test_two_channels_of_one_name_need_a_number() -> None:
    with pytest.raises(MitolumeError, match=r"2 channels 'green'; give the number of one"):
        select_channel(image("Green", "Green"), "green")
    assert select_channel(image("Green", "Green"), "1").values.item() == 1


def test_files_that_metamorph_numbers_by_channel_are_found(tmp_path: Path) -> None:
    files = {of: tmp_path / f"dish 1_w{of}_s1.TIF" for of in ("1BF", "2CellMask", "3TMRM")}
    for file in files.values():
        file.touch()
    assert file_of_channel(files["1BF"], "BF", "TMRM") == files["3TMRM"]
    assert file_of_channel(files["3TMRM"], "tmrm", "bf") == files["1BF"]
    assert file_of_channel(files["3TMRM"], "w3TMRM", "w1BF") == files["1BF"]
    assert file_of_channel(files["3TMRM"], "TMRM", "TMRM") == files["3TMRM"]
    well = tmp_path / "dish 1_w3BF_s1.TIF"  # where the number is that of a well
    well.touch()
    assert file_of_channel(files["3TMRM"], "TMRM", "BF") == well
