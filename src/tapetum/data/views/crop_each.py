"""Crop, resize and flip images of different sizes, one view after the other: by Pillow, or by torch's faster filter.

Both filters are antialiased and bilinear. torch's weights have 16 bits where Pillow's have 22, so a value may differ by
two levels at most, and does by one in some 4 % of a photograph's values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tapetum.data.views.draw import Flags, Integers


class Boxes(NamedTuple):
    """The part of each image that is cut out, in pixels; (N,) each."""

    top: Integers
    left: Integers
    height: Integers
    width: Integers


def crop_each_by_pil(images: Sequence[Tensor], boxes: Boxes, resized: Boxes, size: int, flip: Flags) -> Tensor:
    """Cut every box and resize it by Pillow; of the result, whose height and width `resized` names, keep a square.

    Args:
        images: N uint8 tensors (C, h, w); those whose pixels lie side by side are read without rearranging them.
        boxes: V * N boxes, view-major, inside their images.
        resized: V * N boxes of the resized pictures' sizes, and the corner of the square in them.
        size: side of the square, pixels.
        flip: (V * N,) whether left and right are swapped.

    Returns:
        uint8 (V * N, C, size, size), channels last, on the device of the images.
    """
    pictures = [_as_picture(image) for image in images]
    views = np.empty((len(flip), size, size, images[0].shape[0]), dtype=np.uint8)
    for row, (top, left, height, width) in enumerate(zip(*(column.tolist() for column in boxes))):
        down, right, tall, wide = (int(column[row]) for column in resized)
        cut = pictures[row % len(pictures)].crop((left, top, left + width, top + height))
        cut = cut.resize((wide, tall), Image.Resampling.BILINEAR)
        if (down, right, tall, wide) != (0, 0, size, size):
            cut = cut.crop((right, down, right + size, down + size))
        if flip[row]:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        views[row] = np.asarray(cut).reshape(size, size, -1)
    return torch.from_numpy(views).permute(0, 3, 1, 2).to(images[0].device)


def _as_picture(image: Tensor) -> Image.Image:
    """Copy uint8 (C, h, w) into a picture of Pillow's, which has room for four channels in each pixel."""
    if image.shape[0] == 3 and image.stride(0) == 1:
        return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    planes = [Image.fromarray(plane) for plane in image.contiguous().cpu().numpy()]
    return Image.merge("RGB", planes) if len(planes) == 3 else planes[0]


def crop_each_fast(images: Sequence[Tensor], boxes: Boxes, size: int, flip: Flags) -> Tensor:
    """Cut every box and resize it to a square by torch; arguments and result are those of `crop_each_by_pil`."""
    views = torch.from_numpy(np.empty((len(flip), size, size, images[0].shape[0]), dtype=np.uint8))
    side_by_side = [image.permute(1, 2, 0).cpu().contiguous().permute(2, 0, 1).unsqueeze(0) for image in images]
    for row, (top, left, height, width) in enumerate(zip(*(column.tolist() for column in boxes))):
        cut = side_by_side[row % len(images)][:, :, top : top + height, left : left + width]
        cut = interpolate(cut, size=(size, size), mode="bilinear", antialias=True)
        views[row] = (cut.flip(3) if flip[row] else cut)[0].permute(1, 2, 0)
    return views.permute(0, 3, 1, 2).to(images[0].device)
