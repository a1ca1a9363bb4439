"""Crop, resize and flip, equal to the bit to PIL's antialiased bilinear `resize` of an image's crop.

A resize is two passes over rows, one of them on the transposed image. Every output row is a weighted sum of a few input
rows ("taps"). As in PIL, weights are integers of 22 bits, sums are integers, and values are rounded to uint8 between
the passes. Integer sums do not depend on their order, so a view has the same bits alone, in any batch, with any number
of threads and on any device. Dense weight matrices and batched products would need float64 to be as exact; they were
measured four times slower on 32-pixel images.

The order of the passes moves some values by one level, because they are rounded in between. The order here is that of
Pillow 13: height first if it shrinks, and by more than twice as many pixels as the width, else width first. Older
versions always begin with the width. Images of different sizes, which cannot be resized together, are left to Pillow
itself (`crop_each.py`): twice as fast there as these passes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.views.crop_each import Boxes, crop_each_by_pil, crop_each_fast
from tapetum.data.views.draw import EvaluationViewConfig, Flags, Integers, ViewParameters

_PRECISION_BITS = 22  # of PIL's fixed-point weights: 8 bits of pixel + 22 of weight fit a signed 32-bit sum
_CHUNK_VALUES = 2**18  # processed at once on a CPU, so that they stay in its cache


class Taps(NamedTuple):
    """The input rows that make each output row: K taps for each of S output rows of N images."""

    source: Integers
    """(K, N, S) input row."""
    weight: npt.NDArray[np.int32]
    """(K, N, S), in units of 2**-22; unused taps weigh 0."""
    counts: Integers
    """(N,) number of taps that each image uses; the others pad it to K, the largest number."""


def make_taps(sizes: Integers, resized: Integers, starts: Integers, count: int) -> Taps:
    """Compute PIL's antialiased triangle weights for resizing `sizes` (N,) rows to `resized` (N,) rows.

    The taps are only those of output rows starts..starts+count-1.
    """
    scale = (sizes / resized)[:, None]
    support = np.maximum(scale, 1.0)  # a triangle of half-width one output row, or one input row when enlarging
    centre = (starts[:, None] + np.arange(count) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), sizes[:, None])
    counts = (last - first).max(axis=1)
    index = first + np.arange(counts.max())[:, None, None]
    distance = (index - centre + 0.5) * (1.0 / support)
    weight = np.where(index < last, np.maximum(1.0 - np.abs(distance), 0.0), 0.0)
    total = np.zeros_like(centre)
    for tap in weight:  # one after the other, as PIL adds them
        total += tap
    fixed = (0.5 + weight / total * (1 << _PRECISION_BITS)).astype(np.int32)
    return Taps(np.minimum(index, sizes[:, None] - 1), fixed, counts)


def _flip_taps(taps: Taps, flip: Flags) -> Taps:
    mirrored = flip[:, None]
    source = np.where(mirrored, taps.source[:, :, ::-1], taps.source)
    return Taps(source, np.where(mirrored, taps.weight[:, :, ::-1], taps.weight), taps.counts)


def _weigh_rows(images: Tensor, taps: Taps) -> Tensor:
    """int32 (n, C, R, L) -> (n, C, S, L): each output row is the weighted sum of its taps, rounded."""
    n, channels, rows, length = images.shape
    count = taps.source.shape[2]
    index = torch.from_numpy(taps.source).to(images.device, non_blocking=True).unsqueeze(2)  # (K, n, 1, S)
    weight = torch.from_numpy(taps.weight).to(images.device, non_blocking=True)[:, :, None, :, None]
    planes = torch.arange(n * channels, device=images.device).view(n, channels, 1) * rows
    flat = images.reshape(n * channels * rows, length)
    total: Tensor | None = None
    for tap_index, tap_weight in zip(index, weight):
        chosen = flat.index_select(0, (planes + tap_index).flatten()).view(n, channels, count, length)
        term = chosen.mul_(tap_weight)
        total = term.add_(1 << (_PRECISION_BITS - 1)) if total is None else total.add_(term)
    assert total is not None
    return total.bitwise_right_shift_(_PRECISION_BITS)


def _height_first(sizes: Boxes, tall: Integers, wide: Integers) -> Flags:
    """Whether Pillow begins with the height when it resizes boxes to (tall, wide) pixels."""
    shrunk, narrowed = sizes.height - tall, sizes.width - wide
    return (shrunk > 0) & (shrunk > 2 * narrowed)


def _resample(images: Tensor, source: Integers, vertical: Taps, horizontal: Taps, height_first: bool) -> Tensor:
    """Resample image `source[i]` of (N, C, H, W) into view i of (n, C, S, S); taps hold pixel coordinates."""
    _, channels, height, width = images.shape
    # Read only the rows that the vertical taps use.
    first = vertical.source.min(axis=(0, 2))
    span = int((vertical.source.max(axis=(0, 2)) - first).max()) + 1
    rows = np.minimum(first[:, None] + np.arange(span), height - 1)
    rows = (source[:, None, None] * channels + np.arange(channels)[:, None]) * height + rows[:, None, :]
    flat = images.reshape(-1, width)
    bands = flat.index_select(0, torch.from_numpy(rows.ravel()).to(images.device, non_blocking=True))
    bands = bands.view(len(source), channels, span, width).int()  # torch transposes int32 faster than uint8
    within = vertical._replace(source=vertical.source - first[:, None])
    if height_first:
        flattened = _weigh_rows(bands, within).transpose(2, 3).contiguous()
        return _weigh_rows(flattened, horizontal).transpose(2, 3).to(torch.uint8)
    narrowed = _weigh_rows(bands.transpose(2, 3).contiguous(), horizontal)
    return _weigh_rows(narrowed.transpose(2, 3).contiguous(), within).to(torch.uint8)


def _rows_of(taps: Taps, rows: Integers) -> Taps:
    counts = taps.counts[rows]
    used = int(counts.max())
    return Taps(taps.source[:used, rows], taps.weight[:used, rows], counts)


def row_chunks(total: int, values_each: int, most_values: int, device: torch.device) -> Iterator[slice]:
    """Yield slices of `total` rows: at most `most_values` each on a CPU (to fit its cache), all at once elsewhere."""
    step = total if device.type != "cpu" else max(1, most_values // max(1, values_each))
    for start in range(0, total, max(1, step)):
        yield slice(start, min(total, start + step))


def crop_resize_flip(
    images: Tensor | Sequence[Tensor], parameters: ViewParameters, size: int, fast: bool = False
) -> Tensor:
    """Cut, resize (antialiased bilinear, equal to PIL to the bit) and flip.

    Args:
        images: uint8 (N, C, H, W), or N uint8 tensors (C, h, w) of any sizes.
        parameters: V * N rows, view-major: row v * N + i cuts image i. Only the geometric columns are read.
        size: side of the views, pixels.
        fast: resize images of different sizes by torch: twice as fast as PIL, but up to two levels off.

    Returns:
        uint8 (V * N, C, size, size) on the images' device, of either memory format. The bits of a row depend only on
        its image and parameters.

    Raises:
        ValueError: if images are not uint8, their number does not divide that of the rows, or a crop leaves its image.
    """
    _check_images(images)
    if len(parameters) % len(images):
        raise ValueError(
            f"parameters have {len(parameters)} rows for {len(images)} images: give the same number for each image."
        )
    boxes = Boxes(parameters.top, parameters.left, parameters.height, parameters.width)
    _check_boxes(images, boxes)
    starts, full = np.zeros_like(boxes.top), np.full_like(boxes.top, size)
    if not isinstance(images, Tensor):
        if fast:
            return crop_each_fast(images, boxes, size, parameters.flip)
        return crop_each_by_pil(images, boxes, Boxes(starts, starts, full, full), size, parameters.flip)
    vertical = make_taps(boxes.height, full, starts, size)
    horizontal = _flip_taps(make_taps(boxes.width, full, starts, size), parameters.flip)
    return _apply(images, boxes, vertical, horizontal, _height_first(boxes, full, full))


def _apply(images: Tensor, boxes: Boxes, vertical: Taps, horizontal: Taps, height_first: Flags) -> Tensor:
    """Resample every box; taps count pixels from the box's corner."""
    total, size = vertical.source.shape[1:]
    source = np.arange(total) % len(images)
    device, channels = images.device, images.shape[1]
    views = torch.empty((total, channels, size, size), dtype=torch.uint8, device=device)
    down = vertical._replace(source=vertical.source + boxes.top[:, None])
    right = horizontal._replace(source=horizontal.source + boxes.left[:, None])
    for order in (False, True):
        alike = np.flatnonzero(height_first == order)
        for chunk in row_chunks(len(alike), channels * size * images.shape[2], _CHUNK_VALUES, device):
            rows = alike[chunk]
            part = _resample(images, source[rows], _rows_of(down, rows), _rows_of(right, rows), order)
            views.index_copy_(0, torch.from_numpy(rows).to(device, non_blocking=True), part)
    return views


def _check_images(images: Tensor | Sequence[Tensor]) -> None:
    for image in [images] if isinstance(images, Tensor) else images:
        if image.dtype != torch.uint8:
            raise ValueError(f"images are {image.dtype}: give uint8 pixels from 0 to 255.")
    if isinstance(images, Tensor) and images.ndim != 4:
        raise ValueError(f"images have the shape {tuple(images.shape)}: give (N, C, H, W).")
    if len(images) == 0:
        raise ValueError("images has 0 rows: give at least one image.")


def _sizes(images: Tensor | Sequence[Tensor]) -> tuple[Integers, Integers]:
    """Heights and widths, (N,) each."""
    shapes = [images.shape[1:]] * len(images) if isinstance(images, Tensor) else [i.shape for i in images]
    sizes = np.array(shapes, dtype=np.int64)
    return sizes[:, 1], sizes[:, 2]


def _check_boxes(images: Tensor | Sequence[Tensor], boxes: Boxes) -> None:
    heights, widths = _sizes(images)
    views = len(boxes.top) // len(images)
    bottom, right = boxes.top + boxes.height, boxes.left + boxes.width
    least = np.minimum(np.minimum(boxes.height, boxes.width) - 1, np.minimum(boxes.top, boxes.left))
    outside = (least < 0) | (bottom > np.tile(heights, views)) | (right > np.tile(widths, views))
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"the crop of row {row} leaves its image: draw parameters with the heights and widths of these images."
        )


def evaluation_view(images: Tensor | Sequence[Tensor], config: EvaluationViewConfig) -> Tensor:
    """Resize the shorter side (if configured) and keep the centre, as torchvision's `Resize` and `CenterCrop` with PIL.

    Args:
        images: uint8 (N, C, H, W), or N uint8 tensors (C, h, w).
        config: sizes in pixels.

    Returns:
        uint8 (N, C, crop, crop); the images themselves if nothing changes.

    Raises:
        ValueError: if an image is smaller than the crop and is not resized.
    """
    _check_images(images)
    heights, widths = _sizes(images)
    shorter = np.minimum(heights, widths)
    size = config.crop
    short = shorter if config.resize is None else np.full_like(shorter, config.resize)
    if (short < size).any():
        smallest = int(short.min())
        raise ValueError(
            f"crop is {size} but an image is {smallest} pixels wide or high: set resize to {size} or more."
        )
    if isinstance(images, Tensor) and (heights == size).all() and (widths == size).all() and (short == size).all():
        return images
    tall = np.where(heights <= widths, short, (short * heights / shorter).astype(np.int64))
    wide = np.where(widths <= heights, short, (short * widths / shorter).astype(np.int64))
    top, left = np.rint((tall - size) / 2).astype(np.int64), np.rint((wide - size) / 2).astype(np.int64)
    boxes = Boxes(np.zeros_like(tall), np.zeros_like(wide), heights, widths)
    if not isinstance(images, Tensor):
        unflipped = np.zeros(len(images), dtype=np.bool_)
        return crop_each_by_pil(images, boxes, Boxes(top, left, tall, wide), size, unflipped).contiguous()
    vertical, horizontal = make_taps(heights, tall, top, size), make_taps(widths, wide, left, size)
    return _apply(images, boxes, vertical, horizontal, _height_first(boxes, tall, wide))
