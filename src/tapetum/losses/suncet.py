"""SuNCEt, supervised noise-contrastive estimation (Assran et al., https://arxiv.org/abs/2006.10803).

Every labelled image is classified by its soft nearest neighbours among the other labelled images of the batch.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.losses.paws import cross_entropy
from tapetum.ops.collectives import gather_rows, rank
from tapetum.ops.precision import full_precision


@full_precision
def suncet_loss(projections: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean of -log of the probability mass on neighbours of the same class, 0-d.

    Args:
        projections: (S, D) of labelled images of this rank, any scale; the gradient flows to all ranks' rows.
        labels: (S, C) rows of probabilities, hard in the paper. Classes may have any number of images: a row without
            a neighbour of its class has a large but finite loss.
        temperature: tau, 0.1 in the paper.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.2], [0.2, 1.0]])
        >>> round(float(suncet_loss(z, torch.eye(2).repeat(2, 1), temperature=0.1)), 6)
        0.001708
    """
    unit = normalize(projections, dim=1)
    neighbours, neighbour_labels = gather_rows(unit), gather_rows(labels.to(unit.dtype))
    scores = unit @ neighbours.T / temperature
    rows = torch.arange(len(unit), device=unit.device)
    itself = torch.zeros_like(scores, dtype=torch.bool)
    itself[rows, rows + rank() * len(unit)] = True
    weights = torch.softmax(scores.masked_fill(itself, -torch.inf), dim=1)
    return cross_entropy(labels.to(unit.dtype), weights @ neighbour_labels).mean()
