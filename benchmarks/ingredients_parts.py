"""What `ingredients.py` tries and the library lacks: each from its paper's formula, small, and for short trainings.

Running means forget faster here than in the papers, whose trainings are a thousand times as long.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from tapetum.ops.randomness import Keys, uniform

DECAY = 0.98
"""Of the running means of gates and alignment, per step."""


class RunningMean:
    """m <- decay m + (1 - decay) x, from `start` on."""

    def __init__(self, start: Tensor, decay: float = DECAY) -> None:
        self.value, self.decay = start, decay

    def update(self, new: Tensor) -> Tensor:
        """Take in one value and return the mean."""
        self.value = self.value.lerp(new, 1 - self.decay)
        return self.value


Gate = Callable[[Tensor], Tensor]
"""Weights (B,) of the pseudo-labels argmax p of probabilities p (B, C)."""


def confidence(probabilities: Tensor) -> Tensor:
    """max p: a doubtful pseudo-label counts for less, but none for nothing."""
    return probabilities.amax(dim=1)


def fixmatch(probabilities: Tensor, threshold: float = 0.95) -> Tensor:
    """1 if max p >= threshold, else 0 (FixMatch, Sohn et al., 2020, https://arxiv.org/abs/2001.07685)."""
    return (confidence(probabilities) >= threshold).float()


class FreeMatch:
    """A threshold for each class that follows what the network is sure of, without the fairness term.

    Wang et al., 2022, https://arxiv.org/abs/2205.07246: with running means t of max p and m of p, 1 where max p >=
    t m_c / max m, for the likeliest class c.
    """

    def __init__(self, num_classes: int) -> None:
        self.global_threshold = RunningMean(torch.tensor(1 / num_classes))
        self.mean = RunningMean(torch.full((num_classes,), 1 / num_classes))

    def __call__(self, probabilities: Tensor) -> Tensor:
        largest, classes = probabilities.max(dim=1)
        threshold = self.global_threshold.update(largest.mean())
        mean = self.mean.update(probabilities.mean(dim=0))
        return (largest >= threshold * (mean / mean.max())[classes]).float()


class SoftMatch:
    """A Gaussian below the mean confidence, 1 above it.

    Chen et al., 2023, https://arxiv.org/abs/2301.10921: exp(-(max p - m)^2 / (2 s^2)) for max p < m, with running mean
    m and s half the running standard deviation of max p, as in the published code.
    """

    def __init__(self, num_classes: int) -> None:
        self.mean, self.variance = RunningMean(torch.tensor(1 / num_classes)), RunningMean(torch.tensor(1.0))

    def __call__(self, probabilities: Tensor) -> Tensor:
        largest = confidence(probabilities)
        mean, variance = self.mean.update(largest.mean()), self.variance.update(largest.var())
        return torch.exp(-((largest - mean).clamp(max=0) ** 2) / (2 * variance / 4))


def make_gate(name: str, num_classes: int) -> Gate:
    """A gate that has seen nothing yet."""
    kinds = {"freematch": FreeMatch, "softmatch": SoftMatch}
    return kinds[name](num_classes) if name in kinds else {"confidence": confidence, "fixmatch": fixmatch}[name]


class Alignment:
    """Distribution alignment: p times (even shares / running mean of p), rescaled to sum to one.

    ReMixMatch, Berthelot et al., 2020, https://arxiv.org/abs/1911.09785.
    """

    def __init__(self, num_classes: int) -> None:
        self.mean = RunningMean(torch.full((num_classes,), 1 / num_classes))

    def __call__(self, probabilities: Tensor) -> Tensor:
        even = probabilities / self.mean.update(probabilities.mean(dim=0))
        return even / even.sum(dim=1, keepdim=True)


class Average:
    """Exponential moving average of weights and running statistics (Mean Teacher, https://arxiv.org/abs/1703.01780).

    Args:
        model: what is averaged.
        decay: share of the average that a step keeps; less in the first steps, so that the start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = copy.deepcopy(model), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        for mean, new in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)


@torch.no_grad()
def whiten(stem: nn.Conv2d, images: Tensor, eps: float = 5e-4) -> None:
    """Set a convolution to the whitening of the images' patches, and its negative; only the bias goes on learning.

    Args:
        stem: with twice as many output channels as a patch has values.
        images: (N, C, H, W), normalised.
        eps: added to the variances (K. Jordan, https://arxiv.org/abs/2404.00498, section 3.1).
    """
    height, width = stem.kernel_size
    patches = images.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    patches = patches.double()
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (variances + eps).sqrt()).T.reshape(-1, *stem.weight.shape[1:]).to(stem.weight.dtype)
    stem.weight.copy_(torch.cat([filters, -filters]))
    stem.weight.requires_grad_(False)
    if stem.bias is not None:
        stem.bias.zero_()


def cutout(views: Tensor, side: float, keys: Keys) -> Tensor:
    """Set a square of each view to the mean colour, 0 (DeVries & Taylor, 2017, https://arxiv.org/abs/1708.04552).

    Args:
        views: (N, C, S, S), normalised.
        side: of the square, as a share of S; parts of it may lie outside the view.
        keys: (N,), which decide the squares' centres.
    """
    size = views.shape[-1]
    centres = torch.from_numpy(np.floor(uniform(keys, 2) * size))  # (N, 2)
    near = (torch.arange(size) - centres[:, :, None]).abs() < side * size / 2  # (N, 2, S)
    inside = near[:, 0, :, None] & near[:, 1, None, :]
    return views.masked_fill(inside[:, None], 0.0)


def warp(views: Tensor, strength: float, keys: Keys) -> Tensor:
    """Turn and shear half of the views about their middle; what lay outside is mirrored in.

    Two of the geometric changes of RandAugment (Cubuk et al., 2019, https://arxiv.org/abs/1909.13719).

    Args:
        views: (N, C, S, S).
        strength: largest angle of the turn in degrees, and largest shear along either axis in hundredths.
        keys: (N,), which decide.
    """
    chosen, turn, *shears = torch.from_numpy(uniform(keys, 4)).float().T
    amount = strength * (chosen < 0.5)
    angle = torch.deg2rad(amount * (2 * turn - 1))
    along_x, along_y = (amount / 100 * (2 * shear - 1) for shear in shears)
    cos, sin = angle.cos(), angle.sin()
    rows = [[cos + along_y * -sin, along_x * cos - sin], [sin + along_y * cos, along_x * sin + cos]]
    matrices = torch.stack([torch.stack([*row, torch.zeros_like(cos)], dim=1) for row in rows], dim=1)  # (N, 2, 3)
    grid = affine_grid(matrices, list(views.shape), align_corners=False)
    warped = grid_sample(views, grid, padding_mode="reflection", align_corners=False)
    return warped.contiguous(memory_format=torch.channels_last)


def quarter_turns(views: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the first of four views not at all, the next by 90 degrees, and so on.

    RotNet, Gidaris et al., 2018, https://arxiv.org/abs/1803.07728.

    Args:
        views: (N, C, S, S).

    Returns:
        (N, C, S, S), and (N,) quarter turns.
    """
    turns = torch.arange(len(views)) % 4
    turned = torch.stack([view.rot90(int(turn), (1, 2)) for view, turn in zip(views, turns, strict=True)])
    return turned.contiguous(memory_format=torch.channels_last), turns
