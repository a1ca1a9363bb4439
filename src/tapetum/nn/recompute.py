"""Passes more images through a backbone than its activations have memory for.

There are two ways, which go together: block by block, for all images (`recompute_blocks`), and chunk by chunk, for
labelled ones (`embed_in_chunks`). The activations of a block or a chunk are dropped after its pass and computed again
when the backward pass needs them (Chen, Xu, Zhang & Guestrin, "Training deep nets with sublinear memory cost", 2016,
https://arxiv.org/abs/1604.06174), so that memory holds those of one at a time. The price is a second forward pass.

What a block or a chunk computes does not depend on whether it is computed again: dropout draws the same numbers, and
a second pass moves no running statistics. What the chunks together compute depends on BatchNorm: in training mode each
chunk is normalised by its own statistics, as in processes that do not share them. Without BatchNorm, or with its
statistics frozen, the gradients are those of one pass of all images, up to rounding.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from tapetum.nn.multi_crop import embed_views
from tapetum.ops.blocks import blocks_of


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


def recompute_blocks(network: nn.Module) -> None:
    """Have each block of a network (`tapetum.ops.blocks`) computed again in the backward pass, in place.

    Memory then holds what goes into each block, and the activations of one block at a time. The blocks compute the same
    bits as before, and names and tensors stay. Evaluation, without gradients, is not affected.

    Raises:
        ValueError: the network has no blocks.

    Example:
        >>> network = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2) for _ in range(2)))
        >>> recompute_blocks(network)
        >>> network(torch.zeros(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """
    blocks = blocks_of(network)
    if not blocks:
        raise ValueError(
            f"runtime.recompute is blocks, but {type(network).__name__} is no stack of blocks: set it to none."
        )
    for block in blocks:
        # Not a wrapper, which would add to the names in the state dict; hooks of the block run once, around it.
        block.forward = functools.partial(_recomputed, block, block.forward)


def _recomputed(module: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """Call `forward`, which runs `module`, without keeping its activations."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _as_before(module)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


def _as_before(module: nn.Module) -> AbstractContextManager[None]:
    """A context for the second pass: copies of buffers, and running statistics frozen if they are frozen now."""
    layers = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    settings = [layer.track_running_stats for layer in layers]

    @contextmanager
    def context() -> Iterator[None]:
        found = [layer.track_running_stats for layer in layers]
        with buffers_kept(module):
            for layer, setting in zip(layers, settings):
                layer.track_running_stats = setting
            try:
                yield
            finally:
                for layer, setting in zip(layers, found):
                    layer.track_running_stats = setting

    return context()


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
    chunks = images.tensor_split(max(1, -(-len(images) // rows)))
    return torch.cat([_recomputed(backbone, backbone, chunk) for chunk in chunks])


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
