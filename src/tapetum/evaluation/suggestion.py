"""Which images to label next, and why: coverage of the pool while labels are few, doubt among typical images later."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.evaluation.coverage import by_balls, by_clusters, by_distance, clusters_of, pure_radius, typicality
from tapetum.evaluation.doubt import by_gradients, margins
from tapetum.evaluation.soft_neighbours import classify_by_neighbours
from tapetum.ops.randomness import make_keys, permutation

Indices = npt.NDArray[np.int64]

MOST_CLUSTERS = 500
"""Greatest number of clusters, as published for TypiClust: smaller clusters are not reliable."""
FEW_PER_CLASS = 4
"""With fewer labels than this per class, on average, coverage is the default; with more, doubt. On CIFAR-10
(JPEG), doubt is better from 40 labels on (docs/results.md)."""
_GUESSED_CLASSES = 10  # of which balls should not mix two, if no label tells how many there are


@dataclass(frozen=True)
class Labelled:
    """Embedded images, some of them labelled."""

    rows: Tensor
    """(N, D) float32 unit rows, no two of them of near copies of one image."""
    labelled: Indices
    """(L,) indices of the labelled images."""
    labels: Indices
    """(L,) their classes, as indices into `classes`."""
    classes: tuple[str, ...]
    seed: int = 0

    def key(self, purpose: str) -> npt.NDArray[np.uint64]:
        """A key of its own for each purpose and number of labels."""
        return make_keys(self.seed, "suggest", purpose, len(self.labelled))

    def shares(self) -> Tensor:
        """(N, C) class shares by soft nearest neighbours among the labelled images."""
        labels = torch.from_numpy(self.labels)
        return classify_by_neighbours(self.rows, self.rows[torch.from_numpy(self.labelled)], labels, len(self.classes))


class Suggestion(NamedTuple):
    """An image to label."""

    image: int
    """Its index."""
    reason: str
    """Why, in words."""


Way = Callable[[Labelled, int], list[Suggestion]]


def distinct(num_images: int, copies: Sequence[Sequence[int]], labelled: Indices) -> Indices:
    """Leave one image of each group of copies: the labelled ones if there are any, else the first.

    Args:
        num_images: N.
        copies: groups of indices, each image in one of them at most.
        labelled: indices of labelled images, all of which stay.

    Returns:
        Ascending indices.

    Example:
        >>> distinct(6, [[0, 1], [3, 4, 5]], np.array([4])).tolist()
        [0, 2, 4]
    """
    stays, has_label = np.ones(num_images, dtype=bool), set(labelled.tolist())
    for group in copies:
        stays[list(group)] = False
        stays[[i for i in group if i in has_label] or [min(group)]] = True
    return np.flatnonzero(stays).astype(np.int64)


def default_way(num_labels: int, num_classes: int) -> str:
    """The way that is used if none is named."""
    is_early = num_classes < 2 or num_labels < FEW_PER_CLASS * num_classes
    return "typiclust" if is_early else "doubt"


def check_way(by: str) -> None:
    """Raise ValueError if there is no way of that name."""
    if by not in WAYS:
        raise ValueError(f"by is {by!r}: choose one of {', '.join(WAYS)}.")


def suggest_from(pool: Labelled, count: int, by: str) -> list[Suggestion]:
    """Suggest unlabelled images of a pool, best first; fewer than `count` if fewer are left.

    Args:
        pool: the images.
        count: how many to suggest.
        by: one of `WAYS`.

    Raises:
        ValueError: there is no such way, or it needs labels of two classes.
    """
    check_way(by)
    if by in NEED_LABELS and len(np.unique(pool.labels)) < 2:
        raise ValueError(
            f"by is {by}, which needs labels of two classes or more: label some images first, or use {_COVERAGE}."
        )
    return WAYS[by](pool, count)


def _num_clusters(pool: Labelled, count: int) -> int:
    return min(MOST_CLUSTERS, len(pool.labelled) + count)


def _by_typiclust(pool: Labelled, count: int) -> list[Suggestion]:
    clusters = clusters_of(pool.rows, _num_clusters(pool, count), pool.key("clusters"))
    sizes = clusters.bincount().tolist()
    picked = by_clusters(clusters, pool.labelled, typicality(pool.rows, clusters), count)
    return [
        Suggestion(i, f"typical of {sizes[c]} similar images")
        for i, c in zip(picked.tolist(), clusters[picked].tolist())
    ]


def _by_probcover(pool: Labelled, count: int) -> list[Suggestion]:
    clusters = clusters_of(
        pool.rows, len(pool.classes) if len(pool.classes) > 1 else _GUESSED_CLASSES, pool.key("balls")
    )
    radius = pure_radius(pool.rows, clusters, pool.key("radius"))
    picked, gains, _ = by_balls(pool.rows, pool.labelled, count, radius)
    return [
        Suggestion(i, f"like {gain} images that no label covers") for i, gain in zip(picked.tolist(), gains.tolist())
    ]


def _by_kcenter(pool: Labelled, count: int) -> list[Suggestion]:
    return [
        Suggestion(i, "far from every labelled image") for i in by_distance(pool.rows, pool.labelled, count).tolist()
    ]


def _by_margin(pool: Labelled, count: int) -> list[Suggestion]:
    shares = pool.shares()
    order = margins(shares).argsort(stable=True).numpy()
    return _doubtful(pool, shares, order[~np.isin(order, pool.labelled)][:count])


def _by_badge(pool: Labelled, count: int) -> list[Suggestion]:
    shares = pool.shares()
    return _doubtful(pool, shares, by_gradients(pool.rows, shares, pool.labelled, count, pool.key("gradients")))


def _by_doubt(pool: Labelled, count: int) -> list[Suggestion]:
    shares = pool.shares()
    clusters = clusters_of(pool.rows, _num_clusters(pool, count), pool.key("clusters"))
    score = typicality(pool.rows, clusters) * (1 - margins(shares))
    return _doubtful(pool, shares, by_clusters(clusters, pool.labelled, score, count))


def _by_random(pool: Labelled, count: int) -> list[Suggestion]:
    order = permutation(pool.key("random"), len(pool.rows))
    return [Suggestion(i, "at random") for i in order[~np.isin(order, pool.labelled)][:count].tolist()]


def _doubtful(pool: Labelled, shares: Tensor, picked: Indices) -> list[Suggestion]:
    values, classes = shares[picked].topk(2, dim=1)
    found = []
    for i, (p, q), (first, second) in zip(picked.tolist(), values.tolist(), classes.tolist()):
        between = f"in doubt: {pool.classes[first]} ({p:.0%}) or {pool.classes[second]} ({q:.0%})"
        found.append(Suggestion(i, between))
    return found


WAYS: dict[str, Way] = {
    "typiclust": _by_typiclust,
    "probcover": _by_probcover,
    "kcenter": _by_kcenter,
    "margin": _by_margin,
    "badge": _by_badge,
    "doubt": _by_doubt,
    "random": _by_random,
}
NEED_LABELS = ("margin", "badge", "doubt")
_COVERAGE = ", ".join(name for name in WAYS if name not in NEED_LABELS)
