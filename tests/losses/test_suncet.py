"""SuNCEt against the published code's numbers, gradients included."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.losses.suncet import suncet_loss

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("number", [0, 1])
def test_golden_loss_and_gradient(number):
    with np.load(GOLDEN / f"suncet_loss_{number}.npz") as g:
        z = torch.from_numpy(g["z"]).requires_grad_()
        loss = suncet_loss(z, torch.from_numpy(g["labels"]), float(g["temperature"]))
        loss.backward()
        assert abs(float(loss) - float(g["loss"])) <= 1e-9 * abs(float(g["loss"]))
        assert z.grad is not None
        assert np.abs(z.grad.numpy() - g["grad_z"]).max() <= 1e-9 * np.abs(g["grad_z"]).max()


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
