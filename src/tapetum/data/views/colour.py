"""Colour operations on batches, each image with its own parameters, as PIL and torchvision compute them.

Every function takes and returns float32 tensors (n, C, H, W) that hold whole numbers from 0 to 255, and rounds between
operations as PIL does. Sums over pixels add whole numbers small enough to be exact; everything else works pixel by
pixel. So an image gets the same bits alone, in any batch and with any number of threads.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.views.draw import ViewConfig, ViewParameters

_HUE_STRIDE = 512  # in the hue table: leaves room for the signed difference of two channels
_SECTOR_STRIDE = 256 * _HUE_STRIDE

Operation = Callable[..., Tensor]
Numbers = npt.NDArray[np.generic]


def on_rows(images: Tensor, chosen: npt.NDArray[np.bool_], operation: Operation, *columns: Numbers) -> Tensor:
    """Return `images` with the operation applied to the chosen rows; works in place if only some rows are chosen.

    `columns` are numpy arrays of one number per row; the operation gets the chosen ones as float32 (n, 1, 1, 1).
    """
    rows = np.flatnonzero(chosen)
    if len(rows) == 0:
        return images
    drawn = (torch.from_numpy(column[rows].astype(np.float32)) for column in columns)
    numbers = [column.to(images.device, non_blocking=True).view(-1, 1, 1, 1) for column in drawn]
    if len(rows) == len(images):
        return operation(images, *numbers)
    index = torch.from_numpy(rows).to(images.device, non_blocking=True)
    return images.index_copy_(0, index, operation(images.index_select(0, index), *numbers))


def jitter(images: Tensor, parameters: ViewParameters, config: ViewConfig) -> Tensor:
    """Change brightness, contrast, saturation and hue, in the order drawn for each image.

    An operation whose configured strength is 0 does not run: hue would round values even with a shift of 0.
    """
    operations: list[tuple[int, Operation, Numbers]] = []
    if config.brightness > 0:
        operations.append((0, adjust_brightness, parameters.brightness))
    if config.contrast > 0:
        operations.append((1, adjust_contrast, parameters.contrast))
    if config.saturation > 0 and images.shape[1] == 3:
        operations.append((2, adjust_saturation, parameters.saturation))
    if config.hue > 0 and images.shape[1] == 3:
        operations.append((3, adjust_hue, np.trunc(parameters.hue * 255)))
    for turn in range(4):
        for number, operation, column in operations:
            chosen = parameters.jitter & (parameters.order[:, turn] == number)
            images = on_rows(images, chosen, operation, column)
    return images


def luma(images: Tensor) -> Tensor:
    """Return ITU-R 601 brightness (n, 1, H, W) of RGB images in PIL's 16-bit fixed point; grey images as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    # At most 255 * 65536 + 32768 < 2**24: float32 holds every partial sum exactly.
    total = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768)
    return total.mul_(2.0**-16).floor_()


def _blend(towards: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """PIL's `Image.blend`: towards + factor * (images - towards), clipped, then rounded down."""
    return (images - towards).mul_(factor).add_(towards).clamp_(0, 255).floor_()


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; factor 1 changes nothing."""
    return (images * factor).clamp_(0, 255).floor_()


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean luma, which is rounded to a whole number."""
    grey = luma(images)
    pixels = grey.shape[2] * grey.shape[3]
    # A row's sum is exact in float32; the sum of rows may not be.
    total = grey.sum(dim=3).to(torch.int64).sum(dim=2).view(-1, 1, 1, 1)
    mean = torch.div(2 * total + pixels, 2 * pixels, rounding_mode="floor").to(torch.float32)
    return _blend(mean, images, factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's luma."""
    return _blend(luma(images), images, factor)


def to_grayscale(images: Tensor) -> Tensor:
    """Replace every channel by the luma."""
    return luma(images).expand_as(images).clone()


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values at or above the threshold."""
    return torch.where(images < threshold, images, 255 - images)


def equalize(images: Tensor) -> Tensor:
    """Flatten each channel's histogram as far as whole steps allow, as PIL's `ImageOps.equalize` does."""
    n, channels, height, width = images.shape
    values = images.to(torch.int64).view(n * channels, height * width)
    counts = torch.zeros(n * channels, 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(1, values, torch.ones_like(values))  # unlike `bincount`, it need not know the largest value
    brightest = counts.gather(1, values.amax(dim=1, keepdim=True))
    step = torch.div(height * width - brightest, 255, rounding_mode="floor")
    below = counts.cumsum(dim=1) - counts
    table = torch.div(below + step // 2, step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.to(torch.float32).gather(1, values).view_as(images)


@lru_cache(maxsize=8)
def _hue_table(device: torch.device) -> Tensor:
    """Tabulate PIL's hue (0..255) over (which channel is largest, largest - smallest, difference of the two others).

    The difference is signed. float32 and float64 are mixed as in PIL, so that hues round to the same whole number.
    """
    spread = np.arange(256, dtype=np.float32)[:, None]
    difference = np.arange(-255, _HUE_STRIDE - 255, dtype=np.float32)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        # One of PIL's two fractions is always 1, since one of the two other channels is the smallest.
        ahead = np.where(difference >= 0, np.float32(1), (spread + difference) / spread)
        behind = np.where(difference >= 0, (spread - difference) / spread, np.float32(1))
        sectors = []
        for base in (0.0, 2.0, 4.0):
            angle = (ahead - behind) if base == 0 else (base + ahead.astype(np.float64) - behind)
            turn = np.fmod(angle.astype(np.float32).astype(np.float64) / 6.0 + 1.0, 1.0).astype(np.float32)
            sectors.append(np.floor(turn.astype(np.float64) * 255.0))
    table = np.stack(sectors)
    table[:, 0] = 0  # grey has no hue
    return torch.from_numpy(np.nan_to_num(table).clip(0, 255).astype(np.uint8).ravel()).to(device)


@lru_cache(maxsize=8)
def _saturation_table(device: torch.device) -> Tensor:
    """Tabulate PIL's saturation (0..255), as a fraction of 1, over (largest channel, largest - smallest)."""
    largest = np.arange(256, dtype=np.float32)[:, None]
    spread = np.minimum(np.arange(256, dtype=np.float32)[None, :], largest)
    fraction = (spread / np.maximum(largest, 1)).astype(np.float64)
    table = np.floor(fraction * 255.0).astype(np.float32) / np.float32(255)
    return torch.from_numpy(table.ravel()).to(device)


def adjust_hue(images: Tensor, steps: Tensor) -> Tensor:
    """Turn the hue as torchvision's `adjust_hue` on PIL images: to PIL's 8-bit HSV, hue + steps, and back.

    `steps` are whole 255ths of a turn (torchvision truncates its factor * 255 towards zero).
    """
    red, green, blue = images.unbind(dim=1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    spread = largest - torch.minimum(torch.minimum(red, green), blue)
    entry = torch.where(
        red == largest,
        green - blue,
        torch.where(green == largest, blue - red + _SECTOR_STRIDE, red - green + 2 * _SECTOR_STRIDE),
    )
    entry.add_(spread, alpha=_HUE_STRIDE).add_(255)
    hue = _hue_table(images.device).index_select(0, entry.to(torch.int32).flatten()).view_as(largest)
    # uint8 arithmetic wraps at 256, as in torchvision, although PIL's circle has 255 steps.
    wrapped = steps.to(torch.int32).bitwise_and(255).to(torch.uint8).view(-1, 1, 1)
    angle = (hue + wrapped).to(torch.float32).mul_(6).div_(255)
    index = largest.mul(256).add_(spread).to(torch.int32).flatten()
    saturation = _saturation_table(images.device).index_select(0, index).view_as(largest)
    depth = saturation.mul_(largest)
    turned = torch.empty_like(images)
    # Each channel loses `depth` in proportion to its distance from its own third of the circle.
    for channel, lost in enumerate((2 - (angle - 3).abs_(), (angle - 2).abs_().sub_(1), (angle - 4).abs_().sub_(1))):
        torch.sub(largest, lost.clamp_(0, 1).mul_(depth), out=turned[:, channel])
    return turned.add_(0.5).floor_()
