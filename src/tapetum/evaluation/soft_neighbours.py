"""Soft nearest-neighbour evaluation, as published for PAWS: every labelled image is a support, and labels are hard."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.ops.precision import full_precision
from tapetum.ops.soft_neighbours import soft_neighbours

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

    Args:
        temperature: tau.
        most: number of nearest supports that vote; None: all of them, as published.
    """
    if most is None or most >= len(supports):
        hard = hard_labels(labels, num_classes, supports.dtype)
        parts = [soft_neighbours(part, supports, hard, temperature, over_ranks=False) for part in queries.split(chunk)]
        return torch.cat(parts)
    anchors, parts = normalize(supports, dim=1), []
    for part in normalize(queries, dim=1).split(chunk):
        similarities, nearest = (part @ anchors.T).topk(most, dim=1)
        shares = torch.softmax(similarities / temperature, dim=1)
        parts.append(shares.new_zeros(len(part), num_classes).scatter_add_(1, labels[nearest], shares))
    return torch.cat(parts)


def hard_labels(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """(S, C) one-hot rows of labels (S,); torch's own are of int64 first, which takes three times the memory."""
    return torch.zeros(len(labels), num_classes, dtype=dtype, device=labels.device).scatter_(1, labels[:, None], 1)
