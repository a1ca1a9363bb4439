"""NT-Xent against the published code's numbers, gradients included, and against one pair of views at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from tapetum.losses.simclr import nt_xent_loss

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("number", [0, 1])
def test_golden_loss_and_gradient(number):
    """The published code follows no gradient through keys."""
    with np.load(GOLDEN / f"simclr_loss_{number}.npz") as g:
        z = torch.from_numpy(g["z"]).requires_grad_()
        loss = nt_xent_loss(z, 2, float(g["temperature"]), key_gradient=False)
        loss.backward()
        assert abs(float(loss.detach()) - float(g["loss"])) <= 1e-9 * abs(float(g["loss"]))
        assert np.abs(z.grad.numpy() - g["grad_z"]).max() <= 1e-9 * np.abs(g["grad_z"]).max()


def plainly(projections: torch.Tensor, num_views: int, temperature: float, key_gradient: bool) -> torch.Tensor:
    queries = normalize(projections, dim=1)
    keys = queries if key_gradient else queries.detach()
    count = len(queries) // num_views
    losses = []
    for a in range(len(queries)):
        others = [keys[c] for c in range(len(keys)) if c % count != a % count]
        for b in (b for b in range(len(keys)) if b % count == a % count and b != a):
            positive = (queries[a] @ keys[b] / temperature).exp()
            negatives = sum((queries[a] @ key / temperature).exp() for key in others)
            losses.append(-(positive / (positive + negatives)).log())
    return torch.stack(losses).mean()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    views=st.integers(2, 4),
    images=st.integers(2, 4),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
    key_gradient=st.booleans(),
)
def test_equal_to_the_plain_version(seed, views, images, temperature, key_gradient):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(views * images, 5, dtype=torch.float64, generator=generator)
    results = []
    for loss_of in (nt_xent_loss, plainly):
        leaf = z.clone().requires_grad_()
        loss = loss_of(leaf, views, temperature, key_gradient)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
