"""k-means against published numbers and a slow plain version."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from tapetum.ops import kmeans as module
from tapetum.ops.kmeans import kmeans
from tapetum.ops.randomness import make_keys, uniform

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_golden(number):
    """To the end; stopped before the end; with empty clusters."""
    with np.load(GOLDEN / f"deepcluster_kmeans_{number}.npz") as g:
        for head in range(len(g["num_prototypes"])):
            rows = torch.from_numpy(g["memory"][head % 2])
            centroids, labels = kmeans(rows, rows[g[f"initial_rows_{head}"]], int(g["iterations"]))
            expected = g[f"prototypes_{head}"]
            assert np.abs(centroids.numpy() - expected).max() <= 1e-9 * np.abs(expected).max()
            assert np.array_equal(labels.numpy(), g["assignments"][head, g["sample_index"]])


def plainly(rows: torch.Tensor, centroids: list[torch.Tensor], iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    def nearest(row: torch.Tensor) -> int:
        return max(range(len(centroids)), key=lambda k: (float(row @ centroids[k]), -k))

    for _ in range(iterations):
        labels = [nearest(row) for row in rows]
        for k in range(len(centroids)):
            members = [row for row, label in zip(rows, labels) if label == k]
            if members:
                centroids[k] = normalize(sum(members) / len(members), dim=0)
    return torch.stack(centroids), torch.tensor([nearest(row) for row in rows])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(6, 30),
    clusters=st.integers(2, 6),
    iterations=st.integers(1, 5),
    part=st.integers(1, 30),
)
def test_equal_to_the_plain_version_in_parts_of_any_size(seed, count, clusters, iterations, part):
    generator = torch.Generator().manual_seed(seed)
    rows = normalize(torch.randn(count, 4, dtype=torch.float64, generator=generator), dim=1)
    expected = plainly(rows, list(rows[:clusters]), iterations)
    before = module.SCORES_AT_ONCE
    try:
        module.SCORES_AT_ONCE = part * clusters
        found = kmeans(rows, rows[:clusters], iterations)
    finally:
        module.SCORES_AT_ONCE = before
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-11)
    assert torch.equal(found[1], expected[1])


def test_an_empty_cluster_stays():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    centroids, labels = kmeans(rows, torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]]), 3)
    torch.testing.assert_close(centroids[2], torch.tensor([0.0, -1.0]))
    assert labels.tolist() == [0, 0, 1]


def test_spread_rows_come_from_every_group():
    """Of eight tight groups of unequal size, where drawing evenly would mostly leave the small ones out."""
    axes = torch.eye(8, dtype=torch.float64)
    sizes = [400, 200, 100, 50, 20, 10, 5, 2]
    groups = torch.repeat_interleave(torch.arange(8), torch.tensor(sizes))
    noise = torch.from_numpy(uniform(make_keys(0, "noise"), 8 * len(groups)).reshape(-1, 8))
    rows = torch.nn.functional.normalize(axes[groups] + 0.01 * noise, dim=1)
    for seed in range(20):
        drawn = module.spread_rows(rows, 8, make_keys(seed, "start"))
        assert sorted(groups[drawn].tolist()) == list(range(8))
        assert drawn.tolist() == module.spread_rows(rows, 8, make_keys(seed, "start")).tolist()


def test_spread_rows_of_equal_rows():
    assert len(module.spread_rows(torch.ones(5, 1), 3, make_keys(0))) == 3
