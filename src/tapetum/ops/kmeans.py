"""Spherical k-means: clusters of unit vectors by their cosine, over the rows of all processes.

Dhillon & Modha, "Concept decompositions for large sparse text data using clustering", Machine Learning 2001.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.ops.collectives import sum_over_ranks
from tapetum.ops.precision import full_precision

SCORES_AT_ONCE = 2**25
"""Scores of rows against centroids held at a time: 128 MiB in float32."""


@full_precision
def kmeans(rows: Tensor, initial: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Centroids, and the cluster of each row.

    Each iteration assigns every row to the centroid of the largest cosine and replaces every centroid by the direction
    of its rows' mean. A centroid without rows stays where it is.

    Args:
        rows: (N, D) unit rows of this process; processes may bring different numbers of rows.
        initial: (K, D) unit rows, the same on all processes.
        iterations: of both halves; a last assignment follows, so that labels belong to the centroids returned.

    Returns:
        Centroids (K, D), unit rows, the same on all processes; clusters (N,) int64. No gradient. Beside `rows`, memory
        for `SCORES_AT_ONCE` scores twice over is needed, whatever N and K are.

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
