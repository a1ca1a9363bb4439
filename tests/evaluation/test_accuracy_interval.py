"""Wilson's interval: published values, its ends, and how often it holds the truth."""

import math

import numpy as np
import pytest

from tapetum.ops.intervals import wilson


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (Statistics in Medicine, 1998), table I.
    [(81, 263, (25.53, 36.62)), (15, 148, (6.24, 16.05)), (0, 20, (0.0, 16.11)), (1, 29, (0.61, 17.18))],
)
def test_published_values(right, count, interval):
    assert wilson(right, count) == pytest.approx(interval, abs=0.006)


def test_the_ends_solve_the_score_equation():
    for end in wilson(37, 50):
        share = end / 100
        assert abs(37 / 50 - share) == pytest.approx(1.959964 * math.sqrt(share * (1 - share) / 50))


def test_all_and_none_stay_within_bounds_and_keep_some_width():
    low, high = wilson(5, 5)
    assert 50 < low < 60
    assert high == 100
    assert wilson(0, 5) == pytest.approx((100 - high, 100 - low))


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_it_holds_the_truth_about_95_times_of_100(share):
    drawn = np.random.default_rng(0).binomial(60, share, 2000)
    held = [low <= 100 * share <= high for low, high in (wilson(int(right), 60) for right in drawn)]
    assert 0.925 < np.mean(held) < 0.98


@pytest.mark.parametrize(("right", "count"), [(1, 0), (3, 2), (-1, 2)])
def test_impossible_counts(right, count):
    with pytest.raises(ValueError, match=f"{right} of {count} are right"):
        wilson(right, count)
