"""Test-time augmentation: the views of an image that evaluation and prediction average over."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tapetum.data.views.draw import EvaluationViewConfig


def evaluation_sizes(config: EvaluationViewConfig) -> list[int]:
    """Return the side in pixels of the view resized by each of the scales.

    Example:
        >>> evaluation_sizes(EvaluationViewConfig(crop=32, scales=(0.75, 1.0)))
        [24, 32]
    """
    return [max(1, round(scale * config.crop)) for scale in config.scales]


def evaluation_views(pixels: Tensor, config: EvaluationViewConfig) -> list[Tensor]:
    """Return the views whose outputs count with their mean, as `scales` and `mirrored` ask for.

    Args:
        pixels: (N, C, S, S) the evaluation view, normalised; S is `crop`.
        config: whose view it is.

    Returns:
        Tensors (N, C, R, R) with R of `evaluation_sizes`. With the defaults, the view alone, as it is.

    Example:
        >>> import torch
        >>> config = EvaluationViewConfig(crop=32, scales=(0.75, 1.0), mirrored=True)
        >>> [tuple(view.shape) for view in evaluation_views(torch.zeros(5, 3, 32, 32), config)]
        [(5, 3, 24, 24), (5, 3, 24, 24), (5, 3, 32, 32), (5, 3, 32, 32)]
    """
    views = [_resized(pixels, size) for size in evaluation_sizes(config)]
    return [view for plain in views for view in (plain, plain.flip(3))] if config.mirrored else views


def mean_over_views(found: Sequence[Tensor]) -> Tensor:
    """Return the mean of what was found in each view, all of one shape; of one view, what was found itself."""
    return found[0] if len(found) == 1 else torch.stack(tuple(found)).mean(dim=0)


def _resized(pixels: Tensor, size: int) -> Tensor:
    if size == pixels.shape[-1]:
        return pixels
    return interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
