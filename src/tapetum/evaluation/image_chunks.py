"""Reads images in the evaluation view: in advance, by threads, in bounded memory however many images there are."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.images.stores import ArrayStore, Store
from tapetum.data.views.apply import evaluation_view
from tapetum.data.views.draw import EvaluationViewConfig

Indices = npt.NDArray[np.int64]

_THREADS = 2  # Pillow decodes without Python's lock; more threads would take compute from the network
_VALUES_HELD = 2**25  # pixel values of whole photographs in memory before they are cropped


class ImageChunk(NamedTuple):
    """A few images of a store."""

    indices: Indices
    """(n,) indices of the images that could be read."""
    pixels: Tensor
    """(n, C, S, S) uint8: their evaluation views."""
    unreadable: dict[int, str]
    """Why the others could not be read: index of the image -> a sentence."""


def in_batches(indices: Indices, size: int) -> list[Indices]:
    """Split `indices`, in order, into batches of `size`."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def read_chunks(
    store: Store, batches: Sequence[Indices], view: EvaluationViewConfig, channels: int
) -> Iterator[ImageChunk]:
    """Yield the images of each batch, in order, while threads read the next batches.

    Args:
        store: images of any sizes; photographs in files are decoded one at a time.
        batches: indices of the images of each batch.
        view: the crop and resize to apply.
        channels: 1 or 3, as the network takes them; colour becomes luminance, grey becomes three equal channels.
    """
    pool = ThreadPoolExecutor(_THREADS)
    try:
        ahead: deque[Future[ImageChunk]] = deque()
        for indices in batches:
            ahead.append(pool.submit(_read, store, indices, view, channels))
            if len(ahead) > _THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # as in `tapetum.system.threads.in_turn`


def _read(store: Store, indices: Indices, view: EvaluationViewConfig, channels: int) -> ImageChunk:
    if isinstance(store, ArrayStore):
        return ImageChunk(indices, evaluation_view(_with_channels(store.read(indices), channels), view), {})
    parts, readable, unreadable = [], [], {}
    images: list[Tensor] = []
    held = 0
    for index, image in zip(indices.tolist(), store.each(indices)):
        problem: object = image if isinstance(image, ValueError) else _too_small(image, store.names[index], view)
        if isinstance(image, ValueError) or problem is not None:
            unreadable[index] = str(problem)
            continue
        readable.append(index)
        images.append(_with_channels(image, channels))
        held += image.numel()
        if held > _VALUES_HELD:
            parts.append(_cut(images, view))
            images, held = [], 0
    if images:
        parts.append(_cut(images, view))
    pixels = torch.cat(parts) if parts else torch.empty((0, channels, view.crop, view.crop), dtype=torch.uint8)
    return ImageChunk(np.array(readable, dtype=np.int64), pixels, unreadable)


def _cut(images: list[Tensor], view: EvaluationViewConfig) -> Tensor:
    # Images of one shape pass as one tensor, so those that need no resizing stay untouched.
    alike = all(image.shape == images[0].shape for image in images)
    return evaluation_view(torch.stack(images) if alike else images, view)


def _too_small(image: Tensor, name: str, view: EvaluationViewConfig) -> str | None:
    height, width = image.shape[1:]
    if view.resize is not None or min(height, width) >= view.crop:
        return None
    return (
        f"image {name} has {width}x{height} pixels, less than views.evaluation.crop ({view.crop}): "
        f"set views.evaluation.resize to {view.crop} or more"
    )


def _with_channels(images: Tensor, channels: int) -> Tensor:
    """Convert uint8 (..., C, H, W) to 1 or 3 channels; grey is luminance as in ITU-R 601."""
    if images.shape[-3] == channels:
        return images
    if channels == 3:
        return images.expand(*images.shape[:-3], 3, *images.shape[-2:])
    red, green, blue = images.to(torch.float32).unbind(dim=-3)
    return (0.299 * red + 0.587 * green + 0.114 * blue).round().to(torch.uint8).unsqueeze(-3)
