"""Measures how far embeddings are from being all the same, cheaply enough for every step."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.ops.precision import full_precision

ROWS = 256
"""Number of embeddings used: the products of all pairs cost far less than one per cent of any training step."""


@full_precision
@torch.no_grad()
def spread(embeddings: Tensor) -> dict[str, Tensor]:
    """Compute standard deviation and effective rank of embeddings, scaled to unit length.

    Args:
        embeddings: (N, D), one view of each image; only the first 256 are used.

    Returns:
        embedding_std: square root of the variance summed over dimensions, from 0 (all the same) to 1 (their mean is 0).
        effective_rank: number of equally strong directions in which they vary, (sum of s)^2 / sum of s^2 over the
            eigenvalues s of their covariance: at least 1, at most D and N - 1; 0 if they do not vary. It needs no
            decomposition, so no step waits for the device.

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
