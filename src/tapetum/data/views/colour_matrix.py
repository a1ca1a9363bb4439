"""The colour jitter as one affine map per image: a fast, approximate alternative to `colour.jitter`.

Brightness, saturation and hue are 3x3 matrices on (red, green, blue). Contrast adds a multiple of the image's mean
luma, which is linear in the image's mean colour m. So the four operations, in any order, make one map x -> A x + B m.
It differs from the exact jitter in two ways: nothing is rounded or clipped between operations, and PIL's hue, a turn
in HSV, becomes a turn about the grey axis, which keeps luma.
"""

import numpy as np
import torch
from torch import Tensor

from tapetum.data.views.draw import Floats, ViewConfig, ViewParameters
from tapetum.ops.precision import widest_float

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def _multiply(left: Floats, right: Floats) -> Floats:
    """Multiply (N, 3, 3) matrices, written out so that no row's bits depend on the other rows."""
    product: Floats = left[:, :, 0, None] * right[:, None, 0, :]
    for k in (1, 2):
        product = product + left[:, :, k, None] * right[:, None, k, :]
    return product


def jitter_matrices(parameters: ViewParameters, config: ViewConfig) -> tuple[Floats, Floats]:
    """Return (A, B), (N, 3, 3) each, of the jitter x -> A x + B m, where m is the image's mean colour."""
    count = len(parameters)
    identity = np.broadcast_to(np.eye(3), (count, 3, 3))
    grey = np.broadcast_to(_LUMA, (count, 3, 3))
    angle = -2 * np.pi * parameters.hue  # red to green to blue is a negative turn in the IQ plane
    turn = np.zeros((count, 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 2, 1] = np.sin(angle)
    turn[:, 1, 2] = -turn[:, 2, 1]
    turn = _multiply(_multiply(np.broadcast_to(_FROM_YIQ, turn.shape), turn), np.broadcast_to(_TO_YIQ, turn.shape))
    brightness, contrast, saturation = (
        c[:, None, None] for c in (parameters.brightness, parameters.contrast, parameters.saturation)
    )
    colour_maps = {0: brightness * identity, 2: saturation * identity + (1 - saturation) * grey, 3: turn}
    strengths = (config.brightness, config.contrast, config.saturation, config.hue)
    pixel, mean = identity, np.zeros((count, 3, 3))
    for position in range(4):
        for number in (n for n in range(4) if strengths[n] > 0):
            here = (parameters.order[:, position] == number)[:, None, None]
            if number == 1:
                shifted = contrast * mean + (1 - contrast) * _multiply(grey, pixel + mean)
                pixel, mean = np.where(here, contrast * pixel, pixel), np.where(here, shifted, mean)
            else:
                pixel = np.where(here, _multiply(colour_maps[number], pixel), pixel)
                mean = np.where(here, _multiply(colour_maps[number], mean), mean)
    return pixel, mean


class ColourMaps:
    """The jitter of N views as maps x -> A x + B m + 0.5, without change for views that are not jittered.

    A is rounded to multiples of a power of two for each view, so small that pixels weighted by A add up to multiples
    that float32 holds exactly, and so is B m + 0.5. Hence any product of matrices gives the same bits.
    """

    def __init__(self, parameters: ViewParameters, config: ViewConfig, device: torch.device) -> None:
        pixel, mean = jitter_matrices(parameters, config)
        still = ~parameters.jitter[:, None, None]
        pixel, mean = np.where(still, np.eye(3), pixel), np.where(still, 0.0, mean)
        largest = 255 * (np.abs(pixel) + np.abs(mean)).sum(axis=2).max(axis=1) + 2
        units = 2.0 ** (np.ceil(np.log2(largest)) - 24)[:, None, None]
        self.pixel = torch.from_numpy((np.rint(pixel / units) * units).astype(np.float32)).to(device, non_blocking=True)
        self.mean = torch.from_numpy(mean).to(widest_float(device)).to(device, non_blocking=True)
        # Added and subtracted again, float32's coarser steps at this size round to multiples of the units.
        self.rounder = torch.from_numpy((1.5 * 2**23 * units).astype(np.float32)).to(device, non_blocking=True)

    def apply(self, images: Tensor, rows: slice) -> Tensor:
        """Map float32 (n, 3, H, W) of whole numbers, the views `rows`, to whole numbers; round once, at the end."""
        matrix, mean = self.pixel[rows], self.mean[rows]
        # A row's sum is exact in float32; the sum of rows may not be.
        average = images.sum(dim=3).sum(dim=2, dtype=mean.dtype).div_(images.shape[2] * images.shape[3])
        offset = mean[:, :, 0] * average[:, :1] + 0.5
        for channel in (1, 2):
            offset.add_(mean[:, :, channel] * average[:, channel : channel + 1])
        offset = offset.to(torch.float32).unsqueeze(2).add_(self.rounder[rows]).sub_(self.rounder[rows])
        if images.device.type == "cpu":
            mapped = torch.baddbmm(offset, matrix, images.view(len(images), 3, -1)).view_as(images)
        else:  # a GPU may cut the factors of matrix products to fewer bits
            mapped = offset.unsqueeze(3) + matrix[:, :, 0, None, None] * images[:, :1]
            for channel in (1, 2):
                mapped.add_(matrix[:, :, channel, None, None] * images[:, channel : channel + 1])
        return mapped.floor_().clamp_(0, 255)
