"""Chooses the labelled images of each step in shuffled passes, as classifiers are usually trained."""

from functools import lru_cache

import numpy as np

from tapetum.data.batches.samplers import Indices, SupportConfig, SupportDraw, SupportSampler, check_divides
from tapetum.data.labels.labels import Labels
from tapetum.ops.randomness import make_keys, permutation


class ShuffledSampler:
    """Draws labelled images in shuffled passes, whatever their classes.

    The passes follow each other without a gap: a step may take the last images of one pass and the first of the next,
    so every image is drawn equally often, however few there are. Rank r gets the r-th contiguous part of a step.

    Args:
        labels, config, seed, rank, world_size: as for `SupportSampler`; classes without a labelled image are allowed.

    Raises:
        ValueError: no image is labelled, or the batch size does not divide among the processes.

    Example:
        >>> import numpy as np
        >>> from tapetum.data.labels.labels import labels_from_values
        >>> labels = labels_from_values([str(i) for i in range(4)], np.array([0, 1, -1, 1]))
        >>> sampler = ShuffledSampler(labels, SupportConfig(batch_size=2), seed=0)
        >>> sorted(np.concatenate([sampler.draw(step).indices for step in range(3)]).tolist())
        [0, 0, 1, 1, 3, 3]
    """

    def __init__(self, labels: Labels, config: SupportConfig, seed: int, rank: int = 0, world_size: int = 1) -> None:
        assert config.batch_size is not None
        if not len(labels.labelled):
            raise ValueError("no image is labelled: label at least one of each class")
        check_divides("batch_size", config.batch_size, world_size)
        self.batch_size, self.size = config.batch_size, config.batch_size // world_size
        self.seed, self.rank = seed, rank
        self._members, self._labels = labels.labelled.astype(np.int64), labels.values.astype(np.int64)
        self._classes = np.arange(labels.num_classes)

    def draw(self, step: int) -> SupportDraw:
        """Draw the labelled images of one step on this rank; a pure function of the step."""
        count, first = len(self._members), step * self.batch_size
        places = first + self.rank * self.size + np.arange(self.size)
        turns, positions = np.divmod(places, count)
        orders = {turn: _labelled_order(count, self.seed, turn) for turn in np.unique(turns).tolist()}
        rows = np.array([orders[turn][position] for turn, position in zip(turns.tolist(), positions.tolist())])
        images = self._members[rows]
        return SupportDraw(images, self._labels[images], turns - first // count, self._classes)


@lru_cache(maxsize=4)
def _labelled_order(count: int, seed: int, turn: int) -> Indices:
    return permutation(make_keys(seed, "labelled order", turn), count)


def labelled_sampler(
    labels: Labels, config: SupportConfig, seed: int, rank: int = 0, world_size: int = 1
) -> SupportSampler | ShuffledSampler:
    """Make the sampler that a config asks for."""
    kind = SupportSampler if config.batch_size is None else ShuffledSampler
    return kind(labels, config, seed, rank, world_size)
