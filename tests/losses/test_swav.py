"""SwAV's loss against the published code's numbers (codes, loss, gradients, queue) and against single images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.losses.swav import swapped_prediction_loss, swav_codes

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parents[1] / "golden"


def assert_golden(ours: torch.Tensor, golden: np.ndarray) -> None:
    assert np.abs(ours.detach().numpy() - golden).max() <= 1e-9 * np.abs(golden).max()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_golden_codes_loss_and_gradients(number):
    """Without queue, with a full one, with one that is not full and therefore not used."""
    with np.load(GOLDEN / f"swav_loss_{number}.npz") as g:
        embeddings = torch.from_numpy(g["embeddings"]).requires_grad_()
        prototypes = torch.from_numpy(g["prototypes"]).requires_grad_()
        queue, views = torch.from_numpy(g["queue_before"]), g["crops_for_assign"].tolist()
        if number != 1:
            queue = torch.zeros(len(views), 0, prototypes.shape[1], dtype=torch.float64)
        scores = (embeddings @ prototypes.T).unflatten(0, (int(g["num_crops"].sum()), -1))
        epsilon, iterations = float(g["epsilon"]), int(g["iterations"])
        codes = torch.stack(
            [swav_codes(scores[v], q @ prototypes.T, epsilon, iterations) for v, q in zip(views, queue)]
        )
        loss = swapped_prediction_loss(scores, codes, views, float(g["temperature"]))
        loss.backward()
        assert_golden(codes, g["assignments"])
        assert_golden(loss, g["loss"])
        assert_golden(embeddings.grad, g["grad_embeddings"])
        assert_golden(prototypes.grad, g["grad_prototypes"])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(2, 6)),
    data=st.data(),
    temperature=st.sampled_from([0.1, 0.3]),
)
def test_any_number_of_assigning_views_one_image_at_a_time(seed, shape, data, temperature):
    num_views, num_images, _ = shape
    views = data.draw(st.permutations(range(num_views)))[: data.draw(st.integers(1, num_views))]
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()
    codes = torch.rand(len(views), *shape[1:], generator=generator, dtype=torch.float64).softmax(2)
    losses = []
    for code, assigning in zip(codes, views):
        for image in range(num_images):
            for view in set(range(num_views)) - {assigning}:
                prediction = (scores[view, image] / temperature).softmax(0)
                losses.append(-(code[image] * prediction.log()).sum())
    ours, plain = swapped_prediction_loss(scores, codes, views, temperature), torch.stack(losses).mean()
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-11)
    gradients = [torch.autograd.grad(loss, scores)[0] for loss in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-11)


def test_hard_codes_are_one_hot_at_the_largest_entry():
    scores, queued = torch.randn(6, 4), torch.randn(3, 4)
    soft, hard = (swav_codes(scores, queued, 0.5, 3, hard=hard) for hard in (False, True))
    assert torch.equal(hard.argmax(1), soft.argmax(1))
    assert sorted(set(hard.flatten().tolist())) == [0.0, 1.0]
    assert torch.equal(hard.sum(1), torch.ones(6))
