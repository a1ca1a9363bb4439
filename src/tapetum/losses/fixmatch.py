"""The unlabelled loss of FixMatch and its kin (Sohn, Berthelot et al., NeurIPS 2020, https://arxiv.org/abs/2001.07685).

Symbols: B images, V strong views of each, C classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from tapetum.ops.precision import full_precision


@full_precision
def mean_probabilities(logits: Tensor, num_views: int) -> Tensor:
    """Compute each image's class probabilities, the mean over its weak views.

    Args:
        logits: (num_views * B, C), view-major.
        num_views: weak views of each image.

    Returns:
        (B, C), rows sum to one.
    """
    return logits.softmax(dim=1).unflatten(0, (num_views, -1)).mean(dim=0)


@full_precision
def aligned(probabilities: Tensor, class_mean: Tensor) -> Tensor:
    """Divide probabilities (N, C) by the running mean (C,) of them, and rescale rows to sum to one.

    Distribution alignment with even classes (ReMixMatch, Berthelot et al., ICLR 2020,
    https://arxiv.org/abs/1911.09785): what is predicted too often counts for less.
    """
    even = probabilities / class_mean.clamp_min(torch.finfo(class_mean.dtype).tiny)
    return even / even.sum(dim=1, keepdim=True)


@full_precision
def pseudo_label_loss(logits: Tensor, pseudo_labels: Tensor, weights: Tensor) -> Tensor:
    """Compute the mean weighted cross-entropy of strong views with their images' pseudo-labels.

    Args:
        logits: (V * B, C) of the strong views, view-major.
        pseudo_labels: (B,) int64.
        weights: (B,); the mean is over all views, those of weight 0 included, as in the paper.

    Returns:
        0-d.
    """
    num_views = len(logits) // len(pseudo_labels)
    picked = log_softmax(logits, dim=1).gather(1, pseudo_labels.repeat(num_views)[:, None])[:, 0]
    return -(weights.repeat(num_views) * picked).mean()
