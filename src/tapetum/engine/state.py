"""The state of a training besides its tensors, and what must match for a resumed run to be bit-identical."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tapetum.engine.runtime import Runtime, cpu_has

Fingerprint = dict[str, str | int | bool]
_IMPLIED = ("classes", "labelled", "judged")
"""Names that older checkpoints lack, as others tell them, too: the hash of labels is also one of classes and names."""


@dataclass
class TrainState:
    """The trainer's own state, stored in a checkpoint's JSON because it cannot be derived."""

    step: int = 0
    """Finished optimiser steps, including skipped ones."""
    images_seen: int = 0
    """Unlabelled images (labelled, in steps that use no others) that steps have used, over all ranks, with repeats."""
    train_seconds: float = 0.0
    """Wall time of training in seconds, over all resumptions, without work lost to a kill."""
    skipped_steps: list[int] = field(default_factory=list)
    """Steps, counted from 0, whose update is skipped because it was not finite."""

    @classmethod
    def from_scalars(cls, scalars: Mapping[str, Any]) -> TrainState:
        return cls(
            step=int(scalars["step"]),
            images_seen=int(scalars["images_seen"]),
            train_seconds=float(scalars["train_seconds"]),
            skipped_steps=[int(step) for step in scalars["skipped_steps"]],
        )


def fingerprint(runtime: Runtime, *, data: str) -> Fingerprint:
    """Return everything outside the recipe's method that determines the bits of a step.

    Args:
        runtime: already launched.
        data: hash of the list of images and labels.

    Returns:
        Names and values: threads, torch, device, cpu_capability, compile, precision, channels_last, world_size, data;
        strategy and recompute, if they are not the usual ones.
    """
    is_cuda = runtime.device.type == "cuda"
    # Older checkpoints know only the usual values of these.
    chosen = {"strategy": runtime.config.strategy, "recompute": runtime.config.recompute}
    unusual = {name: value for name, value in chosen.items() if value not in ("ddp", "none")}
    return {
        **unusual,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(runtime.device) if is_cuda else runtime.device.type,
        "cpu_capability": _cpu_capability(),
        "compile": runtime.compile,
        "precision": runtime.precision,
        "channels_last": runtime.channels_last,
        "world_size": runtime.world_size,
        "data": data,
    }


def _cpu_capability() -> str:
    """Return e.g. AVX512+avx512_bf16+amx_tile, by which oneDNN picks its kernels."""
    units = [unit for unit in ("avx512_bf16", "amx_tile") if cpu_has(unit)]
    return "+".join([torch.backends.cpu.get_cpu_capability(), *units])


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return one line for each name whose value differs, e.g. "torch: was 2.14.1, is 2.15.0"."""
    names = [*saved, *(name for name in current if name not in saved and name not in _IMPLIED)]
    return [
        f"{name}: was {saved.get(name, 'not recorded')}, is {current.get(name, 'not recorded')}"
        for name in names
        if not _same(saved.get(name), current.get(name))
    ]


def _same(saved: Any, current: Any) -> bool:
    """Whether two values are equal, as far as older checkpoints tell: these cut texts to 80 characters."""
    is_long = isinstance(current, str) and len(current) > 80
    return bool(saved == current or (is_long and saved == f"{current[:77]}..."))


def check_fingerprint(saved: Mapping[str, Any], current: Mapping[str, Any], *, inexact: bool = False) -> list[str]:
    """Compare a checkpoint's fingerprint with this process's.

    Returns:
        The differences; empty unless `inexact`.

    Raises:
        ValueError: they differ and `inexact` is false; the message names every difference.
    """
    found = differences(saved, current)
    if found and not inexact:
        raise ValueError(
            f"Resuming here would not give the bits of the uninterrupted run ({'; '.join(found)}):"
            " undo the difference, or accept it with --inexact."
        )
    return found


def restore_threads(saved: Mapping[str, Any], current: Fingerprint) -> Fingerprint:
    """Set this process to the thread count of a checkpoint; return the resulting fingerprint."""
    threads = int(saved.get("threads", torch.get_num_threads()))
    torch.set_num_threads(threads)
    return {**current, "threads": threads} if "threads" in saved else current
