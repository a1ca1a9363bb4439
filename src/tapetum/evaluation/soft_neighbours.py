"""Soft nearest-neighbour evaluation, as published for PAWS: every labelled image is a support, and labels are hard."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.ops.precision import full_precision
from tapetum.ops.soft_neighbours import SCORES_AT_ONCE, soft_neighbours

TEMPERATURE = 0.1
"""tau of the published evaluation."""


@torch.no_grad()
@full_precision
def classify_by_neighbours(
    queries: Tensor,
    supports: Tensor,
    labels: Tensor,
    num_classes: int,
    temperature: float = TEMPERATURE,
    most: int | None = None,
    chunk: int = 4096,
) -> Tensor:
    """Compute soft-NN probabilities (N, C) of queries (N, D) from supports (S, D) with labels (S,), chunk by chunk.

    One-hot rows of the supports are made only if they take no more memory than a chunk's cosines.

    Args:
        temperature: tau.
        most: number of nearest supports that vote; None: all of them, as published.
    """
    counts_all = most is None or most >= len(supports)
    if counts_all and len(supports) * num_classes <= SCORES_AT_ONCE:
        hard = hard_labels(labels, num_classes, supports.dtype)
        parts = [soft_neighbours(part, supports, hard, temperature, over_ranks=False) for part in queries.split(chunk)]
        return torch.cat(parts)
    anchors, parts = normalize(supports, dim=1), []
    for part in normalize(queries, dim=1).split(min(chunk, max(1, SCORES_AT_ONCE // len(supports)))):
        similarities, classes = part @ anchors.T, labels.expand(len(part), -1)
        if not counts_all:
            similarities, nearest = similarities.topk(most, dim=1)
            classes = labels[nearest]
        shares = torch.softmax(similarities / temperature, dim=1)
        parts.append(shares.new_zeros(len(part), num_classes).scatter_add_(1, classes, shares))
    return torch.cat(parts)


def hard_labels(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """(S, C) one-hot rows of labels (S,); torch's own are of int64 first, which takes three times the memory."""
    return torch.zeros(len(labels), num_classes, dtype=dtype, device=labels.device).scatter_(1, labels[:, None], 1)
