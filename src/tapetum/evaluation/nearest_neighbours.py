"""Weighted k-NN evaluation, the usual measure of representations that were learned without labels.

Votes as in Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018,
https://arxiv.org/abs/1805.01978, as used for SwAV and DINO.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.ops.precision import full_precision

NEIGHBOURS = (20, 200)
"""Numbers of neighbours in SwAV's published evaluations; the first is the one quoted."""
TEMPERATURE = 0.07
"""tau of the votes' weights in the published protocol."""
SCORES_AT_ONCE = 2**24
"""Number of similarities in memory at a time: 64 MiB in float32."""


@torch.no_grad()
@full_precision
def nearest_neighbour_votes(
    queries: Tensor, neighbours: Tensor, labels: Tensor, num_classes: int, counts: Sequence[int] = NEIGHBOURS
) -> dict[int, Tensor]:
    """Compute class probabilities of each query from its k nearest labelled images, which vote with exp(cosine / 0.07).

    Args:
        queries: (N, D), any scale.
        neighbours: (S, D) embeddings of labelled images, any scale.
        labels: (S,) int64, their classes.
        num_classes: C.
        counts: the numbers k of neighbours; if there are fewer than k labelled images, all of them vote.

    Returns:
        For each k, (N, C) rows that sum to one.

    Example:
        >>> import torch
        >>> from tapetum.evaluation.nearest_neighbours import nearest_neighbour_votes
        >>> nearest_neighbour_votes(torch.tensor([[3.0, 1.0]]), torch.eye(2), torch.tensor([1, 0]), 2, [1])
        {1: tensor([[0., 1.]])}
    """
    anchors = normalize(neighbours, dim=1)
    most = min(max(counts), len(anchors))
    votes: dict[int, list[Tensor]] = {count: [] for count in counts}
    for part in normalize(queries, dim=1).split(max(1, SCORES_AT_ONCE // len(anchors))):
        similarities, nearest = (part @ anchors.T).topk(most, dim=1)  # nearest first
        weights = (similarities / TEMPERATURE).exp()  # at most 1.6e6, because similarities are cosines
        for count in votes:
            sums = weights.new_zeros(len(part), num_classes)
            sums.scatter_add_(1, labels[nearest[:, :count]], weights[:, :count])
            votes[count].append(sums / sums.sum(dim=1, keepdim=True))
    return {count: torch.cat(parts) for count, parts in votes.items()}
