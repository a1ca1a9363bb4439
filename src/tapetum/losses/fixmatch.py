"""The unlabelled loss of FixMatch and its kin (Sohn, Berthelot et al., NeurIPS 2020, https://arxiv.org/abs/2001.07685).

Symbols: B images, V strong views of each, C classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from tapetum.losses.paws import cross_entropy
from tapetum.ops.precision import full_precision
from tapetum.ops.soft_neighbours import soft_neighbours


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


@full_precision
def neighbour_loss(
    projections: Tensor,
    supports: Tensor,
    support_labels: Tensor,
    pseudo_labels: Tensor,
    weights: Tensor,
    temperature: float,
) -> Tensor:
    """Compute `pseudo_label_loss` with strong views classified by their soft nearest neighbours, as PAWS does.

    Args:
        projections: (V * B, D) of the strong views, view-major, any scale.
        supports: (S, D) of this rank, any scale; the gradient flows to all ranks' rows.
        support_labels: (S, K) rows of probabilities over the classes of the step.
        pseudo_labels: (B, K) rows of shares of the same classes, one-hot in FixMatch; one of zeros counts for nothing.
        weights: (B,), as for `pseudo_label_loss`.
        temperature: tau, above 0.

    Returns:
        0-d.
    """
    num_views = len(projections) // len(pseudo_labels)
    found = soft_neighbours(projections, supports, support_labels, temperature)
    losses = cross_entropy(pseudo_labels.to(found.dtype).repeat(num_views, 1), found)
    return (weights.repeat(num_views) * losses).mean()
