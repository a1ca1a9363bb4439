"""Starts training from existing weights: those of a run, or a file in one of the usual formats.

Files are read as tensors, and code in them is never run: safetensors, or torch's format with all but tensors refused.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tapetum.engine.checkpoint import CHECKPOINTS, latest_checkpoint
from tapetum.methods.base import Method
from tapetum.system.notices import notify

_TORCH_SUFFIXES = (".pt", ".pth", ".tar", ".bin", ".ckpt")


def load_initial_weights(method: Method, source: str | Path) -> str:
    """Load a new method's backbone, and everything else that fits by name and shape, from a run or a file.

    A backbone is found under any prefix, as in "encoder.conv1.weight" or "module.conv1.weight", and must be complete.
    Heads and classifiers are taken only from Tapetum's own files, if their shapes agree.

    Args:
        method: newly built; modified in place.
        source: the folder of a run, or a file: .safetensors, .pt, .pth, .pth.tar, .bin or .ckpt.

    Returns:
        A line that says what was taken.

    Raises:
        ValueError: the source is missing, holds more than tensors, or is of another network; names the first mismatch.
    """
    found = read_weights(source)
    own = {name: tensor for name, tensor in method.state_dict().items() if isinstance(tensor, Tensor)}
    taken = _backbone(own, found, source)
    num_backbone = len(taken)
    for name, tensor in own.items():
        if name not in taken and f"method.{name}" in found and found[f"method.{name}"].shape == tensor.shape:
            taken[name] = found[f"method.{name}"]
    with torch.no_grad():
        for name, tensor in taken.items():
            own[name].copy_(tensor)
    heads, rest = len(taken) - num_backbone, sum(name not in taken for name in own)
    return f"started from {source}: {num_backbone} tensors of the backbone, {heads} of heads; {rest} are new"


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a run's last checkpoint or of a file, by name; keys of nested dictionaries join with dots.

    Raises:
        ValueError: the source does not exist or cannot be read as nothing but tensors.
    """
    path = Path(source)
    if path.is_dir():
        checkpoint = latest_checkpoint(path / CHECKPOINTS, notify)
        if checkpoint is None:
            raise ValueError(f"{path} holds no checkpoint: give the folder of a run that has saved one, or a file.")
        return dict(checkpoint.tensors)
    if not path.is_file():
        raise ValueError(f"there is nothing at {path}: give the folder of a run or a file of weights.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is cut short or not a safetensors file ({error}): get it again.") from error
    if path.suffix not in _TORCH_SUFFIXES:
        known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise ValueError(f"{path} is not a file of weights: give one that ends in {known}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader fails in many ways on files that it was not made for
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path} holds more than tensors, or is damaged, and is not opened ({reason}): save a state dict."
        ) from error
    return dict(_tensors(content, ""))


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}.{key}" if name else str(key))


def _backbone(own: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Find the backbone's tensors, under the prefix that has most of them, and name them as the method does."""
    start = "backbone."
    wanted = {name.removeprefix(start): tensor for name, tensor in own.items() if name.startswith(start)}
    first = next(iter(wanted))
    prefixes = {name.removesuffix(first) for name in found if name == first or name.endswith(f".{first}")}
    if not prefixes:
        shown = ", ".join(list(found)[:3]) or "nothing"
        raise ValueError(
            f"init: {source} has no tensor named {first}, with which the backbone begins (it has {shown}, ...): "
            f"choose the backbone that these weights belong to."
        )
    # A run's checkpoint holds every weight's name a second time, for its momentum.
    prefix = max(sorted(prefixes), key=lambda p: (p.startswith("method."), sum(p + name in found for name in wanted)))
    for name, tensor in wanted.items():
        if prefix + name not in found:
            if name.endswith("num_batches_tracked"):
                continue
            raise ValueError(f"init: {source} lacks {prefix}{name}: choose the backbone that these weights belong to.")
        shape = found[prefix + name].shape
        if shape != tensor.shape:
            raise ValueError(
                f"init: {prefix}{name} of {source} is {tuple(shape)}, but the backbone's is {tuple(tensor.shape)}: "
                f"choose the backbone that these weights belong to, and images with its number of channels."
            )
    return {start + name: found[prefix + name] for name in wanted if prefix + name in found}
