"""k-NN votes against a slow plain version."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.evaluation import nearest_neighbours as module
from tapetum.evaluation.nearest_neighbours import nearest_neighbour_votes

pytestmark = pytest.mark.usefixtures("one_thread")


def plainly(queries, neighbours, labels, num_classes, count):
    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    rows = []
    for query in queries:
        ranked = sorted(range(len(neighbours)), key=lambda s: -cosine(query, neighbours[s]))[:count]
        votes = [0.0] * num_classes
        for s in ranked:
            votes[int(labels[s])] += math.exp(cosine(query, neighbours[s]) / 0.07)
        rows.append([vote / sum(votes) for vote in votes])
    return torch.tensor(rows, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 12),
    supports=st.integers(1, 9),
    part=st.integers(1, 40),
    scale=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_equal_to_the_plain_version_in_parts_of_any_size(seed, count, supports, part, scale):
    """Also with fewer labelled images than neighbours asked for, and whatever the length of embeddings."""
    generator = torch.Generator().manual_seed(seed)
    queries = scale * torch.randn(7, 4, dtype=torch.float64, generator=generator)
    neighbours = torch.randn(supports, 4, dtype=torch.float64, generator=generator)
    labels = torch.randint(3, (supports,), generator=generator)
    before = module.SCORES_AT_ONCE
    try:
        module.SCORES_AT_ONCE = part
        found = nearest_neighbour_votes(queries, neighbours, labels, 3, [count, 2])
    finally:
        module.SCORES_AT_ONCE = before
    for number in {count, 2}:
        torch.testing.assert_close(found[number], plainly(queries, neighbours, labels, 3, number))


def test_autocast_changes_no_bit():
    arguments = (torch.randn(9, 8), torch.randn(30, 8), torch.arange(30) % 3, 3)
    outside = nearest_neighbour_votes(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nearest_neighbour_votes(*arguments)
    assert list(outside) == [20, 200]
    assert all(torch.equal(outside[k], inside[k]) for k in outside)
