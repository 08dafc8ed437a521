"""Pictures: contrast, outlines, colours of errors, and PNG without loss."""

from __future__ import annotations

import errno
import io
import os

import numpy as np
import pytest
from PIL import Image

from mitolume.analysis import pictures
from mitolume.errors import MitolumeError

IMAGE = np.tile(np.arange(12.0), (12, 1))


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64, bool])
def test_contrast_is_stretched_over_the_whole_range(dtype):
    grey = pictures.to_8bit((np.arange(100).reshape(10, 10) % 2).astype(dtype))
    assert grey.dtype == np.uint8
    assert (grey.min(), grey.max()) == (0, 255)


@pytest.mark.parametrize("image", [np.full((4, 5), 7), np.full((4, 5), np.nan), np.zeros((4, 5))])
def test_constant_image_is_mid_grey(image):
    assert (pictures.to_8bit(image) == 128).all()


def test_nan_and_infinities_do_not_spoil_the_contrast():
    image = np.arange(100.0).reshape(10, 10)
    image[0, :3] = np.nan, np.inf, -np.inf
    grey = pictures.to_8bit(image)
    assert grey[0, :3].tolist() == [0, 255, 0]
    assert 120 < grey[5, 5] < 150


def test_outliers_are_clipped_but_a_lone_bright_pixel_is_seen():
    image = np.linspace(0, 1, 10_000).reshape(100, 100)
    image[0, 0] = 1e9
    assert np.median(pictures.to_8bit(image)) == pytest.approx(128, abs=2)
    lone = np.zeros((100, 100))
    lone[3, 4] = 5
    assert pictures.to_8bit(lone)[3, 4] == 255
    assert pictures.to_8bit(lone).sum() == 255


def test_fit_bounds_the_longer_side_and_enlarges_by_whole_factors():
    assert pictures.fit(np.zeros((100, 50), np.uint8), 64).shape == (64, 32)
    assert pictures.fit(np.zeros((3000, 2), np.uint8), 64).shape == (64, 1)
    assert pictures.fit(np.zeros((60, 50), np.uint8), 64).shape == (60, 50)
    assert pictures.fit(np.zeros((100, 50), np.uint8), None).shape == (100, 50)
    small = np.array([[0, 1], [255, 0]], np.uint8)
    assert np.array_equal(pictures.fit(small, 7), small.repeat(3, 0).repeat(3, 1))
    mask = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (100, 100))
    assert set(np.unique(pictures.fit(mask, 33))) <= {0, 1, 255}


def test_outline_follows_the_border_and_leaves_the_rest_grey():
    mask = np.zeros((12, 12), np.uint8)
    mask[3:9, 3:9] = 1
    picture = pictures.overlay(IMAGE, mask)
    drawn = (picture == pictures.OUTLINE_COLOUR).all(-1)
    ring = np.zeros((12, 12), bool)
    ring[2:10, 3:9] = ring[3:9, 2:10] = True
    ring[4:8, 4:8] = False
    assert np.array_equal(drawn, ring)
    grey = picture[~drawn]
    assert (grey == grey[:, :1]).all()


def test_foreground_that_fills_the_image_has_no_outline():
    picture = pictures.overlay(IMAGE, np.ones((12, 12), np.uint8))
    assert not (picture == pictures.OUTLINE_COLOUR).all(-1).any()


def test_unsure_is_striped_in_grey_and_not_outlined():
    mask = np.zeros((12, 12), np.uint8)
    mask[:, 6:] = 255
    picture = pictures.overlay(IMAGE, mask)
    assert (picture[..., 0] == picture[..., 2]).all()
    assert (picture[:, 6:] == pictures.UNSURE_COLOUR).all(-1).any()
    assert not (picture[:, :6] == pictures.UNSURE_COLOUR).all(-1).any()


def test_error_map_colours_each_kind_of_pixel():
    truth = np.zeros((12, 12), np.uint8)
    found = np.zeros((12, 12), np.uint8)
    truth[0, :2] = 1
    found[0, 1:3] = 1
    truth[5:, 5:] = 255
    found[5:, 5:] = 1
    picture = pictures.error_map(IMAGE, truth, found)
    assert tuple(picture[0, 0]) == pictures.MISSED_COLOUR
    assert tuple(picture[0, 1]) == pictures.CORRECT_COLOUR
    assert tuple(picture[0, 2]) == pictures.FALSE_COLOUR
    rest = np.concatenate([picture[1:5].reshape(-1, 3), picture[5:, 5:].reshape(-1, 3)])
    assert (rest == rest[:, :1]).all()


def test_colours_can_be_told_apart_in_grey_print():
    weights = np.array([0.2126, 0.7152, 0.0722])
    kinds = [pictures.CORRECT_COLOUR, pictures.MISSED_COLOUR, pictures.FALSE_COLOUR]
    light = np.sort([(np.array(colour) / 255) ** 2.2 @ weights for colour in kinds])
    assert (np.diff(light) > 0.1).all()


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (200, 200, 3)])
def test_png_keeps_every_pixel(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    wanted = picture if len(shape) == 3 else picture[..., None].repeat(3, -1)
    assert np.array_equal(decoded(pictures.png_bytes(picture)), wanted)


def test_drawn_pictures_fit_a_palette():
    random = np.random.default_rng(0)
    image = random.normal(size=(200, 200))
    truth = random.choice(np.array([0, 1, 255], np.uint8), (200, 200))
    found = (image > 0).astype(np.uint8)
    for picture in (pictures.overlay(image, truth), pictures.error_map(image, truth, found)):
        data = pictures.png_bytes(picture)
        assert Image.open(io.BytesIO(data)).mode == "P"
        assert np.array_equal(decoded(data), picture)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    pictures.write_png(path, np.zeros((3, 3), np.uint8))
    before = path.read_bytes()

    def broken(*_):
        raise OSError(errno.EIO, "disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(MitolumeError, match="disk full"):
        pictures.write_png(path, np.ones((3, 3), np.uint8))
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".mitolume", "picture.png"]


def test_a_scale_bar_is_as_long_as_it_says():
    for picture in (np.zeros((300, 512), np.uint8), np.zeros((300, 512, 3), np.uint8)):
        drawn = pictures.with_bar(picture, 51.2)
        assert drawn.shape == picture.shape
        rows = (drawn.reshape(300, 512, -1) == 255).all(-1)
        assert max(rows.sum(axis=1)) == 101  # 10 µm of 0.1 µm, both ends drawn
        assert not drawn[:200, :300].any()
        assert pictures.with_bar(picture, None) is picture
    assert pictures.with_bar(np.zeros((1, 1), np.uint8), 0.1).shape == (1, 1)
