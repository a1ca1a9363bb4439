"""PIL's `GaussianBlur`: three passes of an extended box blur along each axis, rounded to whole numbers after each.

Boxes of fractional radius follow Gwosdek, Grewenig, Bruhn & Weickert, "Theoretical foundations of Gaussian
convolution by extended box filtering" (SSVM 2011): for a whole radius r, the 2r + 1 pixels inside share one weight, and
the two just outside have a smaller weight. Beyond the border, the edge pixel is repeated.
"""

import numpy as np
import torch
from torch import Tensor

from tapetum.data.views.draw import Floats, Integers

_PASSES = 3
_ONE = 1 << 24  # the number 1 in PIL's fixed point


def box_weights(radius: Floats) -> tuple[Integers, Integers, Integers]:
    """Return (whole radius, weight inside, weight of the two pixels outside) of each Gaussian's boxes; (N,) each.

    Weights are in units of 2**-24. float32 and float64 alternate as in PIL, so that weights equal PIL's to the bit.
    """
    variance = radius.astype(np.float32) ** 2 / np.float32(_PASSES)
    length = np.sqrt(12.0 * variance.astype(np.float64) + 1.0).astype(np.float32)
    whole = np.floor((length.astype(np.float64) - 1.0) / 2.0).astype(np.float32)
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    box = whole + fraction / (6 * (variance - (whole + 1) * (whole + 1)))
    inner = np.floor(box).astype(np.int64)
    inside = np.floor(np.float32(_ONE) / (box * 2 + 1)).astype(np.int64)
    outside = (_ONE - (2 * inner + 1) * inside) // 2
    return inner, inside, outside


def gaussian_blur(images: Tensor, radius: Floats) -> Tensor:
    """Blur each image with its own radius.

    Args:
        images: float32 (n, C, H, W), whole numbers from 0 to 255.
        radius: (n,) PIL's radius, pixels, on the host.

    Returns:
        float32 (n, C, H, W), whole numbers.
    """
    inner, inside, outside = box_weights(radius)
    # Minus 128, pixels are signed and a weighted sum fits 32 bits. The weights may sum to one unit less than 1.
    rounding = _ONE // 2 - 128 * (_ONE - (2 * inner + 1) * inside - 2 * outside)
    blurred = torch.empty_like(images)
    for whole in np.unique(inner):
        rows = np.flatnonzero(inner == whole)
        index = torch.from_numpy(rows).to(images.device)
        weights = [
            torch.from_numpy(w[rows].astype(np.int32)).to(images.device).view(-1, 1, 1, 1)
            for w in (inside, outside, rounding)
        ]
        part = images.index_select(0, index).to(torch.int32).sub_(128)
        for _ in range(2):  # down the columns of the transposed image, then of the image itself
            part = part.transpose(2, 3).contiguous()
            for _ in range(_PASSES):
                part = _box_pass(part, int(whole), *weights)
        blurred.index_copy_(0, index, part.add_(128).to(torch.float32))
    return blurred


def _box_pass(images: Tensor, radius: int, inside: Tensor, outside: Tensor, rounding: Tensor) -> Tensor:
    """One box blur down the columns of int32 (n, C, H, W)."""
    height = images.shape[2]
    reach = radius + 1
    rows = torch.arange(-reach, height + reach, device=images.device).clamp_(0, height - 1)
    padded = images.index_select(2, rows)
    total = padded.narrow(2, 1, height).clone() if radius else padded.narrow(2, 1, height) * inside
    for offset in range(2, 2 * radius + 2):
        total.add_(padded.narrow(2, offset, height))
    if radius:
        total.mul_(inside)
    ends = (padded.narrow(2, 0, height) + padded.narrow(2, 2 * reach, height)).mul_(outside)
    return total.add_(ends).add_(rounding).bitwise_right_shift_(24)
