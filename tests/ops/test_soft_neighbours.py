"""Soft neighbours, sharpening and smoothed labels against plain numpy, and what must not matter to them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.ops import soft_neighbours as module
from tapetum.ops.soft_neighbours import sharpen, smooth_one_hot, soft_neighbours

pytestmark = pytest.mark.usefixtures("one_thread")


def plain_soft_neighbours(queries, supports, labels, temperature):
    """One query and one support at a time."""
    probabilities = np.zeros((len(queries), labels.shape[1]))
    for i, q in enumerate(queries):
        weights = [np.exp(q @ s / np.linalg.norm(q) / np.linalg.norm(s) / temperature) for s in supports]
        for weight, label in zip(weights, labels, strict=True):
            probabilities[i] += weight / sum(weights) * label
    return probabilities


def random_parts(seed, num_queries, num_supports, num_classes):
    generator = torch.Generator().manual_seed(seed)
    counts = (num_queries, num_supports)
    queries, supports = (torch.randn(n, 6, dtype=torch.float64, generator=generator) for n in counts)
    labels = torch.rand(num_supports, num_classes, dtype=torch.float64, generator=generator).softmax(1)
    return queries, supports, labels


@pytest.fixture
def parts():
    return random_parts(0, 9, 7, 4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    counts=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    temperature=st.sampled_from([0.02, 0.1, 1.0]),
)
def test_equal_to_the_plain_version(seed, counts, temperature):
    parts = random_parts(seed, *counts)
    plain = plain_soft_neighbours(*(part.numpy() for part in parts), temperature)
    np.testing.assert_allclose(soft_neighbours(*parts, temperature).numpy(), plain, rtol=1e-12)


def test_gradients(parts):
    leaves = [part.clone().requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(lambda q, s, y: soft_neighbours(q, s, y, 0.5), leaves)
    assert torch.autograd.gradcheck(lambda p: sharpen(p, 0.25), parts[2].clone().requires_grad_())


def test_lengths_and_order_of_supports_do_not_matter(parts):
    queries, supports, labels = parts
    expected = soft_neighbours(queries, supports, labels, 0.1)
    scale = torch.linspace(0.1, 90, 7, dtype=torch.float64)[:, None]
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    torch.testing.assert_close(soft_neighbours(queries * 7, supports * scale, labels, 0.1), expected)
    torch.testing.assert_close(soft_neighbours(queries, supports[order], labels[order], 0.1), expected)
    torch.testing.assert_close(expected.sum(1), torch.ones(9, dtype=torch.float64))


def test_a_support_given_twice_counts_twice(parts):
    queries, supports, labels = parts
    twice = soft_neighbours(queries, supports.repeat(2, 1), labels.repeat(2, 1), 0.1)
    torch.testing.assert_close(twice, soft_neighbours(queries, supports, labels, 0.1))


def test_vectors_of_zeros_have_no_direction_but_harm_nothing():
    queries = torch.zeros(2, 3, requires_grad=True)
    p = soft_neighbours(queries, torch.eye(3), torch.eye(3), 0.1)
    assert torch.allclose(p, torch.full((2, 3), 1 / 3))
    p.square().sum().backward()
    assert torch.isfinite(queries.grad).all()


def test_labels_may_come_in_another_type(parts):
    queries, supports, labels = parts
    hard = labels.argmax(1)
    as_float = soft_neighbours(queries.float(), supports.float(), torch.eye(4)[hard], 0.1)
    as_double = soft_neighbours(queries.float(), supports.float(), torch.eye(4, dtype=torch.float64)[hard], 0.1)
    assert as_double.dtype == torch.float32
    assert torch.equal(as_float, as_double)


def test_sharpen_by_hand():
    sharper = sharpen(torch.tensor([[0.6, 0.3, 0.1], [1.0, 0.0, 0.0]], dtype=torch.float64), 0.5)
    expected = np.array([[0.36, 0.09, 0.01], [1, 0, 0]]) / [[0.46], [1]]
    np.testing.assert_allclose(sharper.numpy(), expected, rtol=1e-12)
    p = torch.tensor([[0.2, 0.8]])
    assert torch.equal(sharpen(p, 1.0), p)


def test_sharpening_many_even_classes_does_not_underflow():
    assert torch.allclose(sharpen(torch.full((1, 1000), 1e-3), 0.25), torch.full((1, 1000), 1e-3))


def test_smoothed_labels_by_hand():
    rows = smooth_one_hot(torch.tensor([5, 2, 5]), torch.tensor([2, 9, 5]), smoothing=0.3)
    assert torch.allclose(rows, torch.tensor([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))
    assert torch.equal(smooth_one_hot(torch.tensor([1, 0]), torch.arange(2), 0.0), torch.eye(2).flip(0))
    assert smooth_one_hot(torch.tensor([0]), torch.arange(2), 0.1, dtype=torch.float64).dtype == torch.float64


def results(parts, over_ranks=True):
    leaves = [part.clone().requires_grad_() for part in parts]
    probabilities = soft_neighbours(*leaves, 0.1, over_ranks)
    probabilities.square().sum().backward()
    return [probabilities.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("scores", [1, 20, 7 * 4, 7 * 9 - 1])
def test_parts_of_the_queries_change_nothing(parts, scores, monkeypatch):
    """7 supports; 9 queries one at a time, two, four, and eight with a remainder of one."""
    whole = results(parts)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", scores)
    for ours, expected in zip(results(parts), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(soft_neighbours(*parts, 0.1), whole[0], rtol=1e-12, atol=1e-12)


def test_no_similarity_is_kept_of_queries_in_parts(monkeypatch):
    """What the backward pass is given of 40 x 50 similarities: all of them, or none."""
    parts = random_parts(0, 40, 50, 2)
    most = []
    for scores in (40 * 50, 40 * 50 - 1):
        monkeypatch.setattr(module, "SCORES_AT_ONCE", scores)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            soft_neighbours(parts[0].requires_grad_(), *parts[1:], 0.1)
        most.append(max(sizes))
    assert most == [40 * 50, 50 * 6]


def test_parts_are_computed_in_float32_again(monkeypatch):
    """The backward pass runs outside of autocast, or inside of another."""
    queries, supports, labels = (part.float() for part in random_parts(0, 9, 7, 4))
    gradients = []
    for scores in (2**25, 20):
        monkeypatch.setattr(module, "SCORES_AT_ONCE", scores)
        leaf = queries.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = soft_neighbours(leaf, supports, labels, 0.1).square().sum()
            loss.backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
