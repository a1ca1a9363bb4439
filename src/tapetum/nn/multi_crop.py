"""Views of several resolutions through one backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tapetum.nn.batch_norm import running_statistics_frozen


def embed_views(backbone: nn.Module, groups: Sequence[Tensor]) -> Tensor:
    """Embeddings of all views, one backbone call for each resolution.

    Args:
        backbone: maps images to embeddings (B, F).
        groups: images (rows, C, H, W) of each resolution, the large one first: its call alone moves BatchNorm's
            running statistics, so that evaluation is not at the mercy of the last small crops.

    Returns:
        (rows of all groups, F), in order.
    """
    first, *others = groups
    embeddings = [backbone(first)]
    with running_statistics_frozen(backbone):
        embeddings += [backbone(group) for group in others]
    return torch.cat(embeddings)


def check_assigning_views(views: Sequence[int], num_views: int | None = None) -> None:
    """Whether views that assign are named well, and are there.

    Args:
        views: numbers of views, large ones first.
        num_views: how many views an image has; None: not known yet.

    Raises:
        ValueError: none or one of them twice, one that is not there, or no other view to predict from.
    """
    if not views or min(views) < 0 or len(set(views)) < len(views):
        raise ValueError(f"assigning_views is {list(views)}: name at least one view, each once, from 0 on.")
    if num_views is not None and max(views) >= num_views:
        raise ValueError(
            f"assigning_views is {list(views)}, but an image has {num_views} views, counted from 0: draw more in "
            "views.large.count, or name others."
        )
