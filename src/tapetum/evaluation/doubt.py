"""Says how much in doubt the classes of images are, from a few labelled ones, and picks images by it."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.ops.precision import full_precision
from tapetum.ops.randomness import Keys, make_keys, uniform

Indices = npt.NDArray[np.int64]


def margins(shares: Tensor) -> Tensor:
    """(N,) share of the first class minus that of the second, of (N, C) shares: small where two classes compete.

    Scheffer, Decomain & Wrobel, "Active hidden Markov models for information extraction", IDA 2001.
    """
    first, second = shares.topk(2, dim=1).values.unbind(dim=1)
    return first - second


@full_precision
def by_gradients(rows: Tensor, shares: Tensor, labelled: Indices, count: int, key: Keys) -> Indices:
    """Pick images whose gradients of a linear classifier would be long and of many directions: BADGE.

    Ash et al., "Deep batch active learning by diverse, uncertain gradient lower bounds", ICLR 2020,
    https://arxiv.org/abs/1906.03671. The gradient of an image, if its likeliest class were true, is (p - e) z^T with
    its shares p, that class's unit vector e and its embedding z. Starting with the longest gradient, k-means++ draws
    the others: each with a probability proportional to the squared distance from the nearest gradient drawn before.
    The (C, D) gradients are never made: <(p - e) z^T, (p' - e') z'^T> is a product of two small products.

    Args:
        rows: (N, D) unit rows.
        shares: (N, C) class shares of each image; rows sum to one.
        labelled: (L,) indices of labelled images, which are not picked.
        count: number of images to pick; fewer if fewer are unlabelled.
        key: 0-d; decides the draws.
    """
    residuals = shares.clone()
    residuals[torch.arange(len(rows)), shares.argmax(dim=1)] -= 1
    lengths = residuals.square().sum(dim=1)
    is_open = torch.ones(len(rows), dtype=torch.bool)
    is_open[torch.from_numpy(labelled)] = False
    numbers = uniform(make_keys(int(key), np.arange(count)), 1)[:, 0]
    distances = torch.full((len(rows),), torch.inf)
    picked: list[int] = []
    for number in numbers[: int(is_open.sum())].tolist():
        weights = torch.where(is_open, lengths if not picked else distances, 0.0).double()
        if not picked or not float(weights.sum()) > 0:  # what is left has gradients that were drawn already
            best = int(torch.where(is_open, lengths, -1.0).argmax())
        else:
            total = weights.cumsum(dim=0)
            best = int(torch.searchsorted(total, number * total[-1], right=True).clamp_max(len(rows) - 1))
        picked.append(best)
        is_open[best] = False
        products = (residuals @ residuals[best]) * (rows @ rows[best])
        distances = torch.minimum(distances, (lengths + lengths[best] - 2 * products).clamp_min(0))
    return np.array(picked, dtype=np.int64)
