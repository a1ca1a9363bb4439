"""Two ranks with rank-local state: killed or stopped together, they end as if left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tapetum.engine.checkpoint import list_checkpoints

HERE = Path(__file__).parent


def start(run: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    command = [sys.executable, str(HERE / "toy_process.py"), str(run), *arguments]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def finish(run: Path, *arguments: str) -> None:
    assert start(run, *arguments).wait(timeout=300) == 0


def result(run: Path) -> tuple[list[list[str]], dict[str, bytes]]:
    table = [line.split(",")[:-2] for line in (run / "metrics.csv").read_text().splitlines()]
    from safetensors.numpy import load_file

    last = load_file(list_checkpoints(run / "checkpoints")[-1])
    return table, {name: array.tobytes() for name, array in last.items()}


def test_two_ranks(tmp_path):
    """Both ranks die inside an epoch; each gets its own queue back, and DDP sums in the same order."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    finish(whole, "--steps", "14")
    assert start(run, "--steps", "14", "--stop-after", "9").wait(timeout=300) == 9
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step-00000006.safetensors"]
    finish(run, "--steps", "14")
    assert result(whole) == result(run)


@pytest.mark.slow
def test_two_ranks_stop_at_the_same_step(tmp_path):
    """Ctrl-C reaches both ranks of a terminal, each in a step of its own."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    finish(whole, "--steps", "60")
    process = start(run, "--steps", "60", "--slow-step", "0.05")
    deadline = time.monotonic() + 120
    while not list_checkpoints(run / "checkpoints"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=300) != 0
    assert list_checkpoints(run / "checkpoints")[-1].name < "step-00000060.safetensors"
    finish(run, "--steps", "60")
    assert result(whole) == result(run)
