"""Running a method over images for evaluation and prediction: fixed views, no gradient, evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.augment import normalise
from tapetum.data.stores import Store
from tapetum.data.views import ViewsConfig
from tapetum.evaluation.reading import ImageChunk, read_chunks
from tapetum.methods.base import Method

BATCH_SIZE = 500
"""Images in one forward."""


class Compute(Protocol):
    """Where and in which precision to run; the engine's runtime is one."""

    device: torch.device

    def place_images(self, images: Tensor) -> Tensor: ...
    def autocast(self) -> AbstractContextManager[Any]: ...


class Outputs(NamedTuple):
    """What a method says of N images, float32 on the CPU."""

    embeddings: Tensor
    """(N, D)."""
    logits: Tensor | None
    """(N, C) of the method's own classifier; None if it has none."""


@torch.no_grad()
def stream_method(
    method: Method,
    store: Store,
    indices: npt.NDArray[np.int64],
    views: ViewsConfig,
    compute: Compute,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[ImageChunk, Outputs]]:
    """Embed (and classify) images, some at a time, in the order of `indices`; unreadable ones are left out."""
    for chunk, images in stream_images(method, store, indices, views, compute, batch_size):
        if images is None:
            yield chunk, Outputs(torch.empty(0, 0), None)
            continue
        with compute.autocast():
            embeddings = method.embed(images)
            logits = method.classify(images)
        yield chunk, Outputs(embeddings.float().cpu(), None if logits is None else logits.float().cpu())


@torch.no_grad()
def stream_images(
    method: Method,
    store: Store,
    indices: npt.NDArray[np.int64],
    views: ViewsConfig,
    compute: Compute,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[ImageChunk, Tensor | None]]:
    """Images as a method takes them (n, C, S, S), those of a chunk that could be read; None where none could.

    Meanwhile the method is in evaluation mode; at the end each of its modules is left in the mode it was in.
    """
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        for chunk in read_chunks(store, indices, views.evaluation, len(views.mean), batch_size):
            if not len(chunk.indices):
                yield chunk, None
                continue
            pixels = chunk.pixels.to(compute.device)
            yield chunk, compute.place_images(normalise(pixels, views.mean, views.std))
    finally:
        for module, mode in modes:
            module.training = mode


def run_method(
    method: Method,
    store: Store,
    indices: npt.NDArray[np.int64],
    views: ViewsConfig,
    compute: Compute,
    batch_size: int = BATCH_SIZE,
) -> Outputs:
    """As `stream_method`, at once.

    Raises:
        ValueError: an image cannot be read; names it and the fix.
    """
    parts = []
    for chunk, outputs in stream_method(method, store, indices, views, compute, batch_size):
        for problem in chunk.unreadable.values():
            raise ValueError(problem)
        parts.append(outputs)
    embeddings, logits = zip(*parts)
    return Outputs(torch.cat(embeddings), None if logits[0] is None else torch.cat(logits))
