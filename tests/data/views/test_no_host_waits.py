"""Views made on a device never keep the host waiting: run without values, as the steps of methods are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from host_waits import host_waits

from tapetum.data.views.apply import crop_resize_flip, distort_and_normalise, normalise
from tapetum.data.views.draw import draw
from tapetum.ops.randomness import make_keys
from tapetum.recipe.recipe import load_recipe

EVERYTHING = {"solarize": 0.5, "equalize": 0.5, "blur": 0.5, "grayscale": 0.5}


@pytest.mark.parametrize("way", ["exact", "matrix", "fast"])
@pytest.mark.parametrize("recipe", ["paws_cifar10_4000", "swav_imagenet_400ep"])
def test_no_view_waits_for_the_device(recipe: str, way: str) -> None:
    views = load_recipe(recipe).views
    config = dataclasses.replace(views.large, size=16, colour=way, **EVERYTHING)
    pixels = torch.empty(32, 3, 24, 24, dtype=torch.uint8, device="meta")
    parameters = draw(config, make_keys("meta", 0, np.arange(32)), 24, 24)
    distort_and_normalise(pixels[:, :, :16, :16], parameters, config, views.mean, views.std)  # keeps its tables of hues
    with host_waits() as found:
        crops = crop_resize_flip(pixels, parameters, config.size)
        made = distort_and_normalise(crops, parameters, config, views.mean, views.std)
        normalise(crops, views.mean, views.std)
    assert made.shape == (32, 3, 16, 16)
    assert found == set()
