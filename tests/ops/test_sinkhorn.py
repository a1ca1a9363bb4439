"""Sinkhorn against published numbers, a slow plain version and what the codes must be."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.ops import sinkhorn as module
from tapetum.ops.sinkhorn import sinkhorn, sinkhorn_labels

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parents[1] / "golden"


def plainly(scores: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    """As printed in the paper, without logarithms, in decimals whose exponents do not end."""
    q = [[(Decimal(s) / Decimal(epsilon)).exp() for s in row] for row in scores]
    rows, columns = len(q), len(q[0])
    for _ in range(iterations):
        masses = [sum(row[k] for row in q) for k in range(columns)]
        q = [[row[k] / masses[k] / columns for k in range(columns)] for row in q]
        q = [[value / sum(row) / rows for value in row] for row in q]
    return [[float(value * rows) for value in row] for row in q]


def scores_of(seed: int, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("number", [0, 1])
def test_golden(number):
    with np.load(GOLDEN / f"sinkhorn_{number}.npz") as g:
        ours = sinkhorn(torch.from_numpy(g["scores"]), float(g["epsilon"]), int(g["iterations"]))
        assert np.abs(ours.numpy() - g["assignments"]).max() <= 1e-9 * g["assignments"].max()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 6),
    columns=st.integers(2, 5),
    epsilon=st.sampled_from([0.001, 0.005, 0.01, 0.05, 0.5, 5.0]),
    iterations=st.integers(1, 4),
)
def test_equal_to_the_plain_version(seed, rows, columns, epsilon, iterations):
    scores = scores_of(seed, rows, columns)
    expected = torch.tensor(plainly(scores.tolist(), epsilon, iterations), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_where_exponentials_overflow(dtype):
    scores = scores_of(0, 64, 100).to(dtype)
    scores[0, 0], scores[1] = 1.0, -1.0
    codes = sinkhorn(scores, 0.001)
    assert codes.dtype == torch.float32
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(1), torch.ones(64))


def test_many_iterations_balance_the_prototypes():
    codes = sinkhorn(scores_of(0, 40, 8), 0.05, 200)
    torch.testing.assert_close(codes.sum(0), torch.full((8,), 5.0, dtype=torch.float64))


def test_no_gradient():
    assert not sinkhorn(scores_of(0, 3, 3).requires_grad_(), 0.05).requires_grad


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), part=st.integers(1, 40), iterations=st.integers(1, 4))
def test_labels_of_a_data_set_in_parts(seed, part, iterations):
    """Whatever the size of the parts: as from all scores at once."""
    rows, prototypes = scores_of(seed, 37, 6), scores_of(seed + 1, 5, 6)
    expected = sinkhorn(rows @ prototypes.T, 0.05, iterations).argmax(1)
    before = module.SCORES_AT_ONCE
    try:
        module.SCORES_AT_ONCE = part * len(prototypes)
        assert torch.equal(sinkhorn_labels(rows, prototypes, 0.05, iterations), expected)
    finally:
        module.SCORES_AT_ONCE = before
