"""PIL's `GaussianBlur`: three passes of an extended box blur along each axis, rounded to whole numbers after each.

`fast_blur_` approximates it: the three boxes are one kernel, whose weights are whole 256ths.

Boxes of fractional radius follow Gwosdek, Grewenig, Bruhn & Weickert, "Theoretical foundations of Gaussian
convolution by extended box filtering" (SSVM 2011): for a whole radius r, the 2r + 1 pixels inside share one weight, and
the two just outside have a smaller weight. Beyond the border, the edge pixel is repeated.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import pad

from tapetum.data.views.draw import Flags, Floats, Integers

_PASSES = 3
_ONE = 1 << 24  # the number 1 in PIL's fixed point
LARGEST_FAST_RADIUS = 4.0  # pixels; the many weights of wider kernels would be too small for 256ths
_ALIGNED = 32  # 16-bit values in 64 bytes


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
    return box_blurs(images, radius) if images.device.type != "cpu" else _by_pil(images, radius)


def _by_pil(images: Tensor, radius: Floats) -> Tensor:
    planes = images.to(torch.uint8).numpy()
    blurred = np.empty_like(planes)
    for image, result, here in zip(planes, blurred, radius.tolist()):
        for channel, plane in enumerate(image):
            result[channel] = np.asarray(Image.fromarray(plane).filter(ImageFilter.GaussianBlur(here)))
    return torch.from_numpy(blurred).to(torch.float32)


def box_blurs(images: Tensor, radius: Floats) -> Tensor:
    """Compute `gaussian_blur` with operations on whole batches, as a GPU needs; Pillow takes half the time on a CPU."""
    inner, inside, outside = box_weights(radius)
    # Minus 128, pixels are signed and a weighted sum fits 32 bits. The weights may sum to one unit less than 1.
    rounding = _ONE // 2 - 128 * (_ONE - (2 * inner + 1) * inside - 2 * outside)
    blurred = torch.empty_like(images)
    for whole in np.unique(inner):
        rows = np.flatnonzero(inner == whole)
        index = torch.from_numpy(rows).to(images.device, non_blocking=True)
        weights = [
            torch.from_numpy(w[rows].astype(np.int32)).to(images.device, non_blocking=True).view(-1, 1, 1, 1)
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


def fast_kernels(radius: Floats) -> Integers:
    """Return (N, K) weights of the three box blurs in one, from the centre outwards, in whole 256ths.

    The centre gets what rounding leaves, so that the weights of all pixels add up to 256.
    """
    inner, inside, outside = (column[:, None] for column in box_weights(radius))
    reach = int(inner.max(initial=0)) + 1
    distance = np.abs(np.arange(-3 * reach, 3 * reach + 1))
    box = np.where(distance <= inner, inside, np.where(distance == inner + 1, outside, 0)) / _ONE
    kernel = box
    for _ in range(_PASSES - 1):
        # The boxes end far enough from the array's ends that nothing wraps around.
        shifted = [box[:, [3 * reach + k]] * np.roll(kernel, k, axis=1) for k in range(-reach, reach + 1)]
        kernel = np.add.reduce(shifted)
    sides = np.rint(256 * kernel[:, 3 * reach + 1 :]).astype(np.int64)
    return np.concatenate([256 - 2 * sides.sum(axis=1, keepdims=True), sides], axis=1)


def fast_blur_(images: Tensor, chosen: Flags, kernels: Integers) -> Tensor:
    """Blur the chosen images nearly as `gaussian_blur` does, in place.

    16-bit sums take half the memory of float32 and are as exact in any order. Image by image, pixels stay in a core's
    cache; on a GPU, where calls cost more than pixels, `gaussian_blur` is faster.

    Args:
        images: float32 (n, C, H, W), whole numbers from 0 to 255, on a CPU.
        chosen: (n,) which images.
        kernels: (n, K) of `fast_kernels`.

    Returns:
        `images`.
    """
    for row in np.flatnonzero(chosen).tolist():
        centre, *sides = kernels[row, : np.count_nonzero(kernels[row])].tolist()
        reach, (height, width) = len(sides), images.shape[2:]
        if not sides:
            continue
        # Rows begin where vector units read fastest, so that shifts by whole rows cost half as much.
        margin = reach + (-width - 2 * reach) % _ALIGNED
        # Minus 128, pixels are signed and a weighted sum fits 16 bits, whatever part of it has been added up.
        part = pad(images[row], (reach, margin, reach, reach), mode="replicate").to(torch.int16).sub_(128)
        tall, wide = part.shape[1:]
        flat = _weigh_shifts(part.view(-1), 1, centre, sides)  # in one dimension, a shift is a slice without gaps
        flat = _weigh_shifts(flat, wide, centre, sides).add_(128)
        images[row] = flat.as_strided((len(part), height, width), (tall * wide, wide, 1))
    return images


def _weigh_shifts(flat: Tensor, stride: int, centre: int, sides: list[int]) -> Tensor:
    """Add up shifts by multiples of `stride` of int16 (L,), weighted, and divide by 256; L shrinks by the two ends."""
    reach = len(sides)
    length = len(flat) - 2 * reach * stride
    total = flat[reach * stride :][:length] * centre
    for distance, weight in enumerate(sides, 1):
        total.add_(flat[(reach - distance) * stride :][:length], alpha=weight)
        total.add_(flat[(reach + distance) * stride :][:length], alpha=weight)
    return total.add_(128).bitwise_right_shift_(8)
