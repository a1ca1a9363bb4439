"""Checkpoints of networks whose weights are shared out: a folder with a file of every process, whole or not at all.

    step-00000500.safetensors/
      part-00000-of-00002.safetensors     rows of the sharded tensors, this process's local state; all other tensors
      part-00001-of-00002.safetensors     rows of the sharded tensors, this process's local state

Each file is a checkpoint as `tapetum.engine.checkpoint` writes them, whose JSON has "rows": the numbers of rows of the
whole tensors, by name. Rows are in the order of the processes, so reading joins them.

Why not `torch.distributed.checkpoint`: its own format keeps what is where in a file `.metadata`, which is a pickle, and
loading a pickle can run code. Its safetensors format runs none, but has no place for anything but tensors, notices
neither a missing file nor changed bits, and may be left half-written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tapetum.system.files import RESUME, sync_folder, writing

ROWS = "rows"
"""Key of the JSON of a part: name of each sharded tensor -> rows of the whole."""
_FIX = "restore it from a copy, or delete it"
_MOST_DIGITS = 9  # of a number of processes


def part_name(rank: int, world_size: int) -> str:
    """Return the name of a process's file.

    Example:
        >>> part_name(1, 2)
        'part-00001-of-00002.safetensors'
    """
    return f"part-{rank:05d}-of-{world_size:05d}.safetensors"


def write_parts(folder: Path, rank: int, write: Callable[[Path], None], barrier: Callable[[], None]) -> None:
    """Write the parts of a checkpoint from all processes; its folder gets its name once every part is on disk.

    Args:
        folder: the checkpoint.
        rank: of this process.
        write: writes this process's part into the folder that it is given.
        barrier: waits for all processes.

    Raises:
        ValueError: a part cannot be written; earlier checkpoints stay.
    """
    partial = folder.with_name(folder.name + ".partial")
    if rank == 0:
        with writing(partial, RESUME):
            remove(partial)  # left by a process that was killed
            partial.mkdir(parents=True)
    barrier()
    write(partial)
    barrier()
    if rank == 0:
        with writing(folder, RESUME):
            remove(folder)
            partial.replace(folder)
            sync_folder(folder.parent)
    barrier()


def remove(path: Path) -> None:
    """Delete a checkpoint, a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def part_paths(folder: Path) -> list[Path]:
    """Return the files of all processes, in their order.

    Raises:
        ValueError: one is missing.
    """
    found = {path.name: path for path in sorted(folder.glob("part-*-of-*.safetensors"))}
    digits = list(found)[-1].removesuffix(".safetensors").split("-")[-1] if found else ""
    world_size = int(digits) if digits.isdecimal() and len(digits) <= _MOST_DIGITS else 1
    paths = []
    for rank in range(world_size):  # ends at the first that is missing, whatever number a stranger's name tells
        name = part_name(rank, world_size)
        if name not in found:
            raise ValueError(f"{folder} lacks {name}: {_FIX}.")
        paths.append(found[name])
    return paths


def joined(
    folder: Path, parts: Iterable[tuple[Mapping[str, Tensor], dict[str, Any]]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Join the parts of a checkpoint, in the order of the processes: (tensors, JSON) of each, and of the whole.

    Raises:
        ValueError: the parts do not fit together.
    """
    tensors: dict[str, Tensor] = {}
    pieces: dict[str, list[Tensor]] = {}
    scalars: dict[str, Any] = {}
    for part, about in parts:
        scalars, rows = scalars or about, about.get(ROWS)
        if not isinstance(rows, dict) or (about["step"], rows) != (scalars["step"], scalars.get(ROWS)):
            raise ValueError(f"{folder} has parts of different checkpoints: {_FIX}.")
        for name, tensor in part.items():
            if name in rows:
                pieces.setdefault(name, []).append(tensor)
            else:
                tensors[name] = tensor
    for name, count in scalars.pop(ROWS, {}).items():
        tensors[name] = torch.cat(pieces.pop(name, []) or [torch.empty(0)])
        if tensors[name].shape[:1] != (count,):
            raise ValueError(f"{folder} lacks rows of {name}: {_FIX}.")
    return tensors, scalars
