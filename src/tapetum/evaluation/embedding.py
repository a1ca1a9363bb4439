"""Runs a method over images for evaluation and prediction: fixed views, no gradient, evaluation mode."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.views.apply import normalise
from tapetum.data.views.draw import ViewsConfig
from tapetum.data.views.evaluation_views import evaluation_views, mean_over_views
from tapetum.evaluation.image_chunks import ImageChunk, in_batches, read_chunks
from tapetum.methods.base import Method, modes_kept
from tapetum.ops.collectives import gather_on_all, rank, world_size

BATCH_SIZE = 500
"""Number of images in one forward pass."""


class Compute(Protocol):
    """The device and precision to run in; the engine's runtime is one."""

    device: torch.device

    def place_images(self, images: Tensor) -> Tensor: ...
    def autocast(self) -> AbstractContextManager[Any]: ...


Features = Literal["own", "backbone", "predictor"]


class Outputs(NamedTuple):
    """A method's outputs for N images, float32."""

    embeddings: Tensor
    """(N, D)."""
    logits: Tensor | None
    """(N, C) from the method's own classifier; None if it has none."""

    def on_host(self) -> "Outputs":
        """The same in the host's memory; waits until they are computed."""
        return Outputs(self.embeddings.cpu(), None if self.logits is None else self.logits.cpu())


@dataclass(frozen=True)
class Embedder:
    """A trained method with everything needed to run it over images: their view, the device and the precision.

    The method is in evaluation mode while images stream; afterwards each of its modules returns to its earlier mode.
    """

    method: Method
    views: ViewsConfig
    """Only the evaluation view, the mean and the standard deviation are used."""
    compute: Compute
    features: Features = "own"
    """What stands for an image: what the method is judged by, or the output of one of its parts."""
    shared: bool = False
    """Whether the processes share the images out: each streams its own batches, and all of them must call alike."""
    classifies: bool = True
    """Whether outputs have the logits of the method's classifier, which some methods need another pass for."""

    @torch.no_grad()
    def stream(
        self, store: Store, indices: npt.NDArray[np.int64], batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[ImageChunk, Outputs]]:
        """Embed (and classify) images batch by batch, in the order of `indices`; unreadable ones are left out.

        With `shared`, those with the numbers rank, rank + world_size, and so on. Batches hold the same images however
        many processes there are, because the last bits of an output may depend on the images beside it.
        """
        batches = in_batches(indices, batch_size)
        # Read back one batch late on a GPU, which computes the next one while the host reads and uses this one.
        delay = int(self.compute.device.type == "cuda")
        queued: deque[tuple[ImageChunk, Outputs]] = deque()
        for chunk, images in self.stream_images(store, batches[rank() :: world_size()] if self.shared else batches):
            queued.append((chunk, Outputs(torch.empty(0, 0), None) if images is None else self._outputs(images)))
            if len(queued) > delay:
                ready, outputs = queued.popleft()
                yield ready, outputs.on_host()
        yield from ((ready, outputs.on_host()) for ready, outputs in queued)

    @torch.no_grad()
    def stream_images(
        self, store: Store, batches: Sequence[npt.NDArray[np.int64]]
    ) -> Iterator[tuple[ImageChunk, Tensor | None]]:
        """Yield the readable images of each batch as the method takes them, (n, C, S, S); None if none is readable."""
        with modes_kept(self.method):
            self.method.eval()
            for chunk in read_chunks(store, batches, self.views.evaluation, len(self.views.mean)):
                if not len(chunk.indices):
                    yield chunk, None
                    continue
                pixels = chunk.pixels
                if self.compute.device.type == "cuda":  # page-locked, so that the copy waits for nothing
                    pixels = pixels.pin_memory()
                pixels = pixels.to(self.compute.device, non_blocking=True)
                yield chunk, self.compute.place_images(normalise(pixels, self.views.mean, self.views.std))

    def outputs(self, store: Store, indices: npt.NDArray[np.int64], batch_size: int = BATCH_SIZE) -> Outputs:
        """As `stream`, but for all images at once; with `shared`, every process returns the outputs of all.

        Raises:
            ValueError: an image cannot be read; names it and the fix.
        """
        parts = [outputs for _, outputs in self.stream_readable(store, indices, batch_size)]
        if self.shared:
            ranks = gather_on_all(parts)
            parts = [ranks[i % len(ranks)][i // len(ranks)] for i in range(sum(len(own) for own in ranks))]
        embeddings, logits = zip(*parts)
        return Outputs(torch.cat(embeddings), None if logits[0] is None else torch.cat(logits))

    def stream_readable(
        self, store: Store, indices: npt.NDArray[np.int64], batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[npt.NDArray[np.int64], Outputs]]:
        """As `stream`, with the indices of each batch.

        Raises:
            ValueError: an image cannot be read; names it and the fix.
        """
        for chunk, outputs in self.stream(store, indices, batch_size):
            _refuse_unreadable(chunk)
            yield chunk.indices, outputs

    def _outputs(self, images: Tensor) -> Outputs:
        """Run the method on every view of images (n, C, S, S) that evaluation averages over, and average."""
        seen = evaluation_views(images, self.views.evaluation)
        with self.compute.autocast():
            found = [self._embed_and_classify(view) for view in seen]
        embeddings = [embedding.float() for embedding, _ in found]
        logits = [classified.float() for _, classified in found if classified is not None]
        return Outputs(mean_over_views(embeddings), mean_over_views(logits) if logits else None)

    def _embed_and_classify(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.classifies:
            return self._embed(images), None
        if self.features == "own":
            return self.method.embed_and_classify(images)
        return self._embed(images), self.method.classify(images)

    def _embed(self, images: Tensor) -> Tensor:
        if self.features == "own":
            return self.method.embed(images)
        part = getattr(self.method, self.features, None)
        if part is None:
            raise ValueError(f"features is {self.features}, which this method does not have: leave it out.")
        embeddings: Tensor = part(images if self.features == "backbone" else self.method.embed(images))
        return embeddings

    @torch.no_grad()
    def own_share(self, store: Store, pool: npt.NDArray[np.int64], then: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply `then` to the embeddings of this process's share of a pool; returns (P_own, ...), on the device.

        Images are embedded in batches, so only what `then` returns is ever in memory for all of them. All processes
        work through the same batches at the same time, because batch statistics cover all processes.

        Raises:
            ValueError: an image cannot be read; names it and the fix.
        """
        parts = []
        places = own_batches(len(pool), rank(), world_size())
        for chunk, images in self.stream_images(store, [pool[batch] for batch in places]):
            _refuse_unreadable(chunk)
            assert images is not None
            with self.compute.autocast():
                embeddings = self._embed(images)
            parts.append(then(embeddings.float()))
        rows = torch.cat(parts)
        del parts
        own = torch.from_numpy(np.concatenate(places) // world_size()).to(rows.device)
        return torch.empty_like(rows).index_copy_(0, own, rows)


def own_batches(count: int, rank: int, world_size: int) -> list[npt.NDArray[np.int64]]:
    """Return a process's part of each batch of a pool of `count` images: places in the pool, ascending.

    A process has the places rank, rank + world_size, and so on. A batch takes every n-th image, because pools are often
    sorted by class, and batch statistics of one class would remove what distinguishes it from others. With an odd n,
    batches are the same for 1, 2, 4, ... processes, and each process has a part of every batch.
    """
    batches = max(1, count // BATCH_SIZE) | 1
    while math.gcd(batches, world_size) != 1:
        batches += 2
    places = [np.arange(batch, count, batches) for batch in range(min(batches, count))]
    return [part[part % world_size == rank] for part in places]


def _refuse_unreadable(chunk: ImageChunk) -> None:
    for problem in chunk.unreadable.values():
        raise ValueError(problem)
