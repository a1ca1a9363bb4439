"""The loss of SwAV (Caron et al., NeurIPS 2020, https://arxiv.org/abs/2006.09882).

Symbols: B images, V views of each, A of which assign codes, K prototypes, tau the temperature.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tapetum.ops.precision import full_precision
from tapetum.ops.sinkhorn import sinkhorn


@full_precision
def swav_codes(scores: Tensor, queue_scores: Tensor, epsilon: float, iterations: int, hard: bool = False) -> Tensor:
    """Compute the codes of one view, balanced over the batch and a queue of earlier images, over all processes.

    Args:
        scores: (B, K) of this process.
        queue_scores: (L, K) of earlier images; L may be 0.
        epsilon, iterations: as for `sinkhorn`.
        hard: whether each code becomes the one-hot row of its largest entry.

    Returns:
        (B, K); rows sum to one; no gradient.
    """
    codes = sinkhorn(torch.cat([scores, queue_scores]), epsilon, iterations)[: len(scores)]
    return one_hot(codes.argmax(dim=1), codes.shape[1]).to(codes.dtype) if hard else codes


@full_precision
def swapped_prediction_loss(
    scores: Tensor, codes: Tensor, assigning_views: Sequence[int], temperature: float
) -> Tensor:
    """Compare each assigning view's code with its prediction from all other views of the image.

    Args:
        scores: (V, B, K) cosines of projections and prototypes, with gradient.
        codes: (A, B, K), rows sum to one.
        assigning_views: the A views, among 0..V-1, that `codes` belong to.
        temperature: tau.

    Returns:
        0-d: the mean over codes, views and images of H(code, softmax(scores / tau)).
    """
    num_views = len(scores)
    log_predictions = torch.log_softmax(scores / temperature, dim=2)
    total = log_predictions.sum(dim=0)
    losses = [
        -(code * (total - log_predictions[view])).sum(dim=1).mean() / (num_views - 1)
        for view, code in zip(assigning_views, codes, strict=True)
    ]
    return torch.stack(losses).mean()
