"""Passes more labelled images through a backbone than its activations have memory for.

The images go through the backbone chunk by chunk. A chunk's activations are dropped after its pass and computed again
when the backward pass needs them (Chen, Xu, Zhang & Guestrin, "Training deep nets with sublinear memory cost", 2016,
https://arxiv.org/abs/1604.06174), so that memory holds those of one chunk at a time. The price is a second forward
pass of these images.

What a chunk computes does not depend on whether it is computed again: dropout draws the same numbers, and a second
pass moves no running statistics. What the chunks together compute depends on BatchNorm: in training mode each chunk is
normalised by its own statistics, as in processes that do not share them. Without BatchNorm, or with its statistics
frozen, the gradients are those of one pass of all images, up to rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tapetum.nn.multi_crop import embed_views


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Within this context a module works on copies of its buffers; afterwards it has the old ones, unchanged.

    Freezing the running statistics would not do for a second pass: BatchNorm keeps them for the backward pass if and
    only if it updates them, and a second pass has to keep as many tensors as the first.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with buffers_kept(layer):
        ...     _ = layer(torch.ones(4, 2))
        >>> int(layer.num_batches_tracked)
        0
    """
    held = [(part, *named) for part in module.modules() for named in part.named_buffers(recurse=False)]
    try:
        for part, name, buffer in held:
            setattr(part, name, buffer.clone())
        yield
    finally:
        for part, name, buffer in held:
            setattr(part, name, buffer)


def embed_in_chunks(backbone: nn.Module, images: Tensor, rows: int | None) -> Tensor:
    """Embed images in chunks of at most so many, whose activations are computed again in the backward pass.

    Chunks differ by one image at most, so the last one is no remainder with statistics of few images. Processes with
    equally many images make equally many chunks, so that BatchNorm over all processes works in both passes.

    Args:
        backbone: maps images to embeddings (B, F).
        images: (N, C, H, W).
        rows: the most images in a chunk, 1 or more; None: one pass of all, whose activations are kept.

    Returns:
        (N, F), in the order of the images.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> embed_in_chunks(network, torch.zeros(7, 3, 2, 2), rows=3).shape
        torch.Size([7, 5])
    """
    if rows is None:
        return backbone(images)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), buffers_kept(backbone)

    chunks = images.tensor_split(max(1, -(-len(images) // rows)))
    return torch.cat([checkpoint(backbone, chunk, use_reentrant=False, context_fn=contexts) for chunk in chunks])


def embed_with_supports(
    backbone: nn.Module, supports: Tensor, groups: Sequence[Tensor], rows: int | None = None
) -> Tensor:
    """Embed labelled images and all views of the others.

    Args:
        backbone: maps images to embeddings (B, F).
        supports: (S, C, H, W), of the large views' size; there may be none.
        groups: images (rows, C, H, W) of each resolution, the large one first, as for `embed_views`; may be empty.
        rows: labelled images that pass through the backbone at once, see `embed_in_chunks`; None: all of them together
            with the large views, as in the published PAWS.

    Returns:
        (S + rows of all groups, F), in this order.
    """
    if not groups:
        return embed_in_chunks(backbone, supports, rows)
    if rows is None or not len(supports):
        large, *others = groups
        return embed_views(backbone, [torch.cat([supports, large]), *others])
    return torch.cat([embed_in_chunks(backbone, supports, rows), embed_views(backbone, groups)])
