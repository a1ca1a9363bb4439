"""Each colour operation against torchvision's and PIL's on PIL images: the same pixels, not nearly the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter
from torch import Tensor

from tapetum.data.views import blur, colour
from tapetum.ops.randomness import make_keys, uniform

SIZE, COUNT = 24, 150


def uniforms(purpose: str, count: int) -> np.ndarray:
    return uniform(make_keys(purpose), count)


def all_kinds_of_images() -> Tensor:
    """float32 (COUNT, 3, SIZE, SIZE): noise, narrow histograms, nearly grey and saturated colours."""
    values = uniforms("pixels", COUNT * 3 * SIZE * SIZE).reshape(COUNT, 3, SIZE, SIZE)
    low = np.floor(uniforms("low", COUNT) * 200)[:, None, None, None]
    span = 4 + uniforms("span", COUNT)[:, None, None, None] * (255 - low - 4)
    values = low + values * span
    values[::5] = values[::5, :1] + values[::5] / 64  # nearly grey
    values[1::5] = np.where(values[1::5] > 128, 255, values[1::5])
    values[2] = 77  # one colour
    values[3] = 0
    return torch.from_numpy(np.floor(values).clip(0, 255).astype(np.float32))


IMAGES = all_kinds_of_images()


def by_pil(images: Tensor, operation: Callable[[Image.Image, float], Image.Image], numbers: np.ndarray) -> Tensor:
    outputs = []
    for image, number in zip(images, numbers):
        array = image.permute(1, 2, 0).to(torch.uint8).numpy()
        pil = Image.fromarray(array if array.shape[2] == 3 else array[..., 0])
        result = np.array(operation(pil, float(number)))
        outputs.append(torch.from_numpy(result.reshape(array.shape)).permute(2, 0, 1))
    return torch.stack(outputs).float()


def column(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32)).view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("adjust_brightness", 1),
        ("adjust_brightness", 3),
        ("adjust_contrast", 1),
        ("adjust_contrast", 3),
        ("adjust_saturation", 3),
    ],
)
def test_blends(name: str, channels: int) -> None:
    factors = uniforms(name, COUNT) * 2.5
    factors[:3] = 0, 1, 2
    images = IMAGES[:, :channels]
    expected = by_pil(images, getattr(TF, name), factors)
    assert torch.equal(getattr(colour, name)(images, column(factors)), expected)


def test_contrast_of_an_image_whose_sum_float32_cannot_hold() -> None:
    image = torch.full((1, 1, 300, 301), 255.0)
    image[0, 0, 0, ::2] = 254
    assert torch.equal(
        colour.adjust_contrast(image, column(np.array([0.7]))), by_pil(image, TF.adjust_contrast, np.array([0.7]))
    )


@pytest.mark.parametrize("shift", [0.0, 0.1, -0.2, 0.5, -0.5, 0.003])
def test_hue_of_a_dense_grid_of_colours(shift: float) -> None:
    steps = torch.cat([torch.arange(0, 256, 3), torch.tensor([1, 254])]).float()
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).view(1, 3, len(steps), -1)
    expected = by_pil(grid, TF.adjust_hue, np.array([shift]))
    assert torch.equal(colour.adjust_hue(grid, column(np.trunc(np.array([shift]) * 255))), expected)


def test_hue_of_each_image_by_its_own_shift() -> None:
    shifts = uniforms("hue", COUNT) - 0.5
    assert torch.equal(colour.adjust_hue(IMAGES, column(np.trunc(shifts * 255))), by_pil(IMAGES, TF.adjust_hue, shifts))


def test_grayscale() -> None:
    expected = by_pil(IMAGES, lambda image, _: TF.to_grayscale(image, 3), np.zeros(COUNT))
    assert torch.equal(colour.to_grayscale(IMAGES), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_solarize(channels: int) -> None:
    thresholds = uniforms("threshold", COUNT) * 256
    thresholds[:3] = 0, 128, 255.5
    images = IMAGES[:, :channels]
    ours = colour.solarize(images, column(np.ceil(thresholds)))
    assert torch.equal(ours, by_pil(images, TF.solarize, thresholds))


@pytest.mark.parametrize("size", [SIZE, 18, 15])  # 15 * 15 pixels are fewer than 255 levels
@pytest.mark.parametrize("channels", [1, 3])
def test_equalize(size: int, channels: int) -> None:
    images = IMAGES[:, :channels, :size, :size]
    expected = by_pil(images, lambda image, _: TF.equalize(image), np.zeros(COUNT))
    assert torch.equal(colour.equalize(images.contiguous()), expected)


@pytest.mark.parametrize(("size", "largest"), [(SIZE, 2.0), (5, 2.0), (1, 2.0), (SIZE, 12.0)])
def test_gaussian_blur(size: int, largest: float) -> None:
    radii = 0.1 + uniforms("radius", COUNT) * (largest - 0.1)
    radii[:4] = 0.5, 1.0, 2.0, largest  # at 1, weights of 2/3 and 1/6 make halves, where rounding shows
    images = IMAGES[:, :, :size, :size].contiguous()
    expected = by_pil(images, lambda image, radius: image.filter(ImageFilter.GaussianBlur(radius)), radii)
    assert torch.equal(blur.gaussian_blur(images, radii), expected)
    assert torch.equal(blur.box_blurs(images, radii), expected)  # what a GPU computes
