"""The sign test beside scipy's, and what it says."""

import pytest
import torch
from scipy.stats import binomtest

from tapetum.evaluation.comparison import compare


@pytest.mark.parametrize("both, first, second, neither", [(50, 3, 12, 5), (0, 7, 7, 1), (9, 40, 10, 0), (4, 0, 0, 2)])
def test_p_value_is_that_of_the_sign_test(both, first, second, neither):
    right = torch.tensor(
        [[True, True]] * both + [[True, False]] * first + [[False, True]] * second + [[False] * 2] * neither
    )
    found = compare(*right.T)
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert found.p_value == pytest.approx(expected)
    assert (found.count, found.first) == (len(right), pytest.approx(100 * (both + first) / len(right)))
    assert found.verdict == ("as good" if expected >= 0.05 else "better" if second > first else "worse")


def test_ten_thousand_images():
    assert compare(torch.arange(10_000) % 2 == 0, torch.arange(10_000) % 2 == 1).p_value == 1.0
