"""Running a method over images for evaluation and prediction: fixed views, no gradient, evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.views.apply import normalise
from tapetum.data.views.draw import ViewsConfig
from tapetum.evaluation.image_chunks import ImageChunk, in_batches, read_chunks
from tapetum.methods.base import Method
from tapetum.ops.collectives import rank, world_size

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
    for chunk, images in stream_images(method, store, in_batches(indices, batch_size), views, compute):
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
    batches: Sequence[npt.NDArray[np.int64]],
    views: ViewsConfig,
    compute: Compute,
) -> Iterator[tuple[ImageChunk, Tensor | None]]:
    """Images as a method takes them (n, C, S, S), those of a batch that could be read; None where none could.

    Meanwhile the method is in evaluation mode; at the end each of its modules is left in the mode it was in.
    """
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        for chunk in read_chunks(store, batches, views.evaluation, len(views.mean)):
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
        _refuse_unreadable(chunk)
        parts.append(outputs)
    embeddings, logits = zip(*parts)
    return Outputs(torch.cat(embeddings), None if logits[0] is None else torch.cat(logits))


@torch.no_grad()
def embed_share(
    method: Method,
    store: Store,
    pool: npt.NDArray[np.int64],
    views: ViewsConfig,
    compute: Compute,
    then: Callable[[Tensor], Tensor],
) -> Tensor:
    """`then` of the embeddings of this process's share of a pool, (P_own, ...), on the device.

    Some images at a time, so no more than `then` returns is ever held for all of them. All processes do the same
    batches at the same time, for batch statistics are those of all of them together.

    Raises:
        ValueError: an image cannot be read; names it and the fix.
    """
    parts = []
    places = own_batches(len(pool), rank(), world_size())
    for chunk, images in stream_images(method, store, [pool[batch] for batch in places], views, compute):
        _refuse_unreadable(chunk)
        assert images is not None
        with compute.autocast():
            embeddings = method.embed(images)
        parts.append(then(embeddings.float()))
    rows = torch.cat(parts)
    del parts
    own = torch.from_numpy(np.concatenate(places) // world_size()).to(rows.device)
    return torch.empty_like(rows).index_copy_(0, own, rows)


def own_batches(count: int, rank: int, world_size: int) -> list[npt.NDArray[np.int64]]:
    """A process's part of each batch of a pool of `count` images: places in the pool, rising.

    A process has the places rank, rank + world_size, and so on. A batch takes every n-th image: pools often come class
    by class, and statistics of one class would take away what tells it from the others. With an odd n, batches are the
    same for 1, 2, 4, ... processes, and each of these has a part of every one.
    """
    batches = max(1, count // BATCH_SIZE) | 1
    while math.gcd(batches, world_size) != 1:
        batches += 2
    places = [np.arange(batch, count, batches) for batch in range(min(batches, count))]
    return [part[part % world_size == rank] for part in places]


def _refuse_unreadable(chunk: ImageChunk) -> None:
    for problem in chunk.unreadable.values():
        raise ValueError(problem)
