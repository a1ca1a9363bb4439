"""Sinkhorn-Knopp: assigns rows softly to prototypes so that every prototype gets an equal share.

Among all codes Q (B, K) whose rows sum to 1 and whose columns all sum to B / K, the one that maximises
<Q, scores> + epsilon * entropy(Q) is

    Q = softmax(scores / epsilon - u)          u (K,): excess popularity of each prototype

and u is found by balancing columns and rows alternately (Cuturi, "Sinkhorn distances", NIPS 2013,
https://arxiv.org/abs/1306.0895; used for clustering by Asano et al., ICLR 2020, https://arxiv.org/abs/1911.05371).

All steps work with logarithms: exp(scores / epsilon) itself overflows float32 if epsilon is below 0.0113, but its
logarithm never does. The rows of all processes form one batch.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tapetum.ops.collectives import gather_rows
from tapetum.ops.precision import full_precision

SCORES_AT_ONCE = 2**25
"""Number of scores in memory at a time when a whole data set is assigned: 128 MiB in float32."""


@full_precision
def sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Compute the codes of a batch, balanced over the rows of all processes.

    Args:
        scores: (B, K) of this process, cosines in the methods here; no gradient flows through them.
        epsilon: smoothness of the codes, above 0; SwAV: 0.05. A large value makes codes uniform, a small one hard.
        iterations: rounds that balance prototypes, then rows; SwAV: 3.

    Returns:
        (B, K); rows sum to one, columns to nearly B / K over all processes.

    Example:
        >>> import torch
        >>> from tapetum.ops.sinkhorn import sinkhorn
        >>> sinkhorn(torch.tensor([[0.9, 0.0], [0.8, 0.3]]), epsilon=0.01).round()  # both rows prefer the first
        tensor([[1., 0.],
                [0., 1.]])
    """
    log_masses = scores.detach() / epsilon
    return torch.softmax(log_masses - _popularity(lambda: [log_masses], iterations), dim=1)


@full_precision
def sinkhorn_labels(rows: Tensor, prototypes: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Find the likeliest prototype of each row under balanced codes of a whole data set.

    As `sinkhorn(rows @ prototypes.T, ...).argmax(dim=1)`, but the N x K scores are never in memory at once: every
    iteration computes them again, part by part.

    Args:
        rows: (N, D) of this process; other processes may have more or fewer rows.
        prototypes: (K, D), the same on all processes.
        epsilon, iterations: as for `sinkhorn`.

    Returns:
        (N,) int64.
    """
    chunk = max(1, SCORES_AT_ONCE // len(prototypes))

    def parts() -> Iterable[Tensor]:
        return (part @ prototypes.detach().T / epsilon for part in rows.detach().split(chunk))

    popularity = _popularity(parts, iterations)
    return torch.cat([(part - popularity).argmax(dim=1) for part in parts()])


def _popularity(log_masses: Callable[[], Iterable[Tensor]], iterations: int) -> Tensor:
    """Compute u (K,) from parts (n, K) of scores / epsilon."""
    u: Tensor | None = None
    for _ in range(iterations):
        shares = []
        for part in log_masses():
            if u is not None:
                part = part - (part - u).logsumexp(dim=1, keepdim=True)  # each row has mass 1
            shares.append(part.logsumexp(dim=0))
        own = torch.stack(shares).logsumexp(dim=0, keepdim=True)
        u = gather_rows(own).logsumexp(dim=0)  # subtracting it gives each prototype mass 1, up to a common factor
    assert u is not None, "iterations is 1 or more"
    return u
