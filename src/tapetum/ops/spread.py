"""How far embeddings are from being all the same, cheaply enough for every step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.ops.precision import full_precision

ROWS = 256
"""Embeddings that are looked at: the products of all pairs cost far less than one per cent of any training step."""


@full_precision
@torch.no_grad()
def spread(embeddings: Tensor) -> dict[str, Tensor]:
    """Standard deviation and effective rank of embeddings brought to unit length.

    Args:
        embeddings: (N, D), one view of each image; the first 256 are looked at.

    Returns:
        embedding_std: root of the variance summed over dimensions, from 0 (all the same) to 1 (their mean is 0).
        effective_rank: in how many directions they vary evenly, (sum of s)^2 / sum of s^2 over the eigenvalues s of
            their covariance: at least 1, at most D and N - 1; 0 where they do not vary. No decomposition is needed,
            so no device waits.

    Example:
        >>> import torch
        >>> {name: round(value.item(), 3) for name, value in spread(torch.eye(4)).items()}
        {'embedding_std': 0.866, 'effective_rank': 3.0}
    """
    rows = normalize(embeddings[:ROWS], dim=1)
    centred = rows - rows.mean(dim=0)
    products = centred @ centred.T
    total, squares = products.trace(), products.square().sum()
    return {
        "embedding_std": (total / len(rows)).sqrt(),
        "effective_rank": total.square() / squares.clamp_min(torch.finfo(squares.dtype).tiny),
    }
