"""Checkpoints: one safetensors file with everything that cannot be derived, written completely or not at all.

    method.<state-dict name>              weights and buffers
    optimizer.<parameter name>.<key>      momentum and the like
    local.<rank>.<name>                   state that a method keeps per rank (queues)
    metadata["tapetum"]                   JSON: step, skipped steps, fingerprint, the optimizer's numbers, strides
    metadata["checksum"]                  of all of these (`tapetum.engine.checked_tensors`)

Nothing is pickled, so reading a checkpoint cannot run code. Tensors are written row-major, the only layout that the
format supports, and get their strides back when read, because a norm over a channels-last weight sums in another order.

Sharded weights make a folder of such files, with the same name; reading joins them
(`tapetum.engine.sharded_checkpoint`).
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tapetum.engine.checked_tensors import read_tensors, write_tensors
from tapetum.engine.sharded_checkpoint import joined, part_paths, remove
from tapetum.methods.base import Method
from tapetum.system.files import RESUME

CHECKPOINTS = "checkpoints"
"""Name of their folder inside a run folder."""
FORMAT = 1
"""Version of the layout above; a reader refuses a higher one."""
NUM_LATEST = 2
"""How many of the latest checkpoints are kept: the one before the last is a spare in case the last is damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """A training's state: named tensors on the CPU and a JSON object."""

    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps finished."""
        return int(self.scalars["step"])

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under `prefix` + ".", by the rest of their names, e.g. part("method.backbone")."""
        start = len(prefix) + 1
        return {name[start:]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix + ".")}

    def without_optimizer(self) -> "Checkpoint":
        """Return it with all that the optimizer keeps left out, as before the first step."""
        tensors = {name: tensor for name, tensor in self.tensors.items() if not name.startswith("optimizer.")}
        return Checkpoint(tensors, {**self.scalars, "optimizer": {}})


def capture(
    method: Method, optimizer: Optimizer, local: Sequence[Mapping[str, Tensor]], scalars: Mapping[str, Any]
) -> Checkpoint:
    """Copy everything that training changes to the CPU.

    Args:
        method: its state dict.
        optimizer: its state, named after the parameters of `method`.
        local: `method.local_state()` of every rank, in rank order.
        scalars: values that JSON can hold; "step" is required.

    Raises:
        ValueError: the method or optimizer holds state that is neither a tensor nor a number.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in method.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{type(method).__name__} has a non-tensor, {name}, in its state dict: make it a buffer.")
        tensors[f"method.{name}"] = value
    numbers: dict[str, dict[str, Any]] = {}
    for name, state in _optimizer_state(method, optimizer).items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = value
            elif value is None or isinstance(value, (bool, int, float)):
                numbers.setdefault(name, {})[key] = value
            else:
                what = f"{type(optimizer).__name__} keeps a {type(value).__name__} as {key} of {name}"
                raise ValueError(f"{what}, which no checkpoint can hold: keep tensors or numbers.")
    for rank, own in enumerate(local):
        tensors |= {f"local.{rank}.{name}": value for name, value in own.items()}
    copies = {name: _copy(value) for name, value in tensors.items()}
    return Checkpoint(copies, {**scalars, "format": FORMAT, "optimizer": numbers})


def restore(checkpoint: Checkpoint, method: Method, optimizer: Optimizer, rank: int) -> None:
    """Write a checkpoint's tensors into a method and its optimizer, which stay on their devices.

    Raises:
        ValueError: names or shapes do not fit the method.
    """
    try:
        method.load_state_dict(checkpoint.part("method"))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip().removesuffix(".")  # torch lists every parameter
        raise ValueError(
            f"The checkpoint does not fit this {type(method).__name__} ({reason}): resume with its own recipe."
        ) from error
    numbers = checkpoint.scalars["optimizer"]
    optimizer.state.clear()
    for name, (parameter, group) in _optimized(method, optimizer).items():
        state: dict[str, Any] = dict(numbers.get(name, {}))
        for key, value in checkpoint.part(f"optimizer.{name}").items():
            # torch keeps step counts on the CPU unless told otherwise, so a restored optimizer must do the same.
            counts = key == "step" and not (group.get("capturable") or group.get("fused"))
            state[key] = value.clone() if counts else value.to(parameter.device, copy=True)
        if state:
            optimizer.state[parameter] = state
    device = next((p.device for p in method.parameters()), torch.device("cpu"))
    local = checkpoint.part(f"local.{rank}")
    method.load_local_state({name: value.to(device, copy=True) for name, value in local.items()})


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of a step's checkpoint in a folder of checkpoints."""
    return folder / f"step-{step:08d}.safetensors"


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint file that is complete whenever its final name exists, even after a power failure.

    Writes to a temporary name, then does fsync, rename and fsync of the folder.

    Raises:
        ValueError: the file cannot be written, e.g. to a full disk; earlier checkpoints stay.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    # Even where torch calls both layouts contiguous: the strides of a 1x1 convolution still decide its kernel.
    strides = {n: list(t.stride()) for n, t in checkpoint.tensors.items() if t.stride() != _row_major(t)}
    header = json.dumps({**checkpoint.scalars, "strides": strides})
    write_tensors(path, contiguous, header, RESUME)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, every tensor with the strides it had.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, bits of it have changed, it is not a Tapetum checkpoint, or it comes from a
            newer version.
    """
    if path.is_dir():
        parts = (read_checkpoint(part) for part in part_paths(path))
        return Checkpoint(*joined(path, ((part.tensors, dict(part.scalars)) for part in parts)))
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}: check the path.")
    tensors, about = read_tensors(path)
    scalars = _scalars(about)
    if scalars is None:
        raise ValueError(f"{path} was not written by Tapetum: move it out of the run's folder.")
    if scalars["format"] > FORMAT:  # what else it holds is not known
        raise ValueError(f"{path} has format {scalars['format']}, newer than this Tapetum's {FORMAT}: update Tapetum.")
    try:
        for name, stride in scalars.pop("strides").items():
            tensors[name] = _with_strides(tensors[name], stride)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} tells strides that none of its tensors has: restore it from a copy, or delete it."
        ) from error
    return Checkpoint(tensors, scalars)


def _scalars(about: str | None) -> dict[str, Any] | None:
    """Return the JSON of a checkpoint, or None if Tapetum did not write it."""
    try:
        scalars = json.loads(about or "")
    except (ValueError, RecursionError):
        return None
    kinds = (("step", int), ("optimizer", dict), ("strides", dict))
    if not isinstance(scalars, dict) or not isinstance(scalars.get("format"), int):
        return None
    is_known = scalars["format"] > FORMAT or all(isinstance(scalars.get(key), kind) for key, kind in kinds)
    return scalars if is_known else None


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a folder by ascending step, ignoring files with other names."""
    return sorted((path for path in folder.glob("step-*.safetensors") if _step_of(path) >= 0), key=_step_of)


def latest_checkpoint(
    folder: Path, notify: Callable[[str], None], passed_over: set[Path] | None = None
) -> Checkpoint | None:
    """Read the latest undamaged checkpoint of a folder; return None if the folder has no checkpoints.

    Args:
        notify: called with a message for each damaged file that is skipped; the file stays where it is.
        passed_over: receives these files.

    Raises:
        ValueError: there are checkpoints, but none of them can be read.
    """
    damaged: ValueError | None = None
    for path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            damaged = error
            notify(f"{error} Going back to the checkpoint before it.")
            if passed_over is not None:
                passed_over.add(path)
            continue
        return checkpoint
    if damaged is not None:
        raise ValueError(f"No checkpoint in {folder} can be read: start the run again; the oldest of them: {damaged}")
    return None


def prune(folder: Path, keep_every: int | None, damaged: Collection[Path] = ()) -> None:
    """Delete leftovers of broken writes, and all checkpoints but the latest and those of every `keep_every`-th step.

    Files known to be damaged do not count among the latest; those of later steps stay, for whoever wants to see them.
    What cannot be deleted stays until the next call: on Windows a file cannot be while another process reads it.
    """
    every = list_checkpoints(folder)
    latest = [path for path in every if path not in damaged][-NUM_LATEST:]
    for path in every[: every.index(latest[-1])] if latest else ():
        if path not in latest and (keep_every is None or _step_of(path) % keep_every):
            _try_to_remove(path)
    for pattern in ("step-*.partial", ".tmp*"):  # safetensors leaves the latter behind when killed
        for path in folder.glob(pattern):
            _try_to_remove(path)


def _try_to_remove(path: Path) -> None:
    with suppress(OSError):  # no reason to end a training
        remove(path)


def _step_of(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else -1


def _optimized(method: nn.Module, optimizer: Optimizer) -> dict[str, tuple[nn.Parameter, dict[str, Any]]]:
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    return {names[id(p)]: (p, group) for group in optimizer.param_groups for p in group["params"]}


def _optimizer_state(method: nn.Module, optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    optimized = _optimized(method, optimizer)
    return {name: optimizer.state[p] for name, (p, _) in optimized.items() if p in optimizer.state}


def _copy(tensor: Tensor) -> Tensor:
    """Copy to the CPU with the same strides, or row-major if elements share memory or leave gaps."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.preserve_format)


def _row_major(tensor: Tensor) -> tuple[int, ...]:
    return torch.empty(tensor.shape, device="meta").stride()


def _with_strides(tensor: Tensor, stride: Sequence[int]) -> Tensor:
    # `_copy` leaves no gaps, and a gap may be larger than all memory.
    if min(stride) < 0 or 1 + sum((n - 1) * s for n, s in zip(tensor.shape, stride, strict=True)) > max(
        1, tensor.numel()
    ):
        raise ValueError("its elements lie apart")
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
