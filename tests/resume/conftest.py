from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

DRIVER = Path(__file__).with_name("driver.py")


class Drive:
    """Starts, kills and compares runs of driver.py."""

    def start(self, run: Path, *arguments: str, own_group: bool = False) -> subprocess.Popen[bytes]:
        for mark in ("started", "in-evaluation", "in-checkpoint"):
            (run / mark).unlink(missing_ok=True)
        environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
        return subprocess.Popen(
            [sys.executable, str(DRIVER), str(run), *arguments], env=environment, start_new_session=own_group
        )

    def finish(self, run: Path, *arguments: str) -> None:
        assert self.start(run, *arguments).wait(timeout=300) == 0

    def kill_after(self, run: Path, mark: str, seconds: float, *arguments: str) -> bool:
        """SIGKILL `seconds` after the file `mark` is there. Returns whether it was still running."""
        process = self.start(run, *arguments)
        self._wait_for(process, run / mark)
        time.sleep(seconds)
        was_running = process.poll() is None
        process.kill()
        process.wait()
        return was_running

    def interrupt_after(self, run: Path, mark: str, seconds: float, *arguments: str) -> None:
        """SIGINT to the driver and the processes it started, as a terminal sends it; waits for its end."""
        process = self.start(run, *arguments, own_group=True)
        self._wait_for(process, run / mark)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=300) != 0

    @staticmethod
    def _wait_for(process: subprocess.Popen[bytes], mark: Path) -> None:
        deadline = time.monotonic() + 120
        while not mark.exists():
            assert process.poll() is None, "the driver ended before it was hit"
            assert time.monotonic() < deadline, f"no {mark}"
            time.sleep(0.002)

    @staticmethod
    def checkpoints(run: Path) -> list[str]:
        return sorted(path.name for path in (run / "checkpoints").glob("*.safetensors"))

    @staticmethod
    def assert_same(left: Path, right: Path) -> None:
        """The last checkpoints agree to the last bit, and metrics.csv but for its two time columns."""
        tables = [
            [line.split(",")[:-2] for line in (r / "metrics.csv").read_text().splitlines()] for r in (left, right)
        ]
        assert tables[0] == tables[1]
        assert [row[0] for row in tables[0][1:]] == [str(step + 1) for step in range(len(tables[0]) - 1)]
        assert Drive.checkpoints(left) == Drive.checkpoints(right)
        last = [run / "checkpoints" / Drive.checkpoints(run)[-1] for run in (left, right)]
        with safe_open(last[0], "np") as one, safe_open(last[1], "np") as other:
            assert sorted(one.keys()) == sorted(other.keys())
            for name in one.keys():  # noqa: SIM118 (no mapping)
                assert one.get_tensor(name).tobytes() == other.get_tensor(name).tobytes(), name


@pytest.fixture
def drive() -> Drive:
    return Drive()
