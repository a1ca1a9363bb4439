"""The real command line with a death built in: the product's code is untouched, one function of it is wrapped.

    python dying_cli.py MOMENT ARGUMENT...

MOMENT is `never` or SIGNAL@PLACE, SIGNAL being kill (to this process) or int (to its whole process group, as a
terminal's Ctrl-C). Places:

    recipe         the resolved recipe is written and has not got its name yet
    step:N         N steps are finished; the next one begins
    checkpoint:N   the checkpoint of step N is half written
    evaluation:N   the N-th evaluation of this process, between its two passes through the network

`slow` in place of MOMENT makes each step last 20 ms longer and says by a file `started` that steps have begun.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import tapetum.evaluation.embedding
import tapetum.runs.pool
import tapetum.runs.run
from tapetum.cli.main import main


def die(name: str) -> None:
    if name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os.killpg(0, signal.SIGINT)
    time.sleep(0.2)  # until Python has seen it


def at_step(name: str, number: int) -> None:
    set_schedules = tapetum.runs.run.set_schedules

    def dying(optimizer: Any, config: Any, step: int, *rest: Any) -> None:
        if step == number:
            die(name)
        set_schedules(optimizer, config, step, *rest)

    tapetum.runs.run.set_schedules = dying


def at_evaluation(name: str, number: int) -> None:
    stream = tapetum.evaluation.embedding.Embedder.stream_readable
    passes = 0

    def dying(*arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes == 2 * number:
            die(name)
        return stream(*arguments)

    tapetum.evaluation.embedding.Embedder.stream_readable = dying


def at_rename(name: str, target: str, cut: bool) -> None:
    replace = os.replace

    def dying(source: Any, goal: Any) -> None:
        if Path(goal).name == target:
            if cut:
                os.truncate(source, os.path.getsize(source) // 2)
            die(name)
        replace(source, goal)

    os.replace = dying


def slowly() -> None:
    set_schedules = tapetum.runs.run.set_schedules

    def slowed(*arguments: Any) -> None:
        Path("started").touch()
        time.sleep(0.02)
        set_schedules(*arguments)

    tapetum.runs.run.set_schedules = slowed


def prepare(moment: str) -> None:
    if moment == "slow":
        slowly()
    if moment in ("slow", "never"):
        return
    name, _, place = moment.partition("@")
    place, _, number = place.partition(":")
    if place == "recipe":
        at_rename(name, "recipe.yaml", cut=False)
    elif place == "checkpoint":
        at_rename(name, f"step-{int(number):08d}.safetensors", cut=True)
    elif place == "step":
        at_step(name, int(number))
    else:
        at_evaluation(name, int(number))


if __name__ == "__main__":
    if os.environ.get("TAPETUM_TEST_STREAMED"):  # images stay where they are, as if they did not fit into memory
        tapetum.runs.pool.decoded = lambda store, report: store
    prepare(sys.argv[1])
    main(sys.argv[2:])
