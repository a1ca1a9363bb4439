"""From a step's number to its batch: the one path that every training image takes.

`Pipeline.cut` draws images and views, reads the images and cuts uint8 crops from them. It is a pure function of the
step and may run in a worker process. `Pipeline.finish` distorts colours and normalises, in batches, on the compute
device. Neither keeps state, so any step's batch can be rebuilt on its own, with the same bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tapetum.data.batch import Batch, Views
from tapetum.data.batches.samplers import SupportConfig, SupportSampler, batch_indices, steps_in_epoch
from tapetum.data.batches.shuffled_sampler import ShuffledSampler, labelled_sampler
from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.data.views.apply import crop_resize_flip, distort_colour, normalise
from tapetum.data.views.draw import ViewConfig, ViewParameters, ViewsConfig, draw
from tapetum.ops.randomness import Keys, make_keys

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images and labels that a run learns from. All sizes are global: they are divided among the processes."""

    images: str | None = None
    """The pool: a folder of images (one folder per class, or flat), a .txt or .csv file of image paths,
    `cifar-10-batches-py`, a folder of IDX files or of SVHN's .mat files, an .npy or .npz file, or `digits`."""
    labels: str | None = None
    """A CSV of `path,label`, a JSON file, a .txt list (names or indices) of the images that keep their own labels, an
    .npy file of labels or of such indices, or a folder of class folders whose images join the pool; null takes the
    labels that come with `images`."""
    test: str | None = None
    """Labelled images to evaluate on, only at the end of the run; null for none."""
    labels_per_class: int | None = None
    """Keep this many labels per class and treat the other images as unlabelled; null keeps all."""
    labels_percent: float | None = None
    """Keep this percentage of the labels of each class, but at least one; null keeps all."""
    held_out_per_class: int | None = None
    """Keep this many labelled images per class out of training, even as unlabelled images, and measure accuracy on
    them during training; null for none. They are drawn from all labels, before `labels_per_class`."""
    held_out_share: float | None = None
    """Like `held_out_per_class`, but hold out this share of the labels that `labels_per_class` leaves in each class:
    at least one if a class has three or more labels, none if it has fewer. Null for none."""
    folds: int | None = None
    """Before training, measure accuracy on all labels by this many short runs, each with a different part of each
    class's labels held out (cross-validation); the training itself holds none out. Null for none."""
    fold: int | None = None
    """Number, from 0, of the part held out if this run is one of the short runs of `folds`; null if not."""
    pool: bool = True
    """Whether unlabelled images are used; false cuts the pool to the labelled images (an ablation)."""
    label_seed: int = 0
    """Seed of the random choice of labels by `labels_per_class`, `labels_percent`, `held_out_per_class`,
    `held_out_share` and `folds`."""
    shrink_to: int | None = None
    """Shrink image files as they are read, so that the shorter side has at most this many pixels: this is faster and
    lets a pool of photographs be decoded once. Null reads them at full size. Arrays are not shrunk."""
    strict: bool = False
    """Whether an image that cannot be read stops the run; false skips it and lists it in unreadable.csv."""
    batch_size: int = 256
    """Pool images per batch; each batch gives one loss."""
    workers: int = 0
    """Processes that read and crop images in advance; 0 uses the training process, best for images in memory."""

    def __post_init__(self) -> None:
        for name in ("labels_per_class", "held_out_per_class", "shrink_to", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: use 1 or more.")
        if self.labels_percent is not None and self.labels_per_class is not None:
            raise ValueError(
                f"labels_percent is {self.labels_percent:g} and labels_per_class is {self.labels_per_class}: set one "
                "of them to null."
            )
        if self.labels_percent is not None and not 0 < self.labels_percent <= 100:
            raise ValueError(f"labels_percent is {self.labels_percent:g}: use more than 0 and at most 100.")
        if self.held_out_share is not None:
            if not 0 < self.held_out_share < 1:
                raise ValueError(f"held_out_share is {self.held_out_share}: use a share between 0 and 1, such as 0.2.")
            if self.held_out_per_class is not None:
                raise ValueError(
                    f"held_out_share is {self.held_out_share} and held_out_per_class is {self.held_out_per_class}: set "
                    "one of them to null."
                )
        if self.folds is not None and (self.folds < 2 or self.held_out_share or self.held_out_per_class):
            raise ValueError(
                f"folds is {self.folds}: use 2 or more, and set held_out_share and held_out_per_class to null."
            )
        if self.fold is not None and not 0 <= self.fold < (self.folds or 0):
            raise ValueError(f"fold is {self.fold}: use null, or a number from 0 to folds - 1.")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}: use 0 or more.")


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


class Pipeline(Dataset[Cut]):
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

    def cut(self, number: int) -> Cut:
        """Draw, read and crop batch `number`, on the CPU."""
        groups: list[Crops] = []
        index = None
        if self.batch_size is not None:
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

    __getitem__ = cut

    def finish(self, cut: Cut, device: torch.device | str = "cpu", channels_last: bool = False) -> Batch:
        """Move a cut batch to the device, distort its colours and normalise it."""

        def coloured(crops: Crops) -> Tensor:
            pixels = distort_colour(crops.pixels.to(device, non_blocking=True), crops.parameters, crops.config)
            return normalise(pixels, self.views.mean, self.views.std, channels_last)

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
        workers: int = 0,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> Iterator[Batch]:
        """Yield batches start..stop-1; worker processes, if any, read them in advance."""
        cuts: Iterator[Cut] | DataLoader[Cut]
        pins = torch.device(device).type == "cuda"
        if workers:
            cuts = DataLoader(
                self,
                batch_size=None,
                sampler=range(start, stop),
                num_workers=workers,
                # Draws never use torch's generators; with its own, the loader does not touch the default one.
                generator=torch.Generator(),
                pin_memory=pins,
            )
        else:
            cuts = (self.cut(n).pin_memory() if pins else self.cut(n) for n in range(start, stop))
        for cut in cuts:
            yield self.finish(cut, device, channels_last)


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
