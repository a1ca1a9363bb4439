"""RoPAWS's targets against the same sums taken step by step, and its loss against PAWS's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from tapetum.losses.paws import SMALLEST_TARGET, mean_entropy_loss
from tapetum.losses.ropaws import propagated_labels, ropaws_loss
from tapetum.ops.soft_neighbours import sharpen, soft_neighbours

pytestmark = pytest.mark.usefixtures("one_thread")


def plainly(queries, supports, labels, tau, prior_tau, ratio):
    """Labels handed on from neighbour to neighbour until nothing changes."""
    queries, supports = normalize(queries, dim=1), normalize(supports, dim=1)
    r = ratio * len(queries) / len(supports)
    rows = torch.zeros(len(queries), labels.shape[1], dtype=torch.float64)
    for _ in range(2000):
        new = []
        for i, query in enumerate(queries):
            others = [j for j in range(len(queries)) if j != i]
            masses = [r * (query @ s / tau).exp() for s in supports] + [
                (query @ queries[j] / tau).exp() for j in others
            ]
            prior = ((max(query @ s for s in supports) - 1) / prior_tau).exp()
            neighbours = [*labels, *(rows[j] for j in others)]
            new.append(prior * sum(m * n for m, n in zip(masses, neighbours)) / sum(masses))
        done = (torch.stack(new) - rows).abs().max() < 1e-13
        rows = torch.stack(new)
        if done:
            break
    known = rows.sum(1)
    return rows + (1 - known)[:, None] / labels.shape[1], known


def inputs(seed: int, images: int = 4, supports: int = 6, classes: int = 3):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(images, 5, dtype=torch.float64, generator=generator)
    anchors = torch.randn(supports, 5, dtype=torch.float64, generator=generator)
    return queries, anchors, torch.eye(classes, dtype=torch.float64)[torch.arange(supports) % classes] * 0.9 + 0.1 / 3


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    tau=st.sampled_from([0.1, 0.5]),
    prior_tau=st.sampled_from([0.5, 3.0]),
    ratio=st.sampled_from([1.0, 5.0]),
)
def test_equal_to_handing_on(seed, tau, prior_tau, ratio):
    arguments = (*inputs(seed), tau, prior_tau, ratio)
    for ours, theirs in zip(propagated_labels(*arguments), plainly(*arguments), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_rows_sum_to_one_and_strangers_are_known_least():
    queries, supports, labels = inputs(0)
    queries = torch.cat([supports[:2], -supports.mean(0, keepdim=True) * 10, queries])
    probabilities, known = propagated_labels(queries, supports, labels, 0.1, 0.1, 5.0)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(7, dtype=torch.float64))
    assert (known[:2] > 0.5).all()
    assert known[2] == known.min()
    assert (known <= 1).all()


def test_float32_is_close_to_float64():
    """Also with a prior of one, where unlabelled images hold each other up."""
    arguments = [torch.randn(64, 16), torch.randn(30, 16), torch.eye(3).repeat(10, 1)]
    ours, _ = propagated_labels(*arguments, 0.1, 1e6, 0.01)
    exact, _ = propagated_labels(*(a.double() for a in arguments), 0.1, 1e6, 0.01)
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("small", [0, 2])
def test_loss_image_by_image(small):
    queries, supports, labels = inputs(1, images=4 * (2 + small))
    supports.requires_grad_()
    first, second = queries[:4], queries[4:8]
    match, mean_entropy, known = ropaws_loss(
        *(queries, supports, labels, torch.cat([second, first]), supports.detach()),
        *(small, 0.1, 0.25, 0.5, 2.0, 5.0),
    )
    propagated = [propagated_labels(view, supports, labels, 0.1, 0.5, 5.0) for view in (first, second)]
    predictions = soft_neighbours(queries, supports, labels, 0.1)
    losses = []
    for image in range(4):
        weight = ((propagated[0][1][image] + propagated[1][1][image]) / 2) ** 2
        pseudo = [sharpen(rows[image : image + 1], 0.25)[0] for rows, _ in propagated]
        for view in range(2 + small):
            target = pseudo[1 - view] if view < 2 else (pseudo[0] + pseudo[1]) / 2
            target = target * (target >= SMALLEST_TARGET)
            losses.append(-weight * (target * predictions[4 * view + image].log()).sum())
    torch.testing.assert_close(match, torch.stack(losses).mean())
    torch.testing.assert_close(mean_entropy, mean_entropy_loss(predictions, 0.25))
    assert known.shape == (4,)
    match.backward()
    assert torch.isfinite(supports.grad).all()


def test_no_probability_is_below_zero_where_an_image_is_a_support():
    """Hard labels and sure neighbours leave rows whose sum is above one by rounding."""
    generator = torch.Generator().manual_seed(0)
    supports = torch.randn(8, 16, generator=generator)
    labels = torch.eye(4)[torch.arange(8) % 4]
    least = 0.0
    for _ in range(40):
        queries = supports[torch.randint(8, (12,), generator=generator)]
        rows, _ = propagated_labels(queries, supports, labels, 0.01, 3.0, 5.0)
        least = min(least, float(rows.min()))
    assert least == 0.0
