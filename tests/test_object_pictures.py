"""Outlines in the colour of a value, superplots: what is drawn, and what is not."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mitolume.analysis.object_pictures import outlines_by_value, superplot, write_figure
from mitolume.analysis.replicates import ordered, suits_log
from mitolume.errors import MitolumeError
from mitolume.text import title_of

GREY = (170, 170, 170)


def squares() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Return a flat image with three squares in it, and a value for each."""
    labels = np.zeros((900, 1200), np.int32)
    for k in range(3):
        labels[300:500, 100 + 350 * k : 300 + 350 * k] = k + 5
    table = pd.DataFrame({"label": [5, 6, 7], "length_um": [1.0, 3.0, 2.0]})
    return np.zeros(labels.shape), labels, table


def picture_of(figure: Figure) -> np.ndarray:
    """Return the picture inside the figure, without bar and title."""
    return np.asarray(figure.axes[0].images[0].get_array())


def test_outlines_have_the_colours_of_their_values() -> None:
    image, labels, table = squares()
    picture = picture_of(outlines_by_value(image, labels, table, "length_um"))
    low, high, middle = (picture[400, 100 + 350 * k] for k in range(3))
    assert (picture[400, 100:300] == low).all(axis=1).sum() == 4  # two pixels at each side
    # viridis: from blue over green to yellow, ever lighter
    assert low[2] > low[0]
    assert high[0] > high[2]
    lightness = [int(c @ np.array([0.21, 0.72, 0.07])) for c in (low, middle, high)]
    assert lightness == sorted(lightness)
    assert len(set(lightness)) == 3
    grey = (picture == picture[..., :1]).all(axis=-1)
    assert not grey[labels > 0].all()
    assert grey[labels == 0].all()
    assert grey[310:490, 110:290].all()  # the inside stays to be seen


def test_an_object_without_value_is_grey_and_said_to_be() -> None:
    image, labels, table = squares()
    table.loc[1, "length_um"] = np.nan
    figure = outlines_by_value(image, labels, table.iloc[:2], "length_um")
    picture = picture_of(figure)
    assert tuple(picture[400, 450]) == GREY
    assert tuple(picture[400, 800]) == GREY  # not in the table
    assert tuple(picture[400, 100]) != GREY
    assert figure.texts[0].get_text() == "length (µm), 2 objects (1 without a value: grey)"


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (4000, 30)])
def test_pictures_of_any_size_are_written_pixel_for_pixel(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    labels = np.zeros(shape, int)
    labels[: shape[0] // 2 + 1, : shape[1] // 2 + 1] = 1
    table = pd.DataFrame({"label": [1], "area_px": [4.0]})
    figure = outlines_by_value(np.random.default_rng(0).random(shape), labels, table, "area_px")
    write_figure(tmp_path / "outlines.png", figure)
    written = np.asarray(Image.open(tmp_path / "outlines.png").convert("RGB"))
    drawn = picture_of(figure)
    assert max(drawn.shape) <= 1600
    rim = 20
    y, x = written.shape[0] - rim - drawn.shape[0], rim
    assert (written[y : y + drawn.shape[0], x : x + drawn.shape[1]] == drawn).all()


def test_no_objects_no_colour_bar(tmp_path: Path) -> None:
    image, labels, table = squares()
    figure = outlines_by_value(image, labels * 0, table.iloc[:0], "length_um")
    assert len(figure.axes) == 1
    write_figure(tmp_path / "none.png", figure)
    with pytest.raises(ValueError, match=r"\(900, 1199\)"):
        outlines_by_value(image, labels[:, 1:], table, "length_um")


def specimens(seed: int = 0, shared: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for condition, n in (("control", 4), ("FCCP $5_µM", 3), ("線粒體", 1)):
        for k in range(n):
            name = f"dish {k}" if shared else f"{condition} {k}"
            values = rng.lognormal(rng.normal(0, 0.2), 0.5, rng.integers(20, 200))
            rows.append(
                pd.DataFrame({"condition": condition, "specimen": name, "length_um": values})
            )
    return pd.concat(rows, ignore_index=True).rename_axis("label").reset_index()


def test_the_bar_is_of_specimen_means_not_of_objects() -> None:
    table = specimens()
    axes = superplot(table, "length_um", log=False).axes[0]
    bars = [c.lines[2][0].get_segments()[0][:, 1] for c in axes.containers]
    assert len(bars) == 2  # one specimen has none
    for bar, condition in zip(bars, table["condition"].unique(), strict=False):
        rows = table[table["condition"] == condition]
        means = rows.groupby("specimen")["length_um"].mean()
        assert bar == pytest.approx([means.mean() - means.std(), means.mean() + means.std()])
    marks = [line for line in axes.lines if line.get_markersize() == 9]
    drawn = sorted(float(line.get_ydata()[0]) for line in marks)
    assert drawn == pytest.approx(sorted(table.groupby("specimen")["length_um"].mean()))
    names = [label.get_text() for label in axes.get_xticklabels()]
    n = (table["condition"] == "control").sum()
    assert names[0] == f"control\nn = 4 specimens\n{n} objects"
    of_images = superplot(table.drop(columns="label"), "length_um")
    assert f"{n} images" in of_images.axes[0].get_xticklabels()[0].get_text()
    assert "Small: images." in of_images.get_supxlabel()
    assert "n = 1 specimen\n" in names[2]


def test_what_is_not_shown_is_said() -> None:
    table = specimens()
    table.loc[:2, "length_um"] = [1e4, np.nan, 2e4]
    table.loc[3, "length_um"] = np.inf
    many = pd.concat([table] * 8, ignore_index=True)
    figure = superplot(many[many.index % len(table) != 0], "length_um")
    said = figure.get_supxlabel()
    assert "Larger than the axis" in said
    assert "One specimen only" in said
    alone = superplot(table[table["condition"] == "control"].iloc[5:], "length_um")
    assert "One specimen only" not in alone.get_supxlabel()
    with pytest.raises(MitolumeError, match="length_um"):
        superplot(table.iloc[1:2], "length_um")


def test_every_superplot_has_the_scale_and_the_order_of_a_comparison() -> None:
    table = specimens().iloc[::-1]
    for column, log in (("length_um", True), ("n_branches", False)):
        figure = superplot(table.rename(columns={"length_um": column}), column)
        axes = figure.axes[0]
        assert suits_log(table["length_um"].rename(column), table["condition"])[0] == log
        assert axes.get_ylabel().endswith(", logarithmic") == log
        names = [label.get_text().split("\n")[0] for label in axes.get_xticklabels()]
        assert names == ordered(table["condition"]) == ["control", "FCCP $5_µM", "線粒體"]
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert sorted(legend) == sorted(set(table["specimen"]))
        assert legend[0].startswith("control")
    ours = table[table["condition"] == "control"]
    wide = [
        ours.assign(condition=c, specimen=f"{c} of 2026-11-29 " + ours["specimen"]) for c in "abcd"
    ]
    figure = superplot(pd.concat(wide), "length_um")
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1, "none is cut off"


def test_a_specimen_in_several_conditions_keeps_its_colour() -> None:
    axes = superplot(specimens(shared=True), "length_um").axes[0]
    marks = [line for line in axes.lines if line.get_markersize() == 9]
    looks = [(line.get_color(), line.get_marker()) for line in marks]
    assert looks[:3] == looks[4:7]
    assert looks[0] == looks[7]
    assert len(set(looks)) == 4


def test_figures_are_written_whole_as_png_and_svg(tmp_path: Path) -> None:
    settings = dict(matplotlib.rcParams)
    figure = superplot(specimens(shared=True), "length_um")
    write_figure(tmp_path / "plot.png", figure)
    write_figure(tmp_path / "plot.svg", figure)
    with Image.open(tmp_path / "plot.png") as png:
        assert png.size[0] > 600
    assert "</svg>" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
    with pytest.raises(MitolumeError, match=r"\.png or \.svg"):
        write_figure(tmp_path / "plot.pdf", figure)
    assert sorted(p.name for p in tmp_path.glob("*.*g")) == ["plot.png", "plot.svg"]
    assert dict(matplotlib.rcParams) == settings


def test_columns_in_words() -> None:
    assert title_of("volume_um3") == "volume (µm³)"
    assert title_of("intensity_mean_TMRM") == "intensity mean TMRM"
