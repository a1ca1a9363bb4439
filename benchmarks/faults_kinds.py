"""The faults: what each does, to which commands, and at which moments."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import faults_strikes as strikes
from faults_cases import Case
from faults_processes import Ended, Strike
from faults_strikes import NEEDS_ROOM

PAGE = 4096
"""Bytes by which a small disk grows from one moment to the next."""
_BATCHES = frozenset({"batch"})
_READS = frozenset({"read"})
_TRAIN = ("train", "resume", "fit", "finetune")


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    about: str
    strike: Strike
    by_clock: float = 0.0
    """Share of the moments that are seconds after the start; the others are numbers of events."""
    expected: tuple[int, ...] = ()
    """Exit codes that need no sentence."""
    of: Callable[[Case], bool] = lambda case: True
    """The commands that it can strike."""
    adds: tuple[str, ...] = ()
    """Recipe values to set for it."""
    disk: str | None = None
    """If its moments are the room on a small disk: what fills it, "size" or "nr_inodes"."""
    takes_input: bool = False
    """Whether it changes what the command reads, so that a result may differ if it says so."""


def _trains(case: Case) -> bool:
    return case.verb in _TRAIN and case.method != "frozen"


def _prints(case: Case) -> bool:
    return case.processes == 1


def _signal(number: signal.Signals) -> Strike:
    return Strike(strikes.get(number), number=number)


FAULTS = {
    "kill": Fault("kill -9, to all processes of the run", Strike(strikes.die), by_clock=0.5, expected=(-9, -25)),
    "rank_killed": Fault(
        "kill -9 to one of several processes",
        Strike(strikes.die_alone, kinds=_BATCHES, alone=True),
        expected=(-9,),
        of=lambda case: case.processes > 1 and _trains(case),  # benchmarks/many_predict.py kills one that predicts
    ),
    "worker_killed": Fault(
        "kill -9 to a loader worker",
        Strike(strikes.end_worker, kinds=_BATCHES),
        of=lambda case: case.verb in ("train", "fit") and case.method != "frozen",
        adds=("data.workers=2",),
    ),
    "disk_full": Fault(
        "a disk that is full after so many pages", Strike(), disk="size", of=lambda case: case.processes == 1
    ),
    "inodes_full": Fault(
        "a disk that takes so many files more", Strike(), disk="nr_inodes", of=lambda case: case.processes == 1
    ),
    "no_space": Fault(
        "no space left on device, from so many writes on", Strike(strikes.refuse_room, kinds=NEEDS_ROOM, stays=True)
    ),
    "permission": Fault(
        "permission to write is taken away", Strike(strikes.forbid, prepare=strikes.give_up_capabilities)
    ),
    "file_gone": Fault("a file is gone before it is read", Strike(strikes.remove, kinds=_READS), takes_input=True),
    "file_cut": Fault("half of a file is gone before it is read", Strike(strikes.cut, kinds=_READS), takes_input=True),
    "nan_batch": Fault(
        "a batch has an image that is not a number",
        Strike(kinds=_BATCHES, prepare=strikes.spoil_batch),
        of=_trains,
    ),
    "nan_gradient": Fault(
        "a gradient is not a number", Strike(kinds=_BATCHES, prepare=strikes.spoil_gradient), of=_trains
    ),
    "sigterm": Fault("SIGTERM", _signal(signal.SIGTERM), by_clock=0.5, expected=(-15,)),
    "sighup": Fault("SIGHUP", _signal(signal.SIGHUP), by_clock=0.5, expected=(-1,)),
    "sigint": Fault("Ctrl-C", _signal(signal.SIGINT), by_clock=0.5),
    "closed_output": Fault(
        "the reader of standard output goes away after so many lines (`| head`)",
        Strike(lines=0),
        expected=(1,),
        of=_prints,
    ),
    "clock_back": Fault("the clock is set back by a day", Strike(strikes.set_clock_back, prepare=strikes.wind_clock)),
}


def chance(*key: object) -> float:
    """A number from 0 to 1 that the key decides."""
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest()) / 2**64


def moments(fault: Fault, name: str, case: Case, undisturbed: Ended, count: int | None, seed: int) -> list[float | int]:
    """Choose moments, evenly over a command: shares of its seconds (float), or numbers of events or lines (int).

    Args:
        undisturbed: how the command ended, with what it counted.
        count: how many; None for every event or line there is.
    """
    total = len(undisturbed.events)
    if fault.strike.lines is not None:
        total = undisturbed.output.count("\n") + 1
    if count is None or count >= total:
        numbers = list(range(1, total + 1))
        spare = 0 if count is None else round(fault.by_clock * count)
    else:
        spare = round(fault.by_clock * count)
        part = total / max(1, count - spare)
        numbers = [1 + int(part * (i + chance(seed, name, case.name, i))) for i in range(count - spare)]
    shares = [round((i + chance(seed, name, case.name, "seconds", i)) / spare, 5) for i in range(spare)]
    return [*numbers, *shares]


def command_of(fault: Fault, case: Case, command: Sequence[str]) -> tuple[str, ...]:
    """The command with the recipe values that the fault needs."""
    return (*command, *fault.adds)
