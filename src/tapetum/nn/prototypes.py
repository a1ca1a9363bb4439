"""Prototypes: one or several sets of K anchors that projections are compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tapetum.ops.precision import full_precision


class Prototypes(nn.ModuleList):
    """Sets of unit vectors, learned (SwAV, SeLa-v2, Suave) or computed by k-means (DeepCluster-v2).

    Args:
        dimension: D of the projections.
        counts: K of each set.

    Raises:
        ValueError: there is no set, or one has fewer than two prototypes.

    Example:
        >>> import torch
        >>> [scores.shape for scores in Prototypes(8, (3, 5))(torch.randn(4, 8))]
        [torch.Size([4, 3]), torch.Size([4, 5])]
    """

    def __init__(self, dimension: int, counts: Sequence[int]) -> None:
        check_counts(counts)
        super().__init__([nn.Linear(dimension, count, bias=False) for count in counts])
        self.normalise()

    @full_precision
    def forward(self, projections: Tensor) -> list[Tensor]:
        """(B, K) scores against each set, in float32 or better: cosines for (B, D) projections of unit length."""
        return [projections @ weight.T for weight in self.parameters()]

    @torch.no_grad()
    def normalise(self) -> None:
        """Scale every prototype back to unit length, without gradient; used after each optimiser step."""
        for weight in self.parameters():
            weight.copy_(normalize(weight, dim=1))

    @torch.no_grad()
    def mean_norm(self) -> Tensor:
        """Mean length of the prototypes, 0-d; any value other than 1 means that they were not normalised."""
        return torch.cat([weight.norm(dim=1) for weight in self.parameters()]).mean()

    def freeze(self) -> None:
        """Drop the gradients, so that the next optimiser step does not move the prototypes: no decay, no momentum."""
        for weight in self.parameters():
            weight.grad = None


def check_counts(counts: Sequence[int]) -> None:
    """Check the numbers of prototypes.

    Raises:
        ValueError: there is no set, or one has fewer than two prototypes.
    """
    if not counts or min(counts) < 2:
        raise ValueError(f"num_prototypes is {list(counts)}: give one number of 2 or more for each set.")
