"""The processes of one training: torchrun or srun starts them all, or Fabric starts the further ones from the first.

Only environment variables are read here, so that the command line knows its rank before torch is there.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Launched:
    """This process, one of those that torchrun or srun started."""

    by: str
    """The launcher."""
    rank: int
    world_size: int
    local_rank: int
    """Among the processes on this machine."""
    local_size: int
    """Number of processes on this machine."""
    address: str
    """The machine of rank 0."""
    port: int
    """Where rank 0 listens."""
    threads: int | None
    """CPU threads that were set aside for each process; None where nobody said."""


def launched() -> Launched | None:
    """What a launcher says about this process; None where it was started alone or by Fabric.

    A single task of srun counts as started alone: it is how one gets onto a node, and a recipe for several devices
    then starts its own processes there.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return Launched(
            by="torchrun",
            rank=_number("RANK"),
            world_size=_number("WORLD_SIZE"),
            local_rank=_number("LOCAL_RANK"),
            local_size=_number("LOCAL_WORLD_SIZE"),
            address=os.environ["MASTER_ADDR"],
            port=_number("MASTER_PORT"),
            threads=_number("OMP_NUM_THREADS", 0) or None,
        )
    # The variables of a step, not those of a job: a batch script that calls no srun is one process, whatever it holds.
    if _number("SLURM_STEP_NUM_TASKS", 1) > 1:
        return Launched(
            by="srun",
            rank=_number("SLURM_PROCID"),
            world_size=_number("SLURM_STEP_NUM_TASKS"),
            local_rank=_number("SLURM_LOCALID"),
            local_size=_tasks_of_nodes(os.environ["SLURM_STEP_TASKS_PER_NODE"])[_number("SLURM_NODEID")],
            address=os.environ.get("MASTER_ADDR") or _first_node(),
            port=_number("MASTER_PORT", 0) or _port(),
            threads=_number("OMP_NUM_THREADS", 0) or _number("SLURM_CPUS_PER_TASK", 0) or None,
        )
    return None


def process_rank() -> int:
    """This process's rank, known from its first line on; 0 where there is one process."""
    place = launched()
    return _number("LOCAL_RANK", 0) if place is None else place.rank  # Fabric numbers the processes that it starts


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "")
    if default is not None and not text.isdigit():
        return default
    return int(text)


def _tasks_of_nodes(text: str) -> list[int]:
    """Slurm's short form written out: "2(x3),1" is [2, 2, 2, 1]."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def _first_node() -> str:
    """The first of a list of nodes such as "gpu[03-05,9],big1"; rank 0 runs there."""
    if _number("SLURM_STEP_NUM_NODES", 1) == 1:
        return "127.0.0.1"
    return re.sub(r"^([^,\[]*)\[([^],-]*)[^]]*\]([^,]*)", r"\1\2\3", os.environ["SLURM_STEP_NODELIST"]).split(",")[0]


def _port() -> int:
    """One that all processes know and other steps on the machine hardly use, below those that systems hand out."""
    return 10_000 + (31 * _number("SLURM_JOB_ID") + _number("SLURM_STEP_ID")) % 20_000
