"""Soft nearest-neighbour evaluation, as published for PAWS: every labelled image is a support, and labels are hard."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tapetum.ops.soft_neighbours import soft_neighbours

TEMPERATURE = 0.1
"""tau of the published evaluation."""


@torch.no_grad()
def classify_by_neighbours(
    queries: Tensor, supports: Tensor, labels: Tensor, num_classes: int, chunk: int = 4096
) -> Tensor:
    """Compute soft-NN probabilities (N, C) of queries (N, D) from supports (S, D) with labels (S,), chunk by chunk."""
    hard = one_hot(labels, num_classes).to(supports.dtype)
    parts = [soft_neighbours(part, supports, hard, TEMPERATURE, over_ranks=False) for part in queries.split(chunk)]
    return torch.cat(parts)
