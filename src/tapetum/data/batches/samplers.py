"""Chooses the images of each step by pure functions of the step.

No state is stored or advanced, so a resumed run sees the same images as an uninterrupted one, and every rank knows
which images the other ranks see.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tapetum.data.labels.labels import Labels
from tapetum.ops.randomness import make_keys, permutation

Indices = npt.NDArray[np.int64]


@lru_cache(maxsize=4)
def epoch_order(num_images: int, seed: int, epoch: int) -> Indices:
    """Return the order in which an epoch visits the images: a permutation of 0..num_images-1 (read-only array)."""
    order = permutation(make_keys(seed, "epoch order", epoch), num_images)
    order.setflags(write=False)  # it is shared through the cache
    return order


def steps_in_epoch(num_images: int, batch_size: int) -> int:
    """Count the whole global batches in one pass through the pool; an incomplete last batch is dropped.

    Raises:
        ValueError: batch_size is below 1, or the pool is smaller than one batch.
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
    """Return the pool images of one step on one rank.

    Args:
        step: counted from 0 over the whole run.
        steps_per_epoch: at most `steps_in_epoch(num_images, batch_size)`.
        batch_size: global. Rank r gets the r-th of `world_size` contiguous parts of the global batch, so a step
            sees the same images on any number of ranks.

    Returns:
        (batch_size / world_size,) image indices; no image comes twice within an epoch.

    Raises:
        ValueError: sizes do not fit each other; the message names the fix.
    """
    available = steps_in_epoch(num_images, batch_size)
    if not 1 <= steps_per_epoch <= available:
        raise ValueError(
            f"steps_per_epoch is {steps_per_epoch}, but {num_images} images in batches of {batch_size} make "
            f"{available}: choose 1 to {available}"
        )
    check_divides("batch_size", batch_size, world_size)
    epoch, position = divmod(step, steps_per_epoch)
    local = batch_size // world_size
    start = position * batch_size + rank * local
    return epoch_order(num_images, seed, epoch)[start : start + local].copy()


def check_divides(name: str, size: int, world_size: int) -> None:
    if size % world_size:
        below = size - size % world_size
        nearest = f"{below} or {below + world_size}" if below else f"{world_size}"
        raise ValueError(
            f"{name} is {size} over all {world_size} processes and does not divide evenly among them: "
            f"choose a multiple of {world_size}, such as {nearest}"
        )


@dataclass(frozen=True, kw_only=True)
class SupportConfig:
    """The labelled images in every step of methods that use any. All sizes are global: over all processes.

    Give either `images_per_class`, for a support set balanced over the classes, or `batch_size`.
    """

    images_per_class: int | None = None
    """Labelled images of each sampled class per step, over all processes. Published: 64 (CIFAR-10), 7 (ImageNet)."""
    classes_per_batch: int | None = None
    """Classes sampled per step, over all processes; null: every class. Published: 10 (CIFAR-10), 960 (ImageNet)."""
    unique_classes_per_rank: bool = False
    """True gives each process classes of its own (published PAWS on ImageNet); false, a share of every class."""
    batch_size: int | None = None
    """Labelled images per step in shuffled passes through all of them, whatever their classes: the usual way to train
    a classifier, and that of the published fine-tuning (1,024 in PAWS, 256 in SwAV)."""
    chunk: int | None = None
    """The most labelled images, of all views and over all processes, that pass through the backbone at once. Their
    activations are computed again in the backward pass, so that memory holds one chunk's; each chunk has batch
    statistics of its own. Null: all at once, together with the large views, as published."""

    def __post_init__(self) -> None:
        if (self.images_per_class is None) == (self.batch_size is None):
            raise ValueError(
                f"images_per_class is {_shown(self.images_per_class)} and batch_size is {_shown(self.batch_size)}: "
                "give one of them, images_per_class for a balanced support set."
            )
        for name in ("images_per_class", "batch_size", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give at least 1")
        if self.classes_per_batch is not None and self.classes_per_batch < 2:
            raise ValueError(
                f"classes_per_batch is {self.classes_per_batch}: give at least 2, or leave it out for every class"
            )
        if self.batch_size is not None and (self.classes_per_batch or self.unique_classes_per_rank):
            raise ValueError(
                f"batch_size is {self.batch_size}, which takes classes as they come: leave out classes_per_batch and "
                "unique_classes_per_rank."
            )

    def chunk_here(self, world_size: int) -> int | None:
        """Return the share of `chunk` of each of so many processes.

        Raises:
            ValueError: it does not divide evenly among them.
        """
        if self.chunk is None:
            return None
        check_divides("support.chunk", self.chunk, world_size)
        return self.chunk // world_size


def _shown(value: int | None) -> str:
    return "null" if value is None else str(value)


@dataclass(frozen=True)
class SupportDraw:
    """The support set of one step on one rank: S images in rounds of one image per class, [c0 c1 ... c0 c1 ...]."""

    indices: Indices
    """(S,) image indices."""
    labels: Indices
    """(S,) their classes."""
    rounds: Indices
    """(S,) the round of each image, counted over all ranks: distinguishes repeats of one image."""
    classes: Indices
    """(C,) the classes sampled in this step over all ranks, in the order of label columns. If ranks have classes of
    their own, rank r has the r-th contiguous part."""


class SupportSampler:
    """Draws class-balanced support sets.

    Classes: each pass through the classes is a fresh permutation, cut into steps of `classes_per_batch`. If that does
    not divide the number of classes, the rest of the permutation is dropped, as in the published code. If every class
    is sampled, the class order of each step is a fresh permutation.

    Images: each pass through a class is a fresh permutation of its labelled images, cut into draws of
    `images_per_class`. No image comes twice within a pass, and images that do not fill a draw are dropped from this
    pass. A class with fewer images than a draw needs repeats them as evenly as possible.

    Ranks: the draw is made for all ranks together. With shared classes, rank r gets the r-th contiguous part of the
    rounds, so the ranks' supports in rank order *are* the single-process draw. With unique classes, rank r gets all
    rounds of the r-th contiguous part of the classes: together, the same images in another order.

    Args:
        labels: labels of the pool; every class needs at least one labelled image.
        config: global sizes.
        seed: seed of the run.
        rank, world_size: which share to return.

    Raises:
        ValueError: a class has no labelled image, a batch has more classes than there are, or sizes do not divide
            among the processes; the message names the fix.

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
        assert config.images_per_class is not None
        self.num_classes, self.images_per_class = labels.num_classes, config.images_per_class
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
            check_divides("classes_per_batch", self.classes_per_batch, world_size)
        else:
            check_divides("images_per_class", self.images_per_class, world_size)
        self.config = config
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._members = [np.flatnonzero(labels.values == c).astype(np.int64) for c in range(self.num_classes)]
        self._steps_per_pass = self.num_classes // self.classes_per_batch
        self._last_order: dict[int, tuple[int, Indices]] = {}

    @property
    def size(self) -> int:
        """S, the number of support images per step on each rank."""
        return self.classes_per_batch * self.images_per_class // self.world_size

    def _classes(self, step: int) -> Indices:
        """Return the classes (C,) of a step, over all ranks."""
        turn, part = divmod(step, self._steps_per_pass)
        order = permutation(make_keys(self.seed, "support classes", turn), self.num_classes)
        return order[part * self.classes_per_batch : (part + 1) * self.classes_per_batch]

    def _order(self, of_class: int, turn: int) -> Indices:
        """Return a class's images in the order of one pass; the last order is cached, only for speed."""
        known = self._last_order.get(of_class)
        if known is None or known[0] != turn:
            members = self._members[of_class]
            key = make_keys(self.seed, "support images", of_class, turn)
            known = turn, members[permutation(key, len(members))]
            self._last_order[of_class] = known
        return known[1]

    def _images(self, of_class: int, occurrence: int) -> Indices:
        """Return the images (images_per_class,) of a class in the occurrence-th pass through the classes."""
        count, available = self.images_per_class, len(self._members[of_class])
        if count > available:
            # Every draw starts fresh passes, so that the counts of its images differ by one at most.
            passes = -(-count // available)
            orders = [self._order(of_class, occurrence * passes + i) for i in range(passes)]
            return np.concatenate(orders)[:count]
        turn, part = divmod(occurrence, available // count)
        return self._order(of_class, turn)[part * count : (part + 1) * count]

    def draw(self, step: int) -> SupportDraw:
        """Draw the support set of one step on this rank; a pure function of the step."""
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
