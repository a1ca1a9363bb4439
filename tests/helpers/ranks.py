"""Processes as torchrun starts them, forked from the test so that they need not import everything again."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tapetum.cli.main import main

PATIENCE = 120.0
"""Seconds after which processes that wait for each other count as stuck."""


def call(world_size: int, *words: str, before: Callable[[int], object] | None = None) -> list[tuple[int, str, str]]:
    """Let so many ranks run one command line; returns exit code (negative: killed), output and errors of each.

    Args:
        before: called in each process with its rank, before the command.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(f"said-{port}")
    folder.mkdir()
    processes = [_start(rank, world_size, port, folder, words, before) for rank in range(world_size)]
    codes = _wait(processes)
    texts = [[(folder / f"{name}{rank}").read_text() for name in ("out", "err")] for rank in range(world_size)]
    return [(code, out, error) for code, (out, error) in zip(codes, texts)]


def _start(
    rank: int, world_size: int, port: int, folder: Path, words: tuple[str, ...], before: Callable[[int], object] | None
) -> int:
    process = os.fork()
    if process:
        return process
    try:
        sys.stdout, sys.stderr = ((folder / f"{name}{rank}").open("w") for name in ("out", "err"))
        os.environ |= {"TORCHELASTIC_RUN_ID": "test", "RANK": f"{rank}", "WORLD_SIZE": f"{world_size}"}
        os.environ |= {"LOCAL_RANK": f"{rank}", "LOCAL_WORLD_SIZE": f"{world_size}", "OMP_NUM_THREADS": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
        if before is not None:
            before(rank)
        try:
            main(list(words))
        except SystemExit as stop:
            code = stop.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)


def _wait(processes: list[int]) -> list[int]:
    codes: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE
    while len(codes) < len(processes):
        for process in set(processes) - codes.keys():
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                codes[process] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            for process in set(processes) - codes.keys():
                os.kill(process, 9)
                os.waitpid(process, 0)
            raise AssertionError(f"{len(processes) - len(codes)} processes were stuck")
        time.sleep(0.01)
    return [codes[process] for process in processes]
