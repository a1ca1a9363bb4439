"""The soft nearest-neighbour classifier p = softmax(z . A^T / tau) . Y, the one idea behind Tapetum."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from tapetum.ops.collectives import gather_rows
from tapetum.ops.precision import full_precision

SCORES_AT_ONCE = 2**25
"""Number of similarities of queries and supports in memory at a time: 128 MiB in float32."""


@full_precision
def soft_neighbours(
    queries: Tensor, supports: Tensor, support_labels: Tensor, temperature: float, over_ranks: bool = True
) -> Tensor:
    """Compute class probabilities of queries as similarity-weighted means of the supports' labels.

    `p = softmax(q . S^T / temperature) . Y` with rows of q and S scaled to unit length (Assran et al., "Semi-supervised
    learning of visual features by non-parametrically predicting view assignments with support samples", ICCV 2021,
    equation 1). Queries stay on their rank.

    Args:
        queries: (N, D), any scale.
        supports: (S, D) of this rank.
        support_labels: (S, C) rows of probabilities, in the order of `supports`.
        temperature: tau, above 0; 0.1 throughout the paper.
        over_ranks: True uses the supports of all ranks, in rank order, with their gradients (training); False, only
            those given here (evaluation, where every rank holds all of them).

    Returns:
        (N, C); rows sum to one if those of `support_labels` do. If there are more than `SCORES_AT_ONCE` similarities,
        they are computed by parts of the queries, and once more for the backward pass, so that memory for any N and S
        is that of a few times `SCORES_AT_ONCE`; the result is the same up to rounding.

    Example:
        >>> import torch
        >>> from tapetum.ops.soft_neighbours import soft_neighbours
        >>> soft_neighbours(torch.tensor([[2.0, 0.0]]), torch.eye(2), torch.eye(2), temperature=0.1).round(decimals=4)
        tensor([[1., 0.]])
    """
    anchors = normalize(supports, dim=1)
    labels = support_labels.to(anchors.dtype)
    if over_ranks:
        anchors, labels = gather_rows(anchors), gather_rows(labels)
    parts = normalize(queries, dim=1).split(max(1, SCORES_AT_ONCE // max(1, len(anchors))))
    if len(parts) == 1:
        return _mean_labels(parts[0], anchors, labels, temperature)
    compute: Callable[..., Tensor] = _mean_labels
    if torch.is_grad_enabled():  # it draws nothing at random, so there is no generator to set back
        compute = partial(checkpoint, _mean_labels, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([compute(part, anchors, labels, temperature) for part in parts])


def _mean_labels(queries: Tensor, anchors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """(N, C) similarity-weighted means of labels (S, C), for unit queries (N, D) and anchors (S, D)."""
    return torch.softmax(queries @ anchors.T / temperature, dim=1) @ labels


@full_precision
def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Raise (N, C) to the power 1 / temperature and rescale each row to sum to one (PAWS, equation 2)."""
    powers = probabilities ** (1.0 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


@full_precision
def smooth_one_hot(labels: Tensor, classes: Tensor, smoothing: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Build smoothed one-hot rows over the given classes.

    Args:
        labels: (S,) int64 class of each row; each must occur in `classes`.
        classes: (C,) int64, the classes in column order.
        smoothing: share of each row that is spread evenly over all C columns, in [0, 1).

    Returns:
        (S, C) of `dtype`; rows sum to one.

    The published code builds this matrix once, by position in the batch, with C columns *per rank* when ranks share
    their classes. The surplus columns are classes without images, and rows then sum to more than one. Here there are
    always C columns.
    """
    one_hot = (labels[:, None] == classes[None, :]).to(dtype)
    return one_hot * (1.0 - smoothing) + smoothing / classes.shape[0]
