"""Verdicts: their error rates over simulated studies, identities of the intervals, their words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.score_tables import (
    DESIGNS,
    LUCK,
    UNLIKE,
    Truth,
    as_images,
    differences,
    rates,
    simulate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from mitolume.analysis.metrics import Counts, iou
from mitolume.errors import MitolumeError, Note
from mitolume.report.study_tables import comparison_table
from mitolume.report.study_words import head_of, notes_of_runs
from mitolume.study.cells import cell_scores, paired
from mitolume.study.crossed import (
    degrees_of_freedom,
    detectable,
    half_width,
    mean_squares,
)
from mitolume.study.evidence import (
    EQUAL,
    HELPED,
    HINT,
    HURT,
    NO_DIFFERENCE,
    UNDETERMINED,
    compare,
    label_curve,
)
from mitolume.study.worth import label_worth, outlook

FINITE = st.floats(-1, 1, width=32)
TABLES = hnp.arrays(float, st.tuples(st.integers(2, 6), st.integers(2, 5)), elements=FINITE).filter(
    lambda values: float(np.ptp(values)) > 1e-3
)


def study(
    seed: int = 0, *, arms: int = 2, specimens: int = 5, seeds: int = 3, gains: Any = 0.0
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    counts = simulate(rng, 1, arms=arms, specimens=specimens, seeds=seeds, gains=gains)
    return as_images(counts, 0)


# Equal, worth, outlook -----------------------------------------------------------------------


def test_equal_is_shown_by_two_one_sided_tests() -> None:
    images = study(arms=3, specimens=8, seeds=4)
    for margin in (0.0, 0.02, 0.3):
        for one in compare(images, "reference", margin):
            own = images[images["arm"].isin([one.arm, "reference"])]
            (alone,) = compare(own, "reference", margin)
            assert one.within > alone.within  # each of two tests is stricter
            values = paired(*(c for _, c in cell_scores(own).groupby("arm"))).values
            freedom = mean_squares(values)
            expected = abs(alone.difference) + float(half_width(freedom, 0.1))
            assert alone.within == pytest.approx(expected)
            assert (one.verdict == EQUAL) == (one.low <= 0 <= one.high and one.within < margin)
            if one.verdict == EQUAL:
                assert one.words.endswith(f"so equal within ±{margin:g}")
    # What helped may be too little to matter, and says so.
    small = study(arms=2, specimens=12, seeds=5, gains=np.array([0, 0.9]))
    (found,) = compare(small, "reference", 0.9)
    assert found.verdict == HELPED
    assert "so equal within ±0.9" in found.words


def curve(gain: float, *, seeds: int = 4) -> pd.DataFrame:
    """Return a reference that rises from 4 to 24 labelled images, and an arm with 4."""
    rng = np.random.default_rng(0)
    luck = LUCK["little luck of seeds"]
    gains = np.array([0, gain, 0.8])
    counts = simulate(rng, 1, arms=3, specimens=12, seeds=seeds, gains=gains, truth=luck)
    images = as_images(counts, 0, 4)
    with_more = images[images["arm"] == "arm 2"].assign(arm="reference", k=24)
    return pd.concat([images[images["arm"] != "arm 2"], with_more])


def test_an_arm_is_placed_on_the_curve_of_the_reference() -> None:
    (found,) = label_worth(curve(0.4), "reference")
    assert found.low < found.n < found.high
    assert 7 <= found.n <= 15  # in the middle of log(n + 1), where 10 is
    assert found.sentence.startswith(f"arm 1 with 4 labelled images is worth {found.n:.0f} ")
    (less,) = label_worth(curve(-1.5), "reference")
    assert "4 or fewer labelled images of reference (95 % interval by itself: 4 or" in less.sentence
    (more,) = label_worth(curve(3), "reference")
    assert "worth 24 or more" in more.sentence
    assert label_worth(curve(0.4, seeds=1), "reference") == []
    assert label_worth(study(), "reference") == []


def test_the_outlook_is_what_the_study_will_have_seen() -> None:
    images = study(specimens=10, seeds=4)
    (one,) = compare(images, "reference")
    asked: Any = {"n_comparisons": 1, "margin": 0.0}
    said = outlook(images, "reference", n_seeds=4, **asked)
    assert f"differences in IoU of {one.detectable:.3f} or more." in said
    first = images[images["seed"] < 2]
    said = outlook(first, "reference", n_seeds=5, n_comparisons=1, margin=0.02)
    assert said.startswith("By its first 2 seeds, a study of 10 specimens and 5 seeds can show")
    assert "; for 0.02 it would take " in said
    assert outlook(images[images["seed"] < 1], "reference", n_seeds=3, **asked) == ""


@pytest.mark.slow
def test_the_interval_of_what_an_arm_is_worth_covers() -> None:
    rng, n, inside = np.random.default_rng(1), 150, 0
    luck, gains = LUCK["little luck of seeds"], np.array([0, 0.2, 0.4])
    for _ in range(n):
        counts = simulate(rng, 1, arms=3, specimens=10, seeds=3, gains=gains, truth=luck)
        images = as_images(counts, 0, 4)
        with_more = images[images["arm"] == "arm 2"].assign(arm="reference", k=24)
        (found,) = label_worth(
            pd.concat([images[images["arm"] != "arm 2"], with_more]), "reference"
        )
        inside += found.low <= (5 * 25) ** 0.5 - 1 <= found.high
    assert inside / n > 0.93


# Error rates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arms", [1, 6])
@pytest.mark.parametrize(("specimens", "seeds"), [(3, 3), (10, 3), (4, 2)])
def test_identical_arms_differ_rarely_and_stated_power_is_true(
    specimens: int, seeds: int, arms: int
) -> None:
    found = rates(LUCK["some"], arms=arms, specimens=specimens, seeds=seeds, n=2000)
    assert found.no_difference >= 0.93
    assert found.covered >= 0.93
    assert 0.75 <= found.power <= 0.85
    assert found.unlike_called_equal <= 0.055


@pytest.mark.slow
@pytest.mark.parametrize("arms", [1, 6, 15])
@pytest.mark.parametrize(("specimens", "seeds"), DESIGNS)
def test_error_rates_of_every_design(specimens: int, seeds: int, arms: int) -> None:
    """Intervals may be wider than they must be; heavy tails may cost a little of 95 %."""
    truths = [*LUCK.values(), *([UNLIKE] if specimens > 1 else [])]
    for truth in truths:
        found = rates(truth, arms=arms, specimens=specimens, seeds=seeds)
        assert found.no_difference >= 0.94
        assert found.covered >= 0.94
        assert 0.75 <= found.power <= 0.86


@pytest.mark.slow
def test_unequal_arms_are_covered_together() -> None:
    """Arms with true gains; what is true is the mean over many studies."""
    rng = np.random.default_rng(5)
    gains = np.array([0.0, 0.0, 0.1, 0.3, -0.2, 0.6])
    counts = simulate(rng, 6000, arms=6, specimens=8, seeds=3, truth=UNLIKE, gains=gains)
    found = mean_squares(differences(counts))
    true = found.mean.mean(axis=0)
    assert np.ptp(true) > 0.15  # the simulation has such arms
    missed = np.abs(found.mean - true) > half_width(found, 0.05 / 5)
    assert missed.any(axis=1).mean() <= 0.06


@pytest.mark.slow
def test_error_rate_from_table_to_verdict() -> None:
    rng = np.random.default_rng(6)
    counts = simulate(rng, 2000, arms=3, specimens=4, seeds=3)
    verdicts = [v.verdict for i in range(2000) for v in compare(as_images(counts, i), "reference")]
    assert verdicts.count(NO_DIFFERENCE) >= 0.93 * len(verdicts)


def test_satterthwaite_alone_misses_too_often_in_far_tails() -> None:
    """Why each mean square has a t quantile of its own: docs/evidence.md."""
    rng = np.random.default_rng(7)
    counts = simulate(rng, 2000, arms=7, specimens=12, seeds=3, truth=Truth(0.4, 0.4))
    found = mean_squares(differences(counts))
    a, b, rest = found.specimens, found.seeds, found.rest
    variance = np.maximum(a + b - rest, np.maximum(a, b))
    freedom = np.maximum(variance**2 / (a**2 / 11 + b**2 / 2 + rest**2 / 22), 2)
    plain = stats.t.isf(0.025 / 6, freedom) * np.sqrt(variance / 36)
    missed = [
        (np.abs(found.mean) > h).any(axis=1).mean() for h in (plain, half_width(found, 0.05 / 6))
    ]
    assert missed[0] > 0.06 > 0.05 > missed[1]


# Intervals -------------------------------------------------------------------------------------


@given(hnp.arrays(float, st.integers(2, 8), elements=FINITE), st.booleans())
def test_one_factor_is_the_t_test(values: np.ndarray, seeds: bool) -> None:
    if np.std(values) < 1e-3:
        return
    found = mean_squares(values[None] if seeds else values[:, None])
    expected = stats.ttest_1samp(values, 0)
    low, _ = expected.confidence_interval(0.9)
    assert float(found.mean - half_width(found, 0.1)) == pytest.approx(low)
    assert float(degrees_of_freedom(found, 0.1)) == pytest.approx(len(values) - 1)


@given(TABLES)
def test_seeds_that_change_nothing_add_nothing(values: np.ndarray) -> None:
    specimens = values[:, :1]
    if np.std(specimens) < 1e-3:
        return
    once, thrice = mean_squares(specimens), mean_squares(np.repeat(specimens, 3, axis=1))
    assert float(half_width(once, 0.05)) == pytest.approx(float(half_width(thrice, 0.05)))


@given(TABLES, st.floats(0.001, 0.3), st.floats(0.1, 9), FINITE)
@settings(max_examples=40)
def test_intervals_follow_shifts_scales_and_turned_tables(
    values: np.ndarray, alpha: float, scale: float, shift: float
) -> None:
    found, turned = mean_squares(values), mean_squares(values.T)
    other = mean_squares(scale * values + shift)
    half = float(half_width(found, alpha))
    assert float(half_width(turned, alpha)) == pytest.approx(half)
    assert float(half_width(other, alpha)) == pytest.approx(scale * half)
    assert float(half_width(found, alpha / 2)) > half
    assert float(detectable(other, alpha)) == pytest.approx(scale * float(detectable(found, alpha)))
    assert float(detectable(found, alpha)) > half


def test_many_tables_at_once_are_each_table() -> None:
    values = np.random.default_rng(1).normal(size=(4, 2, 5, 3))
    together = mean_squares(values)
    for index in np.ndindex(4, 2):
        alone = mean_squares(values[index])
        for measure in (half_width, detectable, degrees_of_freedom):
            assert float(measure(alone, 0.05)) == pytest.approx(measure(together, 0.05)[index])


def test_expected_power_of_a_t_test() -> None:
    """Against two samples drawn one after the other: one states, the other tests."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 10_000, 6, 1))
    stated = detectable(mean_squares(first[:2000]), 0.05)
    then = mean_squares(second)
    needed = np.sort(half_width(then, 0.05) - then.mean)
    assert np.searchsorted(needed, stated).mean() / 10_000 == pytest.approx(0.8, abs=0.015)


# From images to cells ---------------------------------------------------------------------------


def test_cells_pool_the_counts_of_their_images() -> None:
    images = study(3)
    cells = cell_scores(images)
    assert len(cells) == 2 * 5 * 3
    for row in cells.to_dict("records"):
        keys = ["arm", "seed", "specimen"]
        part = images[(images[keys] == [row[key] for key in keys]).all(axis=1)]
        pooled = Counts(*part[["tp", "fp", "fn", "tn"]].sum().astype(int))
        assert row["score"] == pytest.approx(iou(pooled))
        assert row["n_images"] == len(part)


def test_compare_gives_the_numbers_of_the_arrays_in_any_order_of_rows() -> None:
    counts = simulate(np.random.default_rng(8), 4, arms=3, specimens=6, seeds=3)
    found = mean_squares(differences(counts))
    half, wanted = half_width(found, 0.025), detectable(found, 0.025)
    for table in range(4):
        images = as_images(counts, table)
        shuffled = images.sample(frac=1, random_state=table)
        for i, one in enumerate(compare(images, "reference")):
            assert one.difference == pytest.approx(found.mean[table, i])
            assert one.high - one.low == pytest.approx(2 * half[table, i])
            assert one.detectable == pytest.approx(wanted[table, i])
        both = compare(shuffled, "reference"), compare(images, "reference")
        by_arm = [{c.arm: c.difference for c in run} for run in both]
        assert by_arm[0] == pytest.approx(by_arm[1])


def test_a_failed_run_costs_its_seed_in_its_own_comparison_only() -> None:
    images = study(9, arms=3, seeds=4)
    failed = (images["arm"] == "arm 1") & (images["seed"] == 2)
    first, second = compare(images[~failed], "reference")
    assert (first.n_seeds, second.n_seeds) == (3, 4)
    assert first.notice.startswith("left out: seed 2 (")
    assert not second.notice
    kept = images[images["seed"] != 2]
    assert first.difference == pytest.approx(compare(kept, "reference")[0].difference)


def test_a_specimen_scored_on_other_images_is_left_out() -> None:
    images = study(10)
    odd = (images["arm"] == "arm 1") & (images["specimen"] == "dish 3")
    images.loc[odd, "image"] = "b" + images.loc[odd, "image"]
    (one,) = compare(images, "reference")
    assert one.n_specimens == 4
    assert "specimen dish 3" in one.notice


@given(hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 4))))
@settings(max_examples=40)
def test_what_is_kept_is_complete_and_the_rest_is_named(there: np.ndarray) -> None:
    cells = pd.DataFrame(
        [
            {"specimen": f"d{i}", "seed": j, "score": 10.0 * i + j, "n_images": i + 1}
            for i, j in np.argwhere(there)
        ],
        columns=["specimen", "seed", "score", "n_images"],
    )
    table = paired(cells)
    assert not np.isnan(table.values).any()
    assert bool(table.values.size) == bool(there.any())
    seen = cells["specimen"].nunique(), cells["seed"].nunique()
    assert bool(table.notice) == (table.values.shape != seen)


# Verdicts and their words -----------------------------------------------------------------------


def test_large_gains_and_losses_are_named() -> None:
    images = study(11, arms=3, specimens=8, seeds=5, gains=[0, 2.0, -2.0])
    better, worse = compare(images, "reference")
    assert (better.verdict, worse.verdict) == (HELPED, HURT)
    assert better.sentence.startswith(
        "arm 1 against reference, 8 labelled images: helped; foreground IoU "
        f"+{better.difference:.3f} (+{better.low:.3f} to +{better.high:.3f})."
    )
    n = images[(images["arm"] == "arm 1") & (images["seed"] == 0)].shape[0]
    assert f"together; {n} test images of 8 specimens, 5 seeds." in better.sentence
    assert "95 % interval of all 2 comparisons together" in better.sentence
    assert "hurt" in worse.sentence
    assert "\N{MINUS SIGN}" in worse.sentence


def test_no_difference_says_what_could_have_been_seen() -> None:
    (one,) = compare(study(12, specimens=10, seeds=5), "reference")
    assert one.verdict == NO_DIFFERENCE
    assert f"; could have seen {one.detectable:.3f}" in one.sentence
    (few,) = compare(study(12, specimens=3, seeds=2), "reference")
    if few.detectable >= 1:
        assert "too few specimens or seeds to see any" in few.sentence


@pytest.mark.parametrize(
    ("specimens", "seeds", "words"),
    [(1, 3, "for this specimen only"), (4, 1, "trained once"), (4, 3, None)],
)
def test_what_a_verdict_holds_for(specimens: int, seeds: int, words: str | None) -> None:
    (one,) = compare(study(13, specimens=specimens, seeds=seeds), "reference")
    assert one.low < one.difference < one.high
    assert words in one.sentence if words else "only" not in one.sentence


def test_one_seed_gives_hints_and_no_verdicts() -> None:
    """However clear the figures are: identical arms that were trained once differ as clearly."""
    images = study(11, arms=3, specimens=8, seeds=1, gains=[0, 2.0, -2.0])
    images = pd.concat([images, images.assign(k=16)])
    found, curve = compare(images, "reference"), label_curve(images)
    assert {one.verdict for one in found} == {HINT}
    assert found[0].low > 0 > found[2].high
    assert all("a hint only" in one.sentence for one in found)
    head = head_of(found, curve, "reference", "test images")
    assert head.lead.startswith("One seed: a hint, not evidence; run 3 or more seeds. Compared")
    assert f"IoU {found[1].difference:+.3f} (+" in head.text
    assert f"With 8 labelled images: arm 1 a hint only ({found[0].difference:+.3f})" in head.text
    assert "helped" not in head.text
    assert "hurt" not in head.text
    table = comparison_table(found, curve.points, "reference", "test images")
    interval, seen = table.columns.index("Interval"), table.columns.index("Could have seen")
    assert table.rows[1][interval].startswith("+")
    assert table.rows[1][seen] == table.rows[0][seen] == "\N{EN DASH}"
    thrice = study(11, arms=3, specimens=8, seeds=3, gains=[0, 2.0, -2.0])
    sure = head_of(compare(thrice, "reference"), label_curve(thrice), "reference", "test images")
    assert sure.lead.startswith("Compared")


def test_one_specimen_and_one_seed_tell_nothing() -> None:
    (one,) = compare(study(14, specimens=1, seeds=1), "reference")
    assert one.verdict == UNDETERMINED
    assert math.isfinite(one.difference)
    assert math.isnan(one.low)
    assert "one specimen and one seed do not show" in one.sentence


def test_copies_of_one_run_are_no_seeds() -> None:
    once = study(15, specimens=1, seeds=1)
    copies = pd.concat([once.assign(seed=seed) for seed in range(3)])
    (one,) = compare(copies, "reference")
    assert one.verdict == UNDETERMINED
    assert "all repeats gave the same" in one.sentence
    same = copies[copies["arm"] == "reference"]
    (equal,) = compare(pd.concat([same, same.assign(arm="twin")]), "reference")
    assert equal.verdict == NO_DIFFERENCE
    assert "all scores are equal" in equal.sentence
    assert equal.detectable == 0


def test_a_budget_that_the_reference_lacks_is_undetermined() -> None:
    images = study(16)
    more = images[images["arm"] == "arm 1"].assign(k=16)
    both = compare(pd.concat([images, more]), "reference")
    assert [one.k for one in both] == [8, 16]
    assert both[1].verdict == UNDETERMINED
    assert "scored on both sides" in both[1].sentence
    (alone,) = compare(images, "reference")
    assert both[0].low == alone.low  # an undetermined comparison widens nothing


def test_label_curve_and_its_steps() -> None:
    rng = np.random.default_rng(17)
    gains = np.array([-2.0, 0.0, 0.02])  # the budgets stand in for arms, on the same seeds
    counts = simulate(rng, 1, arms=3, specimens=8, seeds=5, gains=gains)
    names = {"reference": 2, "arm 1": 10, "arm 2": 11}
    images = as_images(counts, 0)
    images = images.assign(k=images["arm"].map(names), arm="plain")
    curve = label_curve(images)
    assert list(curve.points["k"]) == [2, 10, 11]
    assert ((curve.points["low"] >= 0) & (curve.points["high"] <= 1)).all()
    assert curve.points["score"].between(curve.points["low"], curve.points["high"]).all()
    up, flat = curve.steps
    rise = curve.points["score"].diff()
    assert (up.difference, flat.difference) == pytest.approx((rise[1], rise[2]))
    assert up.verdict == HELPED
    assert up.sentence.startswith("plain, 10 against 2 labelled images: helped; foreground IoU +")
    assert "11 against 10 labelled images: no difference shown" in flat.sentence


# Faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.assign(subset=["train", *t["subset"][1:]]), "train, test"),
        (lambda t: t.assign(model=["model_2", *t["model"][1:]]), "several models"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "one image twice .*plane 0"),
        (lambda t: t.drop(columns="fn"), "lacks the columns fn"),
        (lambda t: t.assign(tp=np.nan), "no image of the table has a truth"),
        (lambda t: t.assign(tp=0, fn=0), "truth of no image has mitochondria"),
        (lambda t: t[t["arm"] != "reference"], "no arm 'reference'.*there are arm 1"),
    ],
)
def test_tables_that_can_not_be_compared_are_refused(change: Any, says: str) -> None:
    with pytest.raises(MitolumeError, match=says):
        compare(change(study(18)), "reference")


def test_unlabelled_images_count_nowhere() -> None:
    images = study(20)
    blank = images.head(3).assign(subset="unlabelled", image="u.tif", plane=[0, 1, 2])
    blank = blank.astype(dict.fromkeys(("tp", "fp", "fn", "tn"), float))
    blank[["tp", "fp", "fn", "tn", "n_unsure"]] = np.nan
    assert compare(pd.concat([blank, images]), "reference") == compare(images, "reference")


def test_notes_of_one_run_that_differ_in_numbers_alone_are_all_told() -> None:
    alike = [Note(f"specimen: 'dish {n}' and 'Dish {n}' differ in case only") for n in (1, 2)]
    assert notes_of_runs([alike] * 3) == alike
    assert notes_of_runs([alike, alike[:1]]) == [alike[0], f"{alike[1]} (in 1 of 2 runs)"]
