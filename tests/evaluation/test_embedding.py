"""What a method's outputs for an image are averaged over."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from tapetum.data.images.stores import ArrayStore
from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, ViewsConfig
from tapetum.engine.runtime import Runtime, RuntimeConfig
from tapetum.evaluation.embedding import Embedder
from tapetum.methods.supervised import Supervised, SupervisedConfig
from tapetum.nn.small_net import SmallNet, SmallNetConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def embedder() -> Embedder:
    torch.manual_seed(0)
    network: nn.Module = SmallNet(SmallNetConfig(widths=(8, 8)))
    method = Supervised(SupervisedConfig(), network, num_classes=3, num_images=6)
    evaluation = EvaluationViewConfig(crop=16)
    large = ViewConfig(size=16, scale=(0.5, 1.0))
    views = ViewsConfig(large=large, mean=(0.5,) * 3, std=(0.25,) * 3, evaluation=evaluation)
    return Embedder(method, views, Runtime(RuntimeConfig(accelerator="cpu", precision="float32")))


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16)).astype(np.uint8)


def test_mirrored_outputs_are_the_mean_over_an_image_and_its_mirror_image(embedder, pixels):
    rows = np.arange(6)
    here = embedder.outputs(ArrayStore(pixels), rows)
    there = embedder.outputs(ArrayStore(np.ascontiguousarray(pixels[..., ::-1])), rows)
    evaluation = replace(embedder.views.evaluation, mirrored=True)
    both = replace(embedder, views=replace(embedder.views, evaluation=evaluation))
    for store in (ArrayStore(pixels), ArrayStore(np.ascontiguousarray(pixels[..., ::-1]))):
        found = both.outputs(store, rows)
        torch.testing.assert_close(found.embeddings, (here.embeddings + there.embeddings) / 2)
        assert here.logits is not None
        assert there.logits is not None
        torch.testing.assert_close(found.logits, (here.logits + there.logits) / 2)
    assert not torch.allclose(here.embeddings, there.embeddings)


def test_outputs_are_the_mean_over_the_scales(embedder, pixels):
    """Each view is resized with antialias, as PyTorch does it."""
    evaluation = replace(embedder.views.evaluation, scales=(0.5, 1.0, 1.25), mirrored=True)
    many = replace(embedder, views=replace(embedder.views, evaluation=evaluation))
    found = many.outputs(ArrayStore(pixels), np.arange(6))
    plain = torch.from_numpy(pixels).float().div(255).sub(0.5).div(0.25)
    views = [interpolate(plain, size=(size, size), mode="bilinear", antialias=True) for size in (8, 16, 20)]
    views = [embedder.compute.place_images(view) for one in views for view in (one, one.flip(3))]
    with torch.no_grad():
        expected = torch.stack([embedder.method.eval().embed(view) for view in views]).mean(dim=0)
    torch.testing.assert_close(found.embeddings, expected)


def test_without_it_an_image_counts_as_it_is(embedder, pixels):
    """The published evaluations: nothing is averaged, to the bit."""
    found = embedder.outputs(ArrayStore(pixels), np.arange(6))
    images = embedder.compute.place_images(torch.from_numpy(pixels).float().div(255).sub(0.5).div(0.25))
    with torch.no_grad():
        assert torch.equal(found.embeddings, embedder.method.eval().embed(images))
