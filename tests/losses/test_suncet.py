"""SuNCEt against the published code's numbers, gradients included, and against one image at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from tapetum.losses.suncet import suncet_loss

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("number", [0, 1])
def test_golden_loss_and_gradient(number):
    with np.load(GOLDEN / f"suncet_loss_{number}.npz") as g:
        z = torch.from_numpy(g["z"]).requires_grad_()
        loss = suncet_loss(z, torch.from_numpy(g["labels"]), float(g["temperature"]))
        loss.backward()
        assert abs(float(loss.detach()) - float(g["loss"])) <= 1e-9 * abs(float(g["loss"]))
        assert z.grad is not None
        assert np.abs(z.grad.numpy() - g["grad_z"]).max() <= 1e-9 * np.abs(g["grad_z"]).max()


def plainly(projections: torch.Tensor, classes: list[int], temperature: float) -> torch.Tensor:
    unit = normalize(projections, dim=1)
    losses = []
    for i, mine in enumerate(classes):
        weights = {j: (unit[i] @ unit[j] / temperature).exp() for j in range(len(classes)) if j != i}
        alike = sum(weight for j, weight in weights.items() if classes[j] == mine)
        losses.append(-(alike / sum(weights.values())).log())
    return torch.stack(losses).mean()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(2, 4), min_size=1, max_size=4),
    temperature=st.sampled_from([0.1, 0.3, 1.0]),
)
def test_equal_to_the_plain_version_whatever_the_counts_of_classes(seed, counts, temperature):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    classes = classes[torch.randperm(len(classes), generator=generator)]
    z = torch.randn(len(classes), 5, dtype=torch.float64, generator=generator)
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = suncet_loss(ours, torch.eye(len(counts), dtype=torch.float64)[classes], temperature)
    expected = plainly(theirs, classes.tolist(), temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-11)


def test_a_class_of_one_image_stays_finite():
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.eye(3)[[0, 0, 1, 2]]
    loss = suncet_loss(z, labels, 0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_autocast_changes_no_bit():
    z, labels = torch.randn(6, 8), torch.eye(2).repeat(3, 1)
    outside = suncet_loss(z, labels, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(outside, suncet_loss(z, labels, 0.1))
