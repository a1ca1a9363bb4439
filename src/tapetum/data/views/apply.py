"""Multi-crop views, second half: applies drawn parameters to pixels.

Geometry (`crop_resize_flip`) may run in loader workers, on images of any size. Photometry (`distort_colour`) runs on
the compute device, on whole batches. Both return uint8, so little data moves between them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tapetum.data.views import colour
from tapetum.data.views.blur import gaussian_blur
from tapetum.data.views.colour_matrix import jitter_by_matrix
from tapetum.data.views.crop import crop_resize_flip, evaluation_view, row_chunks
from tapetum.data.views.draw import ViewConfig, ViewParameters

_CHUNK_VALUES = 2**20  # distorted at once on a CPU: few calls, but data that stays near its cache

__all__ = ["crop_resize_flip", "distort_colour", "evaluation_view", "normalise"]


@torch.no_grad()
def distort_colour(crops: Tensor, parameters: ViewParameters, config: ViewConfig) -> Tensor:
    """Apply jitter, grayscale, solarize, equalize and blur, in this order, each to the views drawn to have it.

    Args:
        crops: uint8 (N, C, S, S) with C = 3 (RGB) or 1 (grey, on which saturation, hue and grayscale do nothing).
        parameters: N rows, of which only the photometric columns are read.
        config: the kind of view that the parameters were drawn for. Its `colour` chooses between exactly what PIL and
            torchvision's functions on PIL images compute, and a faster approximation of the jitter.

    Returns:
        uint8 (N, C, S, S) on the crops' device. The bits of a row depend only on its crop and parameters.

    Raises:
        ValueError: if the crops are not uint8 with 1 or 3 channels, or there are not as many of them as parameter rows.
    """
    if crops.dtype != torch.uint8 or crops.ndim != 4 or crops.shape[1] not in (1, 3):
        raise ValueError(f"crops are {crops.dtype} {tuple(crops.shape)}: give uint8 (N, 3, S, S) or (N, 1, S, S).")
    if len(crops) != len(parameters):
        raise ValueError(f"parameters have {len(parameters)} rows for {len(crops)} crops: give one for each crop.")
    distorted = torch.empty_like(crops, memory_format=torch.contiguous_format)
    for rows in row_chunks(len(crops), crops.shape[1:].numel(), _CHUNK_VALUES, crops.device):
        pixels = _distort(crops[rows].to(torch.float32), parameters[rows], config)
        distorted[rows] = pixels.to(torch.int32)  # torch is slow to convert float32 to uint8 directly
    return distorted


def _distort(pixels: Tensor, parameters: ViewParameters, config: ViewConfig) -> Tensor:
    """Distort float32 (n, C, S, S) of whole numbers into whole numbers again."""
    if config.colour == "matrix" and pixels.shape[1] == 3:
        pixels = jitter_by_matrix(pixels, parameters, config)
    else:
        pixels = colour.jitter(pixels, parameters, config)
    if pixels.shape[1] == 3:
        pixels = colour.on_rows(pixels, parameters.grayscale, colour.to_grayscale)
    # Whole numbers below the threshold are those below the threshold rounded up, which float32 holds exactly.
    threshold = np.ceil(parameters.solarize_threshold)
    pixels = colour.on_rows(pixels, parameters.solarize, colour.solarize, threshold)
    pixels = colour.on_rows(pixels, parameters.equalize, colour.equalize)
    radius = parameters.blur_radius[parameters.blur]
    return colour.on_rows(pixels, parameters.blur, lambda chosen: gaussian_blur(chosen, radius))


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
    channels = crops.shape[1]
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != channels:
            raise ValueError(f"{name} has {len(numbers)} numbers for {channels} channels: give one per channel.")
    shift, scale = (torch.tensor(tuple(n), device=crops.device).view(-1, 1, 1) for n in (mean, std))
    return crops.to(torch.float32).div_(255).sub_(shift).div_(scale)
