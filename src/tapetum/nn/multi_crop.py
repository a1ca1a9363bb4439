"""Passes views of several resolutions through one backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tapetum.nn.batch_norm import running_statistics_frozen


def embed_views(backbone: nn.Module, groups: Sequence[Tensor]) -> Tensor:
    """Embed all views, with one backbone call for each resolution.

    Args:
        backbone: maps images to embeddings (B, F).
        groups: images (rows, C, H, W) of each resolution, the large one first: only its call updates BatchNorm's
            running statistics, so evaluation does not depend on the last small crops.

    Returns:
        (rows of all groups, F), in order.
    """
    first, *others = groups
    embeddings = [backbone(first)]
    with running_statistics_frozen(backbone):
        embeddings += [backbone(group) for group in others]
    return torch.cat(embeddings)


def check_assigning_views(views: Sequence[int], num_views: int | None = None) -> None:
    """Check that the assigning views are valid and exist.

    Args:
        views: numbers of views, large ones first.
        num_views: how many views an image has; None: not known yet.

    Raises:
        ValueError: `views` is empty, repeats a view, or names one that does not exist.
    """
    if not views or min(views) < 0 or len(set(views)) < len(views):
        raise ValueError(f"assigning_views is {list(views)}: name at least one view, each once, counting from 0.")
    if num_views is not None and max(views) >= num_views:
        raise ValueError(
            f"assigning_views is {list(views)}, but an image has {num_views} views, counted from 0: raise "
            "views.large.count, or name other views."
        )
