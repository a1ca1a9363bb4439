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


def jitter_by_matrix(images: Tensor, parameters: ViewParameters, config: ViewConfig) -> Tensor:
    """Jitter the rows drawn for it, float32 (n, 3, H, W), and round to whole numbers once, at the end."""
    rows = np.flatnonzero(parameters.jitter)
    if len(rows) == 0:
        return images
    index = torch.from_numpy(rows).to(images.device)
    pixel, mean = (
        torch.from_numpy(m.astype(np.float32)).to(images.device) for m in jitter_matrices(parameters[rows], config)
    )
    chosen = images.index_select(0, index)
    pixels = chosen.shape[2] * chosen.shape[3]
    average = chosen.sum(dim=3).to(torch.int64).sum(dim=2).to(torch.float32) / pixels
    mapped = torch.empty_like(chosen)
    red, green, blue = chosen.unbind(dim=1)
    for channel in range(3):
        offset = mean[:, channel, 0] * average[:, 0] + 0.5
        offset = offset + mean[:, channel, 1] * average[:, 1] + mean[:, channel, 2] * average[:, 2]
        weights = [w.view(-1, 1, 1) for w in (*pixel[:, channel].unbind(dim=1), offset)]
        total = torch.mul(red, weights[0]).add_(green * weights[1]).add_(blue * weights[2])
        mapped[:, channel] = total.add_(weights[3])
    return images.index_copy_(0, index, mapped.floor_().clamp_(0, 255))
