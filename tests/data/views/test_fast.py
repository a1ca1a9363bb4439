"""The fast mode: how far its values are from the exact ones, operation by operation, and that its bits are fixed."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from tapetum.data.views import apply, blur, colour_matrix
from tapetum.data.views.apply import distort_and_normalise, distort_colour, normalise
from tapetum.data.views.colour_matrix import ColourMaps
from tapetum.data.views.crop import crop_resize_flip, evaluation_view
from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, ViewParameters, draw
from tapetum.ops.precision import widest_float
from tapetum.ops.randomness import make_keys

# As PAWS and SwAV distort photographs.
COLOURS = {
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "grayscale": 0.2,
    "blur": 0.5,
}
SMALL = ViewConfig(size=48, scale=(0.05, 0.3), **COLOURS)
LARGE = ViewConfig(size=112, scale=(0.14, 1.0), **COLOURS)


@lru_cache
def photographs(count: int, height: int, width: int) -> Tensor:
    """uint8 (count, 3, height, width): pieces of the two photographs that come with scikit-learn."""
    pieces = []
    for i in range(count):
        pixels = load_photographs()[i % 2]
        top, left = 37 * i % (pixels.shape[0] - height), 53 * i % (pixels.shape[1] - width)
        pieces.append(pixels[top : top + height, left : left + width])
    return torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2).contiguous()


@lru_cache
def load_photographs() -> list[np.ndarray]:
    return load_sample_images().images


def files(count: int = 24) -> list[Tensor]:
    """Photographs as `FileStore` reads them: of two sizes, the channels of a pixel side by side."""
    sizes = ((150, 200), (170, 130))
    images = [photographs(count // 2, *size).contiguous(memory_format=torch.channels_last) for size in sizes]
    return [image for alike in images for image in alike]


def drawn(config: ViewConfig, images: list[Tensor]) -> ViewParameters:
    heights, widths = (np.array([image.shape[axis] for image in images]) for axis in (1, 2))
    return draw(config, make_keys("fast", config.size, np.arange(len(images))), heights, widths)


def difference(ours: Tensor, exact: Tensor) -> Tensor:
    assert ours.shape == exact.shape
    return (ours.float() - exact.float()).abs()


@pytest.mark.parametrize("config", [SMALL, LARGE])
def test_crops_differ_by_two_levels_at_most(config: ViewConfig) -> None:
    images = files()
    parameters = drawn(config, images)
    assert 0 < parameters.flip.sum() < len(images)
    exact = crop_resize_flip(images, parameters, config.size)
    fast = crop_resize_flip(images, parameters, config.size, fast=True)
    found = difference(fast, exact)
    assert found.max() <= 2
    assert 0 < found.mean() < 0.08
    assert torch.equal(fast, crop_resize_flip([i.contiguous() for i in images], parameters, config.size, fast=True))
    for i in (0, 23):
        assert torch.equal(fast[i], crop_resize_flip([images[i]], parameters[i], config.size, fast=True)[0])


def test_exact_crops_do_not_depend_on_how_an_image_lies_in_memory() -> None:
    images, views = files(), EvaluationViewConfig(crop=90, resize=100)
    planes = [image.contiguous() for image in images]
    parameters = drawn(SMALL, images)
    assert torch.equal(crop_resize_flip(images, parameters, 48), crop_resize_flip(planes, parameters, 48))
    assert torch.equal(evaluation_view(images, views), evaluation_view(planes, views))
    assert evaluation_view(images, views).is_contiguous()


@pytest.mark.parametrize(("size", "least", "most"), [(96, 0.1, 2.0), (31, 0.1, 2.0), (64, 2.0, 4.0)])
def test_blur_differs_by_a_few_levels_inside(size: int, least: float, most: float) -> None:
    """At the border more: PIL repeats the edge in each of three passes, the fast blur once."""
    images, radius = photographs(60, size, size).float(), np.linspace(least, most, 60)
    exact = blur.gaussian_blur(images, radius)
    fast = blur.fast_blur_(images.clone(), np.ones(60, dtype=np.bool_), blur.fast_kernels(radius))
    found = difference(fast, exact)
    assert found.mean() < 0.6
    assert (fast - exact).mean().abs() < 0.05
    assert difference(images, exact).mean() > 5 * found.mean()
    inside = found[..., 7:-7, 7:-7]
    assert inside.max() <= 4
    assert inside.mean() < 0.5


def test_a_blur_for_which_256ths_are_too_coarse_is_exact() -> None:
    crops = photographs(20, 48, 48)
    wide = ViewConfig(size=48, scale=(1, 1), jitter=0, blur=1.0, blur_radius=(0.1, 9.0), colour="fast")
    parameters = drawn(wide, list(crops))
    exact = dataclasses.replace(wide, colour="exact")
    assert torch.equal(distort_colour(crops, parameters, wide), distort_colour(crops, parameters, exact))


def test_kernels_do_not_depend_on_each_other() -> None:
    radius = np.linspace(0.1, 4.0, 50)
    together = blur.fast_kernels(radius)
    for here, row in zip(radius, together):
        alone = blur.fast_kernels(np.array([here]))[0]
        assert (alone == row[: len(alone)]).all()
        assert not row[len(alone) :].any()


def test_blur_leaves_other_images_and_flat_ones_alone() -> None:
    images = photographs(4, 30, 20).float().clone()
    images[0], images[1] = 255, 0
    chosen, kernels = np.array([True, True, True, False]), blur.fast_kernels(np.full(4, 1.9))
    assert (kernels[:, 0] + 2 * kernels[:, 1:].sum(axis=1) == 256).all()
    blurred = blur.fast_blur_(images.clone(), chosen, kernels)
    same = (blurred == images).flatten(1).all(dim=1)
    assert same.tolist() == [True, True, False, True]


def test_a_map_of_colours_is_exact_in_float32() -> None:
    """So that matrix products, in any order of sums, and products value by value give the same bits."""
    config = dataclasses.replace(LARGE, jitter=1.0)
    images = photographs(64, 24, 24)
    maps = ColourMaps(drawn(config, list(images)), config, torch.device("cpu"))
    exact = maps.pixel.double() @ images.flatten(2).double()
    for order in ((0, 1, 2), (2, 0, 1)):
        total = torch.zeros(64, 3, 24, 24)
        for channel in order:
            total += maps.pixel[:, :, channel, None, None] * images[:, channel : channel + 1]
        assert torch.equal(total.flatten(2).double(), exact)
    together = maps.apply(images.float(), slice(None))
    for i in (0, 40):
        assert torch.equal(together[i : i + 1], maps.apply(images[i : i + 1].float(), slice(i, i + 1)))


def test_a_map_of_colours_needs_no_float64_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(LARGE, jitter=1.0)
    images = photographs(8, 24, 24)
    wide = ColourMaps(drawn(config, list(images)), config, torch.device("cpu"))
    monkeypatch.setattr(colour_matrix, "widest_float", lambda device: widest_float(torch.device("mps")))
    narrow = ColourMaps(drawn(config, list(images)), config, torch.device("cpu"))
    assert {narrow.pixel.dtype, narrow.mean.dtype, narrow.rounder.dtype} == {torch.float32}
    difference = (narrow.apply(images.float(), slice(None)) - wide.apply(images.float(), slice(None))).abs()
    assert difference.max() <= 1
    assert difference.mean() < 0.001


@pytest.mark.parametrize("config", [SMALL, LARGE])
def test_views_have_the_statistics_of_exact_ones(config: ViewConfig) -> None:
    images = files(120)
    views = []
    for colour in ("exact", "fast"):
        kind = dataclasses.replace(config, colour=colour)
        parameters = drawn(kind, images)
        crops = crop_resize_flip(images, parameters, kind.size, fast=colour == "fast")
        views.append(distort_colour(crops, parameters, kind).float())
    exact, fast = views
    assert (fast.mean(dim=(0, 2, 3)) - exact.mean(dim=(0, 2, 3))).abs().max() < 6
    assert (fast.std(dim=(0, 2, 3)) - exact.std(dim=(0, 2, 3))).abs().max() < 6
    found = difference(fast, exact).flatten(1).mean(dim=1)
    assert found.mean() < 10
    plain = ~parameters.jitter
    assert plain.any()
    assert found[torch.from_numpy(plain)].max() < 1  # only jitter changes what one can see


@pytest.mark.parametrize("colours", ["exact", "matrix", "fast"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last])
def test_normalised_at_once_they_have_the_bits_of_both_steps(
    colours: str, channels_last: bool, lies: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chunk in ("_SMALL_CHUNK_VALUES", "_CHUNK_VALUES"):
        monkeypatch.setattr(apply, chunk, 3 * 3 * 40 * 40)
    crops = photographs(50, 40, 40).contiguous(memory_format=lies)
    config = dataclasses.replace(SMALL, size=40, solarize=0.3, equalize=0.3, colour=colours)
    parameters = draw(config, make_keys(1, "view", np.arange(50)), np.full(50, 60), np.full(50, 60))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    before = crops.clone()
    ours = distort_and_normalise(crops, parameters, config, mean, std, channels_last)
    assert torch.equal(ours, normalise(distort_colour(crops, parameters, config), mean, std))
    assert torch.equal(crops, before)
    assert ours.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
