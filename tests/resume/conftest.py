from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from tapetum.engine.callbacks import TIME_COLUMNS
from tapetum.ops.randomness import make_keys, uniform

HERE = Path(__file__).parent

RECIPE = """
description: PAWS on coloured photographs, for seconds
method: {kind: paws, supervised_weight: 0.5, head: {hidden: 16, output: 8, layers: 2}}
backbone: {kind: small_net, stem: 8, widths: [8, 16]}
data: {images: photos/train, test: photos/test, labels_per_class: 4, held_out_per_class: 4, batch_size: 8}
views:
  large: {size: 16, count: 2, scale: [0.5, 1.0], brightness: 0.3, hue: 0.1, blur: 0.5, solarize: 0.1}
  small: {size: 12, count: 1, scale: [0.2, 0.5]}
  mean: [0.4, 0.4, 0.4]
  std: [0.3, 0.3, 0.3]
  evaluation: {resize: 20, crop: 16}
support: {images_per_class: 2}
optimizer: {kind: sgd, weight_decay: 1e-4, lr: {start: 0.05, peak: 0.1, final: 0.0, warmup_epochs: 1}}
runtime: {accelerator: cpu, threads: 1}
trainer: {steps: 24, log_every: 4, evaluate_every: 5, checkpoint_every: 6}
"""


def write_photos(folder: Path, per_class: int, one_size: bool) -> None:
    """Noisy JPEG files in three class folders; those of differing sizes stay files, the others are decoded once."""
    for label, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            height, width = (24, 24) if one_size else (20 + number % 7, 20 + number % 5)
            noise = uniform(make_keys("photos", label, [number]), height * width * 3).reshape(height, width, 3)
            noise[..., label] += 1
            Image.fromarray((120 * noise).astype(np.uint8)).save(folder / name / f"{number:02d}.jpg", quality=95)


class Runs:
    """Starts, kills and compares runs of the real command line in a folder that holds recipe.yaml and photos."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")},
            "TAPETUM_CACHE": str(folder / "cache"),
            # On a busy machine two threads that spin while they wait for each other take minutes for these steps.
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def write(self, one_size: bool = True) -> None:
        (self.folder / "tiny.yaml").write_text(RECIPE)
        write_photos(self.folder / "photos/train", 20, one_size)
        write_photos(self.folder / "photos/test", 4, one_size)

    def start(self, moment: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "dying_cli.py"), moment, *arguments]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def call(self, moment: str, *arguments: str, **environment: str) -> str:
        """Run to the end that the moment says; returns stderr."""
        return self.end(self.start(moment, *arguments, **environment), moment)

    @staticmethod
    def end(process: subprocess.Popen[str], moment: str = "never") -> str:
        _, error = process.communicate(timeout=600)
        expected = {"never": 0, "slow": 0, "kill": -signal.SIGKILL, "int": 130}[moment.partition("@")[0]]
        assert process.returncode == expected, error
        assert "Traceback" not in error
        return error

    def kill_after(self, seconds: float, *arguments: str, from_start: bool) -> bool:
        """SIGKILL so long after the start of the process, or of its steps. Returns whether it was still running."""
        (self.folder / "started").unlink(missing_ok=True)
        process = self.start("slow", *arguments)
        deadline = time.monotonic() + 300
        while not from_start and not (self.folder / "started").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds)
        was_running = process.poll() is None
        process.kill()
        process.communicate()
        return was_running

    def checkpoints(self, run: str) -> list[int]:
        names = (path.stem for path in (self.folder / run / "checkpoints").glob("*.safetensors"))
        return sorted(int(name.removeprefix("step-")) for name in names)

    def steps_logged(self, run: str) -> int:
        return len(self._table(run))

    def _table(self, run: str) -> list[dict[str, str]]:
        with (self.folder / run / "metrics.csv").open(newline="") as file:
            return [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in csv.DictReader(file)]

    def assert_same(self, left: str, right: str) -> None:
        """Last checkpoints agree to the last bit, metrics.csv but for its time columns, accuracies to the digit."""
        table = self._table(left)
        assert table == self._table(right)
        assert [row["step"] for row in table] == [str(step + 1) for step in range(len(table))]
        assert self.checkpoints(left) == self.checkpoints(right)
        last = f"checkpoints/step-{self.checkpoints(left)[-1]:08d}.safetensors"
        assert_same_tensors(self.folder / left / last, self.folder / right / last)
        summaries = [json.loads((self.folder / run / "summary.json").read_text()) for run in (left, right)]
        for name in ("steps", "images_seen", "heldout", "test", "skipped_steps"):
            assert summaries[0][name] == summaries[1][name], name
        assert not list((self.folder / right).rglob("*.partial"))

    def stop_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()


def assert_same_tensors(left: Path, right: Path) -> None:
    with safe_open(left, "np") as one, safe_open(right, "np") as other:
        assert sorted(one.keys()) == sorted(other.keys())
        for name in one.keys():  # noqa: SIM118 (no mapping)
            assert one.get_tensor(name).tobytes() == other.get_tensor(name).tobytes(), name


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path)
    yield made
    made.stop_all()
