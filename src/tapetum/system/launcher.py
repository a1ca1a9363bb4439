"""The processes of one training: torchrun or srun starts all, or the first starts the others through Fabric.

Reads only environment variables, so that the command line knows its rank before torch is imported.
"""

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Launched:
    """This process, if torchrun or srun started it."""

    by: str
    """Name of the launcher: torchrun or srun."""
    rank: int
    world_size: int
    local_rank: int
    """Rank among the processes on this machine."""
    local_size: int
    """Number of processes on this machine."""
    address: str
    """Address of the machine of rank 0."""
    port: int
    """Port on which rank 0 listens."""
    threads: int | None
    """CPU threads reserved for each process; None if not specified."""


def launched() -> Launched | None:
    """Return what a launcher says about this process; None if it was started alone or by Fabric.

    A single srun task counts as started alone: people use it to get onto a node, where a recipe for several devices
    then starts its own processes.
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
    # Variables of a job step, not of the job: a batch script without srun is one process, whatever the job's size.
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
    """Return this process's rank, known from the start; 0 if there is only one process."""
    place = launched()
    return _number("LOCAL_RANK", 0) if place is None else place.rank  # Fabric numbers the processes it starts


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "")
    if default is not None and not text.isdigit():
        return default
    return int(text)


def _tasks_of_nodes(text: str) -> list[int]:
    """Expand Slurm's short form: "2(x3),1" becomes [2, 2, 2, 1]."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def _first_node() -> str:
    """Return the first of a list of nodes such as "gpu[03-05,9],big1"; rank 0 runs there."""
    if _number("SLURM_STEP_NUM_NODES", 1) == 1:
        return "127.0.0.1"
    return re.sub(r"^([^,\[]*)\[([^],-]*)[^]]*\]([^,]*)", r"\1\2\3", os.environ["SLURM_STEP_NODELIST"]).split(",")[0]


def _port() -> int:
    """A port that all processes derive alike and other steps here hardly use, below those that systems assign."""
    return 10_000 + (31 * _number("SLURM_JOB_ID") + _number("SLURM_STEP_ID")) % 20_000
