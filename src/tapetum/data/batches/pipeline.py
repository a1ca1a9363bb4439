"""From a step's number to its batch: the one path that every training image takes.

`Pipeline.cut` draws images and views, reads the images and cuts uint8 crops from them. It is a pure function of the
step and may run in a worker process. `Pipeline.finish` distorts colours and normalises, in batches, on the compute
device. Neither keeps state, so any step's batch can be rebuilt on its own, with the same bits.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tapetum.data.batch import Batch, Views
from tapetum.data.batches.samplers import SupportConfig, SupportSampler, batch_indices, steps_in_epoch
from tapetum.data.batches.shuffled_sampler import ShuffledSampler, labelled_sampler
from tapetum.data.images.decoding import UnreadableImage
from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.data.views.apply import crop_resize_flip, distort_and_normalise
from tapetum.data.views.draw import ViewConfig, ViewParameters, ViewsConfig, draw
from tapetum.ops.randomness import Keys, make_keys

Indices = npt.NDArray[np.int64]


@dataclass
class Crops:
    """Views of one kind, cropped, but before colour distortion."""

    pixels: Tensor
    """(V*B, C, S, S) uint8, view-major."""
    parameters: ViewParameters
    config: ViewConfig

    def pin_memory(self) -> "Crops":
        return replace(self, pixels=self.pixels.pin_memory())


@dataclass
class Cut:
    """A batch before colour distortion and normalisation."""

    groups: list[Crops]
    index: Tensor | None
    support: Crops | None
    support_labels: Tensor | None
    support_classes: Tensor | None

    def pin_memory(self) -> "Cut":
        """Copy every tensor into page-locked memory, which a GPU reads while the host goes on; a `DataLoader` calls it.

        Without this method it would hand a dataclass over as it is, with nothing pinned.
        """
        return Cut(
            groups=[group.pin_memory() for group in self.groups],
            index=_pinned(self.index),
            support=None if self.support is None else self.support.pin_memory(),
            **{name: _pinned(getattr(self, name)) for name in ("support_labels", "support_classes")},
        )


class _Refused(NamedTuple):
    """Why a worker process cannot make a batch: torch would pass on a traceback instead."""

    reason: str
    by_system: bool
    """Whether it was an `OSError`; else it was an `UnreadableImage`."""


class Pipeline(Dataset[Cut | _Refused]):
    """Batches of a pool, numbered 0, 1, 2, ...; each step takes one of them, or `accumulate` of them.

    Args:
        store: the pool.
        labels: labels of the pool's images; needed if `support` is given.
        views: the kinds of views.
        support: the labelled images of each step; None for methods without any.
        batch_size: pool images in one batch, over all processes; None for methods without unlabelled images.
        seed: decides data order, supports and views.
        pool: indices, in order, of the store's images that may be drawn as unlabelled images; None for all.
        rank, world_size: which share of each batch this process makes.

    Raises:
        ValueError: sizes or channels do not fit each other, or `support` lacks labels; the message names the fix.
    """

    views_from = 0
    """Batches before this one hold labelled images alone."""

    def __init__(
        self,
        store: Store,
        labels: Labels | None,
        views: ViewsConfig,
        support: SupportConfig | None,
        *,
        batch_size: int | None,
        seed: int,
        pool: Indices | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if store.channels != len(views.mean):
            raise ValueError(
                f"views.mean has {len(views.mean)} numbers but the images have {store.channels} channels: "
                f"give one mean and one std per channel."
            )
        self.store, self.views, self.seed = store, views, seed
        self.pool = np.arange(len(store)) if pool is None else pool
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.sampler: SupportSampler | ShuffledSampler | None = None
        if support is not None:
            if labels is None:
                raise ValueError("the method needs labels but the images have none: give data.labels.")
            self.sampler = labelled_sampler(labels, support, seed, rank, world_size)
        self.batches_per_epoch = self._batches_per_epoch(labels)
        if batch_size is not None:
            self._pool_batch(0)  # fails now, not in a worker, if the size does not divide among processes

    def _batches_per_epoch(self, labels: Labels | None) -> int:
        if self.batch_size is not None:
            return steps_in_epoch(len(self.pool), self.batch_size)
        assert self.sampler is not None
        assert labels is not None
        return max(1, len(labels.labelled) // (self.sampler.size * self.world_size))

    @property
    def share_of_supports(self) -> float:
        """Labelled pixels of a batch, as a share of all of its pixels."""
        if self.sampler is None or self.batch_size is None:
            return float(self.sampler is not None)
        views = self.views
        kinds = [views.large, *([views.small] if views.small else [])]
        pool = self.batch_size / self.world_size * sum(kind.count * kind.size**2 for kind in kinds)
        labelled = self.sampler.size * views.support_views * (views.support or views.large).size ** 2
        return labelled / (labelled + pool)

    def cut(self, number: int) -> Cut:
        """Draw, read and crop batch `number`, on the CPU."""
        groups: list[Crops] = []
        index = None
        if self.batch_size is not None and number >= self.views_from:
            drawn = self._pool_batch(number)
            epoch = number // self.batches_per_epoch
            images = self.store.read(drawn)
            kinds = [self.views.large] + ([self.views.small] if self.views.small else [])
            first = 0
            for kind in kinds:
                numbers = np.arange(first, first + kind.count)[:, None]
                keys = make_keys(self.seed, "view", epoch, drawn[None, :], numbers)
                groups.append(_crops(images, keys, kind))
                first += kind.count
            index = torch.from_numpy(drawn)
        if self.sampler is None:
            return Cut(groups, index, None, None, None)
        supports = self.sampler.draw(number)
        numbers = np.arange(self.views.support_views)[:, None]
        keys = make_keys(
            self.seed, "support view", number, supports.indices[None, :], supports.rounds[None, :], numbers
        )
        crops = _crops(self.store.read(supports.indices), keys, self.views.support or self.views.large)
        return Cut(groups, index, crops, torch.from_numpy(supports.labels), torch.from_numpy(supports.classes))

    def _pool_batch(self, number: int) -> Indices:
        assert self.batch_size is not None
        rows = batch_indices(
            number,
            self.batches_per_epoch,
            batch_size=self.batch_size,
            num_images=len(self.pool),
            seed=self.seed,
            rank=self.rank,
            world_size=self.world_size,
        )
        return self.pool[rows]

    def __getitem__(self, number: int) -> Cut | _Refused:
        """`cut`, for worker processes: what the user can mend reaches the training as an error of one sentence."""
        try:
            return self.cut(number)
        except (UnreadableImage, OSError) as error:
            return _Refused(str(error), isinstance(error, OSError))

    def finish(self, cut: Cut, device: torch.device | str = "cpu", channels_last: bool = False) -> Batch:
        """Move a cut batch to the device, distort its colours and normalise it."""

        def coloured(crops: Crops) -> Tensor:
            pixels = crops.pixels.to(device, non_blocking=True)
            return distort_and_normalise(
                pixels, crops.parameters, crops.config, self.views.mean, self.views.std, channels_last
            )

        views = None
        if cut.groups:
            counts = tuple(group.config.count for group in cut.groups)
            views = Views(tuple(coloured(group) for group in cut.groups), counts)
        support = None
        if cut.support is not None:
            support = Views((coloured(cut.support),), (self.views.support_views,))
        return Batch(
            views=views,
            index=_moved(cut.index, device),
            support=support,
            support_labels=_moved(cut.support_labels, device),
            support_classes=_moved(cut.support_classes, device),
        )

    def batches(
        self,
        start: int,
        stop: int,
        *,
        views_from: int = 0,
        workers: int = 0,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> Iterator[Batch]:
        """Yield batches start..stop-1; worker processes, if any, read them in advance.

        Those before batch `views_from` hold labelled images alone.
        """
        source = copy(self)
        source.views_from = views_from
        cuts: Iterator[Cut | _Refused]
        pins = torch.device(device).type == "cuda"
        if workers:
            loader: DataLoader[Cut | _Refused] = DataLoader(
                source,
                batch_size=None,
                sampler=range(start, stop),
                num_workers=workers,
                # Draws never use torch's generators; with its own, the loader does not touch the default one.
                generator=torch.Generator(),
                pin_memory=pins,
            )
            cuts = _started(loader)
        else:
            cuts = (source.cut(n).pin_memory() if pins else source.cut(n) for n in range(start, stop))
        for cut in cuts:
            if isinstance(cut, _Refused):
                raise OSError(cut.reason) if cut.by_system else ValueError(cut.reason)
            yield self.finish(cut, device, channels_last)


def _started(loader: DataLoader[Cut | _Refused]) -> Iterator[Cut | _Refused]:
    """Start a loader's workers, and leave the signal that tells of a dead one alone.

    Torch would raise from a handler of that signal, in the midst of whatever is being done, such as saving a
    checkpoint. Without it, the loader notices a dead worker within five seconds, when it waits for the next batch.
    """
    is_main = threading.current_thread() is threading.main_thread()
    number = getattr(signal, "SIGCHLD", None) if is_main else None  # only POSIX has it
    before = None if number is None else signal.getsignal(number)
    cuts = iter(loader)
    if number is not None:
        signal.signal(number, before)
    return cuts


def _crops(images: Tensor | Sequence[Tensor], keys: Keys, config: ViewConfig) -> Crops:
    """Cut one view per key from B images; keys are (V, B)."""
    num_views = len(keys)
    heights = np.array([image.shape[-2] for image in images])
    widths = np.array([image.shape[-1] for image in images])
    parameters = draw(config, keys.reshape(-1), np.tile(heights, num_views), np.tile(widths, num_views))
    return Crops(crop_resize_flip(images, parameters, config.size, config.colour == "fast"), parameters, config)


def _pinned(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.pin_memory()


def _moved(tensor: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if tensor is None else tensor.to(device, non_blocking=True)
