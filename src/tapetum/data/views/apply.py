"""Multi-crop views, second half: applies drawn parameters to pixels.

Geometry (`crop_resize_flip`) may run in loader workers, on images of any size. Photometry (`distort_colour`) runs on
the compute device, on whole batches. Both return uint8, so little data moves between them. On a CPU, colours go through
all their operations in chunks: in the fast mode, a large view at a time.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tapetum.data.views import colour
from tapetum.data.views.blur import LARGEST_FAST_RADIUS, fast_blur_, fast_kernels, gaussian_blur
from tapetum.data.views.colour_matrix import ColourMaps
from tapetum.data.views.crop import crop_resize_flip, evaluation_view, row_chunks
from tapetum.data.views.draw import ViewConfig, ViewParameters

_CHUNK_VALUES = 2**20  # distorted at once on a CPU: few calls, but data that stays near its cache
_SMALL_CHUNK_VALUES = 2**17  # for the fast mode: one view of 224 pixels, which stays in a core's own cache

__all__ = ["crop_resize_flip", "distort_and_normalise", "distort_colour", "evaluation_view", "normalise"]


@torch.no_grad()
def distort_colour(crops: Tensor, parameters: ViewParameters, config: ViewConfig) -> Tensor:
    """Apply jitter, grayscale, solarize, equalize and blur, in this order, each to the views drawn to have it.

    Args:
        crops: uint8 (N, C, S, S) with C = 3 (RGB) or 1 (grey, on which saturation, hue and grayscale do nothing).
        parameters: N rows, of which only the photometric columns are read.
        config: the kind of view that the parameters were drawn for. Its `colour` chooses between exactly what PIL and
            torchvision's functions on PIL images compute, and faster approximations.

    Returns:
        uint8 (N, C, S, S) on the crops' device. The bits of a row depend only on its crop and parameters.

    Raises:
        ValueError: if the crops are not uint8 with 1 or 3 channels, or there are not as many of them as parameter rows.
    """
    _check_crops(crops, parameters)
    distorted = _empty(crops.shape, torch.uint8, crops.device)
    for rows, pixels in _distorted(crops, parameters, config):
        distorted[rows] = pixels.to(torch.int16)  # torch is slow to convert float32 to uint8 directly
    return distorted


@torch.no_grad()
def distort_and_normalise(
    crops: Tensor,
    parameters: ViewParameters,
    config: ViewConfig,
    mean: Sequence[float],
    std: Sequence[float],
    channels_last: bool = False,
) -> Tensor:
    """Do `distort_colour` and then `normalise`, with the same bits, but without the 8-bit pixels between them."""
    _check_crops(crops, parameters)
    shift, scale = _per_channel(mean, std, crops)
    normalised = _empty(crops.shape, torch.float32, crops.device, channels_last)
    for rows, pixels in _distorted(crops, parameters, config):
        normalised[rows] = pixels.div_(255).sub_(shift).div_(scale)
    return normalised


def _check_crops(crops: Tensor, parameters: ViewParameters) -> None:
    if crops.dtype != torch.uint8 or crops.ndim != 4 or crops.shape[1] not in (1, 3):
        raise ValueError(f"crops are {crops.dtype} {tuple(crops.shape)}: give uint8 (N, 3, S, S) or (N, 1, S, S).")
    if len(crops) != len(parameters):
        raise ValueError(f"parameters have {len(parameters)} rows for {len(crops)} crops: give one for each crop.")


def _distorted(crops: Tensor, parameters: ViewParameters, config: ViewConfig) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows of the crops and their distorted pixels, float32 whole numbers that the caller may change."""
    by_matrix = config.colour != "exact" and crops.shape[1] == 3
    maps = ColourMaps(parameters, config, crops.device) if by_matrix else None
    fast = config.colour == "fast" and crops.device.type == "cpu" and config.blur_radius[1] <= LARGEST_FAST_RADIUS
    kernels = fast_kernels(parameters.blur_radius) if fast else None
    most = _SMALL_CHUNK_VALUES if fast else _CHUNK_VALUES
    for rows in row_chunks(len(crops), crops.shape[1:].numel(), most, crops.device):
        pixels = crops[rows].to(torch.float32, memory_format=torch.contiguous_format)
        here = parameters[rows]
        pixels = maps.apply(pixels, rows) if maps else colour.jitter(pixels, here, config)
        pixels = _after_jitter(pixels, here)
        if kernels is not None:
            pixels = fast_blur_(pixels, here.blur, kernels[rows])
        else:
            radius = here.blur_radius[here.blur]
            pixels = colour.on_rows(pixels, here.blur, partial(gaussian_blur, radius=radius))
        yield rows, pixels


def _after_jitter(pixels: Tensor, parameters: ViewParameters) -> Tensor:
    """Distort float32 (n, C, S, S) of whole numbers into whole numbers again, but for jitter and blur."""
    if pixels.shape[1] == 3:
        pixels = colour.on_rows(pixels, parameters.grayscale, colour.to_grayscale)
    # Whole numbers below the threshold are those below the threshold rounded up, which float32 holds exactly.
    threshold = np.ceil(parameters.solarize_threshold)
    pixels = colour.on_rows(pixels, parameters.solarize, colour.solarize, threshold)
    return colour.on_rows(pixels, parameters.equalize, colour.equalize)


def normalise(crops: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Compute (crops / 255 - mean) / std, equal to torchvision's `ToTensor` and `Normalize` to the bit.

    Args:
        crops: uint8 (N, C, H, W).
        mean, std: one number per channel, for values in [0, 1].

    Returns:
        float32 (N, C, H, W).

    Raises:
        ValueError: if mean or std do not have one number per channel.
    """
    shift, scale = _per_channel(mean, std, crops)
    return crops.to(torch.float32).div_(255).sub_(shift).div_(scale)


def _per_channel(mean: Sequence[float], std: Sequence[float], crops: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation as (C, 1, 1) tensors on the crops' device."""
    channels = crops.shape[1]
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != channels:
            raise ValueError(f"{name} has {len(numbers)} numbers for {channels} channels: give one per channel.")
    shift, scale = (torch.tensor(tuple(n)).to(crops.device, non_blocking=True).view(-1, 1, 1) for n in (mean, std))
    return shift, scale


def _empty(shape: torch.Size, dtype: torch.dtype, device: torch.device, channels_last: bool = False) -> Tensor:
    """An uninitialised (N, C, H, W).

    On a CPU it is numpy's, which asks the system for large pages. A batch of photographs' views takes so many small
    ones that making them costs more than the arithmetic on their pixels.
    """
    n, channels, height, width = shape
    sizes = (n, height, width, channels) if channels_last else tuple(shape)
    if device.type == "cpu":
        made = torch.from_numpy(np.empty(sizes, dtype=np.uint8 if dtype == torch.uint8 else np.float32))
    else:
        made = torch.empty(sizes, dtype=dtype, device=device)
    return made.permute(0, 3, 1, 2) if channels_last else made
