"""Which images a step sees: pure functions of the step.

Nothing is stored and nothing is advanced, so a resumed run sees what an uninterrupted one would have seen, and every
rank can tell what every other rank sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tapetum.data.labels.labels import Labels
from tapetum.ops.randomness import make_keys, permutation

Indices = npt.NDArray[np.int64]


@lru_cache(maxsize=4)
def epoch_order(num_images: int, seed: int, epoch: int) -> Indices:
    """The order in which an epoch visits the images: a permutation of 0..num_images-1 (read-only array)."""
    order = permutation(make_keys(seed, "epoch order", epoch), num_images)
    order.setflags(write=False)  # it is shared through the cache
    return order


def steps_in_epoch(num_images: int, batch_size: int) -> int:
    """Whole global batches in one pass through the pool; the incomplete last one is dropped.

    Raises:
        ValueError: the pool is smaller than one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give at least 1")
    if batch_size > num_images:
        raise ValueError(
            f"batch_size is {batch_size}, but the pool has only {num_images} images: lower batch_size to at most "
            f"{num_images}"
        )
    return num_images // batch_size


def batch_indices(
    step: int,
    steps_per_epoch: int,
    batch_size: int,
    num_images: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> Indices:
    """The pool images of one step on one rank.

    Args:
        step: counted from 0 over the whole run.
        steps_per_epoch: at most `steps_in_epoch(num_images, batch_size)`.
        batch_size: global. Rank r has the r-th of `world_size` contiguous parts of the global batch, so one rank
            and many see the same images in a step.

    Returns:
        (batch_size / world_size,) image indices; none comes twice within an epoch.

    Raises:
        ValueError: sizes that do not fit each other; names the fix.
    """
    available = steps_in_epoch(num_images, batch_size)
    if not 1 <= steps_per_epoch <= available:
        raise ValueError(
            f"steps_per_epoch is {steps_per_epoch}, but {num_images} images in batches of {batch_size} make "
            f"{available}: choose 1 to {available}"
        )
    _check_divides("batch_size", batch_size, world_size)
    epoch, position = divmod(step, steps_per_epoch)
    local = batch_size // world_size
    start = position * batch_size + rank * local
    return epoch_order(num_images, seed, epoch)[start : start + local].copy()


def _check_divides(name: str, size: int, world_size: int) -> None:
    if size % world_size:
        below = size - size % world_size
        nearest = f"{below} or {below + world_size}" if below else f"{world_size}"
        raise ValueError(
            f"{name} is {size} over all {world_size} processes and does not divide evenly among them: "
            f"choose a multiple of {world_size}, such as {nearest}"
        )


@dataclass(frozen=True, kw_only=True)
class SupportConfig:
    """The labelled support set that every step of PAWS-like methods carries. All sizes are global."""

    images_per_class: int
    """Labelled images of each sampled class per step, over all processes. Published: 64 (CIFAR-10), 7 (ImageNet)."""
    classes_per_batch: int | None = None
    """Classes sampled per step, over all processes; null: every class. Published: 10 (CIFAR-10), 960 (ImageNet)."""
    unique_classes_per_rank: bool = False
    """Whether each process holds classes of its own (published PAWS on ImageNet) or a share of every class."""

    def __post_init__(self) -> None:
        if self.images_per_class < 1:
            raise ValueError(f"images_per_class is {self.images_per_class}: give at least 1")
        if self.classes_per_batch is not None and self.classes_per_batch < 2:
            raise ValueError(
                f"classes_per_batch is {self.classes_per_batch}: give at least 2, or leave it out for every class"
            )


@dataclass(frozen=True)
class SupportDraw:
    """The support set of one step on one rank: S images in rounds of one image per class, [c0 c1 ... c0 c1 ...]."""

    indices: Indices
    """(S,) image indices."""
    labels: Indices
    """(S,) their classes."""
    rounds: Indices
    """(S,) the round that each belongs to, counted over all ranks: tells repeats of one image apart."""
    classes: Indices
    """(C,) the classes sampled in this step over all ranks, in the order of label columns. Where ranks have classes
    of their own, those of rank r are the r-th contiguous part."""


class SupportSampler:
    """Draws class-balanced support sets.

    Classes: each pass through the classes is a fresh permutation, cut into steps of `classes_per_batch`; where that
    does not divide the number of classes, the rest of the permutation is left out, as published. With every class
    sampled, a step's class order is a fresh permutation.

    Images: each pass through a class is a fresh permutation of its labelled images, cut into draws of
    `images_per_class`; no image comes twice within a pass, and what does not fill a draw is left out of this pass.
    A class with fewer images than that repeats them: each image as often as any other, or once more.

    Ranks: the draw is made for all ranks together. With shared classes, rank r has the r-th contiguous part of the
    rounds, so the ranks' supports in rank order *are* the single-process draw. With unique classes, rank r has all
    rounds of the r-th contiguous part of the classes: together the same images in another order.

    Args:
        labels: of the pool; every class needs at least one labelled image.
        config: global sizes.
        seed: of the run.
        rank, world_size: which share to return.

    Raises:
        ValueError: a class without labelled images, more classes per batch than there are, or sizes that do not
            divide among the processes; names the fix.

    Example:
        >>> import numpy as np
        >>> from tapetum.data.labels.labels import labels_from_values
        >>> from tapetum.data.batches.samplers import SupportConfig, SupportSampler
        >>> labels = labels_from_values([str(i) for i in range(6)], np.array([0, 1, 0, 1, -1, 1]))
        >>> draw = SupportSampler(labels, SupportConfig(images_per_class=2), seed=0).draw(step=5)
        >>> draw.indices.shape, draw.labels[:2].tolist() == draw.classes.tolist()
        ((4,), True)
    """

    def __init__(self, labels: Labels, config: SupportConfig, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_classes = labels.num_classes
        self.classes_per_batch = config.classes_per_batch or self.num_classes
        if self.classes_per_batch > self.num_classes:
            raise ValueError(
                f"classes_per_batch is {self.classes_per_batch} over all processes, but there are only "
                f"{self.num_classes} classes: lower it to at most {self.num_classes}, or leave it out for every class"
            )
        empty = np.flatnonzero(labels.counts == 0)
        if empty.size:
            raise ValueError(
                f"class {labels.classes[empty[0]]!r} has no labelled image: label at least one, or drop the class"
            )
        if config.unique_classes_per_rank:
            _check_divides("classes_per_batch", self.classes_per_batch, world_size)
        else:
            _check_divides("images_per_class", config.images_per_class, world_size)
        self.config = config
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._members = [np.flatnonzero(labels.values == c).astype(np.int64) for c in range(self.num_classes)]
        self._steps_per_pass = self.num_classes // self.classes_per_batch
        self._last_order: dict[int, tuple[int, Indices]] = {}

    @property
    def size(self) -> int:
        """S, the support images on each rank per step."""
        return self.classes_per_batch * self.config.images_per_class // self.world_size

    def _classes(self, step: int) -> Indices:
        """(C,) classes of a step, over all ranks."""
        turn, part = divmod(step, self._steps_per_pass)
        order = permutation(make_keys(self.seed, "support classes", turn), self.num_classes)
        return order[part * self.classes_per_batch : (part + 1) * self.classes_per_batch]

    def _order(self, of_class: int, turn: int) -> Indices:
        """A class's images in the order of one pass. The last pass is kept: a memo, from which nothing follows."""
        known = self._last_order.get(of_class)
        if known is None or known[0] != turn:
            members = self._members[of_class]
            key = make_keys(self.seed, "support images", of_class, turn)
            known = turn, members[permutation(key, len(members))]
            self._last_order[of_class] = known
        return known[1]

    def _images(self, of_class: int, occurrence: int) -> Indices:
        """(images_per_class,) images of a class when it may be sampled for the occurrence-th time."""
        count, available = self.config.images_per_class, len(self._members[of_class])
        if count > available:
            # Fresh passes for every draw, so that its images differ in number by one at most.
            passes = -(-count // available)
            orders = [self._order(of_class, occurrence * passes + i) for i in range(passes)]
            return np.concatenate(orders)[:count]
        turn, part = divmod(occurrence, available // count)
        return self._order(of_class, turn)[part * count : (part + 1) * count]

    def draw(self, step: int) -> SupportDraw:
        """The support set of one step on this rank; a pure function of the step."""
        classes = self._classes(step)
        local = classes
        if self.config.unique_classes_per_rank:
            local = np.split(classes, self.world_size)[self.rank]
        occurrence = step // self._steps_per_pass
        images = np.stack([self._images(int(c), occurrence) for c in local], axis=1)  # (images per class, classes)
        rounds = np.arange(len(images))
        if not self.config.unique_classes_per_rank:
            images, rounds = (np.split(array, self.world_size)[self.rank] for array in (images, rounds))
        labels = np.tile(local, len(images))
        return SupportDraw(images.reshape(-1), labels, np.repeat(rounds, len(local)), classes)
