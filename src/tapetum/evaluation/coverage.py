"""Picks images that represent a pool: by clusters, by balls, or by distance; labels only say what is covered already.

All of it are functions of unit rows (N, D). None holds an N x N matrix: rows are compared with some others at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.ops.kmeans import kmeans, spread_rows
from tapetum.ops.precision import full_precision
from tapetum.ops.randomness import Keys, permutation

Indices = npt.NDArray[np.int64]

NEIGHBOURS = 20
"""Number of neighbours that say how typical an image is, as published for TypiClust."""
ITERATIONS = 30
"""Of k-means: clusters here only say where images lie."""
PURITY = 0.95
"""Share of balls that should hold one cluster only, as published for ProbCover."""
SMALL = 5
"""Clusters of so few images, or fewer, come last, because they are mostly outliers; published for TypiClust."""
_SAMPLE = 2000  # rows that a radius is measured on
_SHRINKS = 0.75  # of a radius with which everything is covered
_LEAST_RADIUS = 1e-3  # below it, balls only hold images that are the same to the network
_SCORES_AT_ONCE = 2**21  # cosines in memory at a time: 8 MiB in float32, which a processor's cache may hold


class Covered(NamedTuple):
    """Images picked by balls."""

    indices: Indices
    """(n,) in the order in which they were picked."""
    gains: Indices
    """(n,) number of images that each covers and none before it."""
    radius: float
    """Of the first balls."""


@full_precision
def clusters_of(rows: Tensor, count: int, key: Keys) -> Tensor:
    """Cluster unit rows (N, D) by spherical k-means into `count` clusters, N at most; returns (N,) int64 clusters."""
    count = min(count, len(rows))
    if count < 2:
        return torch.zeros(len(rows), dtype=torch.int64)
    return kmeans(rows, rows[spread_rows(rows, count, key)], ITERATIONS)[1]


@full_precision
def typicality(rows: Tensor, clusters: Tensor) -> Tensor:
    """Compute how typical each image is of its cluster: one over its mean distance to its nearest neighbours in it.

    Hacohen, Dekel & Weinshall, "Active learning on a budget: opposite strategies suit high and low budgets", ICML 2022,
    https://arxiv.org/abs/2202.02794, section 3.3: 20 neighbours, or half the cluster if that is less.

    Args:
        rows: (N, D) unit rows.
        clusters: (N,) int64.

    Returns:
        (N,) above 0; 0 for the only image of a cluster.

    Example:
        >>> import torch
        >>> rows = torch.nn.functional.normalize(torch.tensor([[5.0, 0], [5, 1], [5, 2], [0, 1]]))
        >>> typicality(rows, torch.tensor([0, 0, 0, 1])).argsort(descending=True).tolist()
        [1, 2, 0, 3]
    """
    found = torch.zeros(len(rows))
    for members in _members(clusters):
        if len(members) < 2:
            continue
        inside, k = rows[members], max(1, min(NEIGHBOURS, len(members) // 2))
        mean_distance, block = torch.empty(len(inside)), _block(inside, len(inside))
        for first, part in _parts(inside, len(inside)):
            cosines, own = torch.mm(part, inside.T, out=block[: len(part)]), torch.arange(len(part))
            cosines[own, first + own] = -2.0  # not its own neighbour
            mean_distance[first + own] = _distance(cosines.topk(k, dim=1).values).mean(dim=1)
        found[members] = 1 / (mean_distance + 1e-5)
    return found


def by_clusters(clusters: Tensor, labelled: Indices, score: Tensor, count: int) -> Indices:
    """Pick the unlabelled images of highest score, from clusters in turn: those with the fewest labels first.

    Of clusters with equally many labels, picked images included, the largest comes first. Clusters of `SMALL` images or
    fewer come after all others.

    Args:
        clusters: (N,) int64.
        labelled: (L,) indices of labelled images.
        score: (N,).
        count: number of images to pick; fewer if fewer are unlabelled.

    Returns:
        (n,) indices, best first.
    """
    had = np.bincount(clusters.numpy()[labelled], minlength=int(clusters.max()) + 1)
    is_open = torch.ones(len(clusters), dtype=torch.bool)
    is_open[torch.from_numpy(labelled)] = False
    turns = []
    for number, members in enumerate(_members(clusters)):
        left = members[is_open[members]]
        best = left[score[left].argsort(descending=True, stable=True)][:count]
        is_small = len(members) <= SMALL
        turns += [(is_small, had[number] + j, -len(members), number, i) for j, i in enumerate(best.tolist())]
    return np.array([turn[-1] for turn in sorted(turns)[:count]], dtype=np.int64)


@full_precision
def pure_radius(rows: Tensor, clusters: Tensor, key: Keys, purity: float = PURITY) -> float:
    """Find the largest radius with which a share `purity` of all balls around images holds one cluster only.

    Yehuda et al., "Active learning through a covering lens", NeurIPS 2022, https://arxiv.org/abs/2205.11320
    search for it. It is a quantile: a ball is pure up to the distance of its centre from the nearest image of another
    cluster.

    Args:
        rows: (N, D) unit rows.
        clusters: (N,) int64; at least two clusters.
        key: decides which 2,000 images are measured.

    Returns:
        A Euclidean distance, between 0 and 2.
    """
    sample = torch.from_numpy(permutation(key, len(rows))[:_SAMPLE])
    nearest = []
    for first, part in _parts(rows[sample], len(rows)):
        own = clusters[sample[first : first + len(part)]]
        cosines = (part @ rows.T).masked_fill_(own[:, None] == clusters[None, :], -2.0)
        nearest.append(cosines.amax(dim=1))
    return float(torch.quantile(_distance(torch.cat(nearest)), 1 - purity))


@full_precision
def by_balls(rows: Tensor, labelled: Indices, count: int, radius: float) -> Covered:
    """Pick one after the other the image whose ball covers most images that no ball of a labelled or picked one covers.

    This is ProbCover's greedy cover (Yehuda et al., algorithm 1), exact, but without its graph: after a pick, the
    counts of all images are reduced by the newly covered images near them, so an image is compared with all others
    twice at most. Once everything is covered, it goes on with balls of three quarters of the radius.

    Args:
        rows: (N, D) unit rows.
        labelled: (L,) indices of labelled images.
        count: number of images to pick; fewer if fewer are unlabelled.
        radius: Euclidean.

    Example:
        >>> import torch
        >>> angles = torch.tensor([0.0, 0.1, 0.2, 3.0, 3.1])
        >>> rows = torch.stack([angles.cos(), angles.sin()], dim=1)
        >>> by_balls(rows, np.array([], np.int64), 2, radius=0.15).indices.tolist()
        [1, 3]
    """
    taken, first_radius = labelled, radius
    picked: list[int] = []
    gains: list[int] = []
    wanted = min(count, len(rows) - len(labelled))
    while len(picked) < wanted and radius >= _LEAST_RADIUS:
        some, gained = _cover(rows, taken, wanted - len(picked), radius)
        picked, gains, radius = picked + some, gains + gained, _SHRINKS * radius
        taken = np.concatenate([labelled, np.array(picked, dtype=np.int64)])
    left = np.setdiff1d(np.arange(len(rows)), taken)[: wanted - len(picked)].tolist()
    return Covered(np.array(picked + left, np.int64), np.array(gains + [0] * len(left), np.int64), first_radius)


def _cover(rows: Tensor, taken: Indices, count: int, radius: float) -> tuple[list[int], list[int]]:
    """The picks with balls of one radius, until everything is covered, and what each gained."""
    least = 1 - radius**2 / 2
    is_open = torch.ones(len(rows), dtype=torch.bool)
    is_open[torch.from_numpy(taken)] = False
    uncovered = is_open.clone()
    if len(taken):
        centres = rows[torch.from_numpy(taken)]
        for first, part in _parts(rows, len(centres)):
            uncovered[first : first + len(part)] &= (part @ centres.T).amax(dim=1) < least
    counts = _near(rows, rows[uncovered], least)
    picked: list[int] = []
    gains: list[int] = []
    while len(picked) < count and bool(uncovered.any()):
        best = int(torch.where(is_open, counts, -1).argmax())
        newly = uncovered & (rows @ rows[best] >= least)
        newly[best] = uncovered[best]  # by rounding, an image may be outside its own ball
        if not bool(newly.any()):
            break
        picked.append(best)
        gains.append(int(newly.sum()))
        is_open[best] = False
        uncovered &= ~newly
        counts -= _near(rows, rows[newly], least)
    return picked, gains


def _near(rows: Tensor, others: Tensor, least: float) -> Tensor:
    """(N,) int64 numbers of the others (M, D) with a cosine of at least `least`."""
    if not len(others):
        return torch.zeros(len(rows), dtype=torch.int64)
    counts, block = torch.empty(len(rows), dtype=torch.int64), _block(rows, len(others))
    for first, part in _parts(rows, len(others)):
        # Ones are counted as floats, in place, which is twice as fast as to count truths and exact up to 16 million.
        near = torch.mm(part, others.T, out=block[: len(part)]).ge_(least)
        counts[first : first + len(part)] = near.sum(dim=1)
    return counts


@full_precision
def by_distance(rows: Tensor, labelled: Indices, count: int) -> Indices:
    """Pick one after the other the image farthest from all labelled and picked ones: greedy k-center.

    Sener & Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018,
    https://arxiv.org/abs/1708.00489, algorithm 1. Without labels it starts with the image nearest to the mean.

    Args:
        rows: (N, D) unit rows.
        labelled: (L,) indices of labelled images.
        count: number of images to pick; fewer if fewer are unlabelled.
    """
    picked: list[int] = []
    nearest = torch.full((len(rows),), -2.0)  # cosine with the nearest labelled or picked image
    if len(labelled):
        centres = rows[torch.from_numpy(labelled)]
        nearest = torch.cat([(part @ centres.T).amax(dim=1) for _, part in _parts(rows, len(centres))])
        nearest[torch.from_numpy(labelled)] = 2.0
    for _ in range(min(count, len(rows) - len(labelled))):
        is_first = not (picked or len(labelled))
        best = int((rows @ rows.mean(dim=0)).argmax() if is_first else nearest.argmin())
        picked.append(best)
        nearest = torch.maximum(nearest, rows @ rows[best])
        nearest[best] = 2.0
    return np.array(picked, dtype=np.int64)


def _members(clusters: Tensor) -> tuple[Tensor, ...]:
    """The indices of each cluster's images, ascending."""
    return clusters.argsort(stable=True).split(clusters.bincount().tolist())


def _parts(rows: Tensor, others: int) -> Iterator[tuple[int, Tensor]]:
    """Rows some at a time, each with the number of the first, for products with so many others."""
    size = max(1, _SCORES_AT_ONCE // max(1, others))
    for first in range(0, len(rows), size):
        yield first, rows[first : first + size]


def _block(rows: Tensor, others: int) -> Tensor:
    """Memory for the products of all parts: made anew for each, with small results between, it would pile up."""
    return rows.new_empty(min(len(rows), max(1, _SCORES_AT_ONCE // others)), others)


def _distance(cosines: Tensor) -> Tensor:
    """Euclidean distances of unit rows."""
    return (2 - 2 * cosines).clamp_min(0).sqrt()
