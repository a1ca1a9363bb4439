"""Finds the blocks that a network is a stack of."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network in their order: the innermost modules with parts of their own inside a sequence.

    These are the blocks of the stages of a residual network and the layers of a vision transformer. Shortcuts and
    heads, whose sequences hold single layers, have none; timm's BatchNorm with an activation is a single layer, too.

    Example:
        >>> inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> len(blocks_of(nn.Sequential(nn.Linear(2, 2), nn.Sequential(inner, inner))))
        0
        >>> layers = [nn.TransformerEncoderLayer(8, 2) for _ in range(3)]
        >>> len(blocks_of(nn.Sequential(nn.Linear(2, 8), *layers)))
        3
    """
    found = []
    for child in network.children():
        inside = blocks_of(child)
        # Several processes replace every BatchNorm layer, and what had been changed in it would run as before.
        is_single = isinstance(child, nn.Sequential | _BatchNorm)
        is_stacked = isinstance(network, nn.Sequential | nn.ModuleList) and not is_single
        if inside:
            found += inside
        elif is_stacked and any(True for _ in child.children()):
            found.append(child)
    return found
