"""How much images resemble the labelled ones, for any method: what `predict` writes as in_domain.

    near(x, Z) = tau ln mean_z exp(x . z / tau)     a mean of the cosines with the images Z that the nearest dominate
    score(x)   = near(x, S)                         with the labelled images S
               - max(0, near(x, O) - near(x, S))    if there are images O that are known to belong to no class

near(x, S) is the negative free energy of the soft neighbours (Liu, Wang, Owens & Li, "Energy-based out-of-distribution
detection", NeurIPS 2020, https://arxiv.org/abs/2010.03759), up to a constant. Images O count only against images that
are more like them than like labelled ones, so they change nothing for what is like neither.

A score says nothing by itself, so it becomes a share: that of the labelled images that score less than x, each scored
without itself. An image below 0.05 is less like the labelled images than 95% of these are like each other. Between two
labelled images, and beyond the last ones, shares are interpolated, so the order of scores is kept.
`benchmarks/out_of_class.py` compares this score with others.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.evaluation.soft_neighbours import TEMPERATURE
from tapetum.ops.precision import full_precision
from tapetum.ops.soft_neighbours import SCORES_AT_ONCE

_MOST_JUDGED = 5000  # labelled images whose scores become shares
_LEAST, _MOST = -3.0, 1.0  # scores lie between these


@dataclass(frozen=True)
class Domain:
    """What the images of a run's classes look like, and how much they resemble each other."""

    known: Tensor
    """(S, D) embeddings of labelled images, of unit length."""
    others: Tensor
    """(M, D) embeddings of images known to belong to no class, of unit length; M may be 0."""
    scores: Tensor
    """(J,) scores of labelled images, each without itself, ascending."""

    @torch.no_grad()
    @full_precision
    def shares(self, embeddings: Tensor) -> Tensor:
        """(N,) how much images resemble the labelled ones, 0 to 1, given their embeddings (N, D) of any scale."""
        queries = normalize(embeddings, dim=1)
        parts = [_scores(part @ self.known.T, part, self.others) for part in queries.split(_at_once(self.known))]
        places = np.array([_LEAST, *self.scores.tolist(), _MOST])
        shares = np.interp(torch.cat(parts).numpy(), places, np.linspace(0, 1, len(places)))
        return torch.from_numpy(shares).to(embeddings.dtype)


@torch.no_grad()
@full_precision
def learn_domain(known: Tensor, others: Tensor, judged: Tensor | None = None) -> Domain:
    """Learn what images of the classes look like.

    Args:
        known: (S, D) embeddings of labelled images, any scale; S is 2 or more.
        others: (M, D) embeddings of images known to belong to no class; M may be 0.
        judged: row numbers of the labelled images whose scores become shares, such as those that training has not seen,
            which are less alike than those it has; None for all.

    Example:
        >>> import torch
        >>> from tapetum.evaluation.in_domain import learn_domain
        >>> domain = learn_domain(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1]]), torch.empty(0, 2))
        >>> domain.shares(torch.tensor([[1.0, 0.05], [0.0, 1.0]])) > 0.5
        tensor([ True, False])
    """
    known, others = normalize(known, dim=1), normalize(others, dim=1)
    rows = torch.arange(len(known)) if judged is None else judged
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), _MOST_JUDGED)).round().long()]
    parts = []
    for some in rows.split(_at_once(known)):
        cosines = known[some] @ known.T
        cosines.scatter_(1, some[:, None], -torch.inf)
        parts.append(_scores(cosines, known[some], others))
    return Domain(known, others, torch.cat(parts).sort().values)


def _at_once(known: Tensor) -> int:
    """Number of images to compare at a time with labelled ones."""
    return max(1, SCORES_AT_ONCE // len(known))


def _scores(cosines: Tensor, queries: Tensor, others: Tensor) -> Tensor:
    """(N,) scores of unit vectors (N, D), given their cosines (N, S) with the labelled images."""
    near = _near(cosines)
    return near if not len(others) else near - (_near(queries @ others.T) - near).clamp_min(0)


def _near(cosines: Tensor) -> Tensor:
    """(N,) means of cosines (N, Z) that the largest ones dominate; -inf does not count."""
    counts = (cosines > -math.inf).sum(dim=1)
    return TEMPERATURE * (torch.logsumexp(cosines / TEMPERATURE, dim=1) - counts.log())
