"""Starts training from existing weights: those of a run, or a published file in one of the known layouts."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tapetum.interchange.weights.layouts import Layout, prefixes, surroundings
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.methods.base import Method

_BACKBONE = "backbone."
_COUNTER = "num_batches_tracked"  # of BatchNorm: older files lack it, and nothing depends on it


@dataclass(frozen=True)
class Taken:
    """What a method took from a file: every tensor of either side is in one of these."""

    layout: str
    """Title of the recognised layout."""
    used: dict[str, str]
    """Name in the method -> name in the file."""
    unused: dict[str, str]
    """Name in the file -> why it was not used."""
    new: tuple[str, ...]
    """Names in the method that keep their fresh values."""
    grey: bool = False
    """Whether a convolution of colours was summed over them, because the network takes grey images."""

    def describe(self) -> str:
        """One line for people."""
        num_backbone = sum(name.startswith(_BACKBONE) for name in self.used)
        text = (
            f"{num_backbone} tensors of the backbone, {len(self.used) - num_backbone} of heads; {len(self.new)} are new"
        )
        reasons = Counter(self.unused.values())
        if reasons:
            why = "; ".join(f"{count} are {reason}" for reason, count in reasons.items())
            text += f". Not used are {len(self.unused)} of the file: {why}"
        if self.grey:
            text += ". Colours are summed for grey images"
        return f"{text} (layout: {self.layout})"


def load_initial_weights(method: Method, source: str | Path, found: dict[str, Tensor] | None = None) -> Taken:
    """Load a new method's backbone, and the heads that fit, from a run or a file.

    The backbone is found under any prefix, as in "encoder.conv1.weight" or "module.conv1.weight", and must be complete.
    Heads are found by the file's layout (`layouts.py`) and taken where their shapes agree. Weights of a colour network
    that go into one of grey images are summed over the colours, as timm does.

    Args:
        method: newly built; modified in place.
        source: the folder of a run, or weights as `tapetum.interchange.weights.weight_files.read_weights` takes them.
        found: the source's tensors, if they have been read; of a run, None reads those of its last checkpoint.

    Returns:
        What was taken, and what was not and why.

    Raises:
        ValueError: the source is missing, holds more than tensors, or is of another network; names the first mismatch.
    """
    found = read_weights(source) if found is None else found
    own = {name: tensor for name, tensor in method.state_dict().items() if isinstance(tensor, Tensor)}
    backbone = {name.removeprefix(_BACKBONE): tensor for name, tensor in own.items() if name.startswith(_BACKBONE)}
    prefix = _backbone_prefix(backbone, found, source)
    grey = _summed_colours(backbone, found, prefix)
    found |= grey
    _check_backbone(backbone, found, prefix, source)
    used = {_BACKBONE + name: prefix + name for name in backbone if prefix + name in found}
    taken = {*used.values()}
    others = {name: tensor for name, tensor in found.items() if name not in taken}
    outside, layout = surroundings(prefix, found)
    heads, unused = _sorted_heads(others, own, outside, layout, method.starts_anew)
    used |= heads
    with torch.no_grad():
        for ours, name in used.items():
            own[ours].copy_(found[name])
    method.starts_from_weights()
    new = tuple(name for name in own if name not in used and not name.endswith(_COUNTER))
    return Taken(layout.title, used, unused, new, bool(grey))


def _sorted_heads(
    others: Mapping[str, Tensor], own: Mapping[str, Tensor], outside: str, layout: Layout, starts_anew: Collection[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """`Taken.used` and `Taken.unused` of what is not the backbone's."""
    used, unused = {}, {}
    anew = tuple(f"{part}." for part in starts_anew)
    for name, tensor in others.items():
        inner = name.removeprefix(outside) if name.startswith(outside) else None
        ours = None if inner is None else layout.own_name(inner)
        if ours is not None and ours.startswith(anew):
            unused[name] = "of parts that start anew"
        elif ours is not None and ours in own and tensor.shape == own[ours].shape:
            used[ours] = name
        else:
            reason = None if inner is None else layout.why_unused(inner) or "of no part of this network"
            unused[name] = _why_unused(tensor, ours, own) or reason or "training state"
    return used, unused


def _why_unused(tensor: Tensor, ours: str | None, own: Mapping[str, Tensor]) -> str | None:
    """Completes "n tensors are ..." for the tensor of a known head; None for others."""
    if ours is None:
        return None
    if ours in own:
        return f"of another shape ({tuple(tensor.shape)}, not {tuple(own[ours].shape)})"
    part = ours.partition(".")[0]
    has_part = any(other.startswith(f"{part}.") for other in own)
    kind = part if part.endswith("s") else f"a {part}"  # prototypes
    return f"of {kind} with other layers" if has_part else f"of {kind}, which this method lacks"


def _backbone_prefix(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str | Path) -> str:
    """The prefix under which a file has most of the backbone's tensors."""
    first = next(iter(wanted))
    candidates = prefixes(found, first)
    if not candidates:
        shown = ", ".join(list(found)[:3]) or "nothing"
        raise ValueError(
            f"init: {source} has no tensor named {first}, with which the backbone begins (it has {shown}, ...): "
            f"choose the backbone that these weights belong to."
        )
    return max(candidates, key=lambda prefix: sum(prefix + name in found for name in wanted))


def _summed_colours(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The convolutions of colours, summed over them, that a network of grey images has with one channel."""
    summed = {}
    for name, tensor in wanted.items():
        theirs = found.get(prefix + name)
        wanted_shape = (tensor.shape[0], 3, *tensor.shape[2:]) if tensor.ndim == 4 else None
        if theirs is not None and tensor.shape[1:2] == (1,) and theirs.shape == wanted_shape:
            summed[prefix + name] = theirs.sum(dim=1, keepdim=True)
    return summed


def _check_backbone(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], prefix: str, source: str | Path) -> None:
    """Raises ValueError for the first tensor of the backbone that a file lacks or has in another shape."""
    for name, tensor in wanted.items():
        if prefix + name not in found:
            if name.endswith(_COUNTER):
                continue
            raise ValueError(f"init: {source} lacks {prefix}{name}: choose the backbone that these weights belong to.")
        shape = found[prefix + name].shape
        if shape != tensor.shape:
            raise ValueError(
                f"init: {prefix}{name} of {source} is {tuple(shape)}, but the backbone's is {tuple(tensor.shape)}: "
                f"choose the backbone that these weights belong to, and images with its number of channels."
            )
