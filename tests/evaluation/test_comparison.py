"""The sign test beside a plain one, and what it says."""

from math import comb

import pytest
import torch

from tapetum.evaluation.comparison import compare


@pytest.mark.parametrize("both, first, second, neither", [(50, 3, 12, 5), (0, 7, 7, 1), (9, 40, 10, 0), (4, 0, 0, 2)])
def test_p_value_is_that_of_the_sign_test(both, first, second, neither):
    right = torch.tensor(
        [[True, True]] * both + [[True, False]] * first + [[False, True]] * second + [[False] * 2] * neither
    )
    found = compare(*right.T)
    differ, fewer = first + second, min(first, second)
    expected = min(1.0, 2 * sum(comb(differ, k) for k in range(fewer + 1)) / 2**differ)
    assert found.p_value == pytest.approx(expected)
    assert (found.count, found.first) == (len(right), pytest.approx(100 * (both + first) / len(right)))
    assert found.verdict == ("as good" if expected >= 0.05 else "better" if second > first else "worse")


def test_ten_thousand_images():
    assert compare(torch.arange(10_000) % 2 == 0, torch.arange(10_000) % 2 == 1).p_value == 1.0
