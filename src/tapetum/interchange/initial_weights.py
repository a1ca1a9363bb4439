"""Starts training from existing weights: those of a run, or a published file in one of the known layouts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tapetum.interchange.layouts import TAPETUM, layout_of
from tapetum.interchange.weight_files import read_weights
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
        return f"{text} (layout: {self.layout})"


def load_initial_weights(method: Method, source: str | Path) -> Taken:
    """Load a new method's backbone, and the heads that fit, from a run or a file.

    The backbone is found under any prefix, as in "encoder.conv1.weight" or "module.conv1.weight", and must be complete.
    Heads are found by the file's layout (`tapetum.interchange.layouts`) and taken where their shapes agree.

    Args:
        method: newly built; modified in place.
        source: the folder of a run, or a file: .safetensors, .pt, .pth, .pth.tar, .bin or .ckpt.

    Returns:
        What was taken, and what was not and why.

    Raises:
        ValueError: the source is missing, holds more than tensors, or is of another network; names the first mismatch.
    """
    found = read_weights(source)
    own = {name: tensor for name, tensor in method.state_dict().items() if isinstance(tensor, Tensor)}
    prefix = _backbone_prefix(own, found, source)
    outside = prefix.removesuffix(_BACKBONE)  # where heads stand
    names = [name.removeprefix(outside) for name in found if name.startswith(outside)]
    layout = TAPETUM if outside == "method." else layout_of(names)
    used = {_BACKBONE + name.removeprefix(prefix): name for name in found if name.startswith(prefix)}
    used = {ours: name for ours, name in used.items() if ours in own}
    of_backbone, unused = set(used.values()), {}
    for name in found:
        if name in of_backbone:
            continue
        ours = layout.own_name(name.removeprefix(outside)) if name.startswith(outside) else None
        if ours is not None and ours in own and found[name].shape == own[ours].shape:
            used[ours] = name
        else:
            unused[name] = _why_unused(
                name, found[name], ours, own, prefix, layout.why_unused(name.removeprefix(outside))
            )
    with torch.no_grad():
        for ours, name in used.items():
            own[ours].copy_(found[name])
    new = tuple(name for name in own if name not in used and not name.endswith(_COUNTER))
    return Taken(layout.title, used, unused, new)


def _why_unused(
    name: str, tensor: Tensor, ours: str | None, own: Mapping[str, Tensor], prefix: str, reason: str | None
) -> str:
    """Completes "n tensors are ..."."""
    if ours is not None and ours in own:
        return f"of another shape ({tuple(tensor.shape)}, not {tuple(own[ours].shape)})"
    if ours is not None:
        part = ours.partition(".")[0]
        has_part = any(other.startswith(f"{part}.") for other in own)
        kind = part if part.endswith("s") else f"a {part}"  # prototypes
        return f"of {kind} with other layers" if has_part else f"of {kind}, which this method lacks"
    if reason is not None:
        return reason
    return "of no part of this network" if name.startswith(prefix.removesuffix(_BACKBONE)) else "training state"


def _backbone_prefix(own: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str | Path) -> str:
    """The prefix of the backbone's tensors in a file, after checking that all of them are there."""
    wanted = {name.removeprefix(_BACKBONE): tensor for name, tensor in own.items() if name.startswith(_BACKBONE)}
    first = next(iter(wanted))
    prefixes = {name.removesuffix(first) for name in found if name == first or name.endswith(f".{first}")}
    if not prefixes:
        shown = ", ".join(list(found)[:3]) or "nothing"
        raise ValueError(
            f"init: {source} has no tensor named {first}, with which the backbone begins (it has {shown}, ...): "
            f"choose the backbone that these weights belong to."
        )
    # A run's checkpoint holds every weight's name a second time, for its momentum; DINO's holds teacher and student.
    preferred = ("method.", "teacher.")
    prefix = max(sorted(prefixes), key=lambda p: (p.startswith(preferred), sum(p + name in found for name in wanted)))
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
    return prefix
