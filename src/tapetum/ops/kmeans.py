"""Spherical k-means: clusters unit vectors by their cosine, over the rows of all processes.

Dhillon & Modha, "Concept decompositions for large sparse text data using clustering", Machine Learning 2001.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.ops.collectives import sum_over_ranks
from tapetum.ops.precision import full_precision
from tapetum.ops.randomness import Keys, make_keys, permutation, uniform

SCORES_AT_ONCE = 2**25
"""Number of scores of rows against centroids in memory at a time: 128 MiB in float32."""


@full_precision
def kmeans(rows: Tensor, initial: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster rows; returns the centroids and the cluster of each row.

    Each iteration assigns every row to the centroid with the largest cosine and replaces every centroid by the
    direction of its rows' mean. A centroid without rows stays where it is.

    Args:
        rows: (N, D) unit rows of this process; other processes may have more or fewer rows.
        initial: (K, D) unit rows, the same on all processes.
        iterations: number of iterations; a last assignment follows, so that clusters match the returned centroids.

    Returns:
        Centroids (K, D), unit rows, the same on all processes; clusters (N,) int64. No gradient. For any N and K,
        the memory needed in addition to `rows` is that of twice `SCORES_AT_ONCE` scores.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> kmeans(rows, rows[[0, 2]], iterations=3)[1]
        tensor([0, 0, 1])
    """
    rows, centroids = rows.detach(), initial.detach()
    parts = rows.split(max(1, SCORES_AT_ONCE // len(initial)))
    for _ in range(iterations):
        sums, counts = torch.zeros_like(centroids), centroids.new_zeros(len(centroids), 1)
        for part in parts:
            scores = part @ centroids.T
            members = torch.zeros_like(scores).scatter_(1, scores.argmax(dim=1, keepdim=True), 1.0)  # one-hot
            sums += members.T @ part  # a product, because scattered additions have no fixed order on GPUs
            counts += members.sum(dim=0)[:, None]
        sums, counts = sum_over_ranks(sums), sum_over_ranks(counts)
        centroids = normalize(torch.where(counts > 0, sums / counts.clamp_min(1), centroids), dim=1)
    return centroids, torch.cat([(part @ centroids.T).argmax(dim=1) for part in parts])


@full_precision
def spread_rows(rows: Tensor, count: int, key: Keys) -> Tensor:
    """Pick rows far apart to start k-means from, by greedy k-means++ (Arthur & Vassilvitskii, SODA 2007).

    Each further row is the best of a few candidates, drawn with a probability proportional to the squared distance
    from the nearest row chosen so far. The best candidate leaves the smallest sum of these distances.

    Args:
        rows: (N, D) unit rows; N is at least `count`. Only a sample of 100 K of them, at least 10,000, is considered.
        count: K.
        key: 0-d; decides the draws.

    Returns:
        (K,) int64 indices, which are distinct if the rows are.
    """
    sample = torch.from_numpy(permutation(key, len(rows))[: max(10_000, 100 * count)]).to(rows.device)
    candidates = rows.detach()[sample]
    tries = 2 + int(math.log(count))
    numbers = torch.from_numpy(uniform(make_keys(int(key), np.arange(count)), tries)).to(rows.device)
    chosen = torch.zeros(count, dtype=torch.int64, device=rows.device)
    distance = 1 - candidates @ candidates[0]  # half the squared distance
    for i in range(1, count):
        total = distance.clamp_min(0).double().cumsum(dim=0)
        drawn = torch.searchsorted(total, numbers[i] * total[-1], right=True).clamp_max(len(candidates) - 1)
        distances = torch.minimum(distance, 1 - candidates[drawn] @ candidates.T)  # (tries, N)
        best = distances.sum(dim=1).argmin()
        chosen[i], distance = drawn[best], distances[best]
    return sample[chosen]
