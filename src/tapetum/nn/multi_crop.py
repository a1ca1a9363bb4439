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
