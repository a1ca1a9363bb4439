"""Every method, killed inside an epoch and resumed, ends with the bits and metrics of a run that was left alone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors import safe_open

from tapetum.engine.callbacks import TIME_COLUMNS

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = (
    "paws",
    "ropaws",
    "suave",
    "supervised",
    "simclr",
    "suncet",
    "swav",
    "deepcluster",
    "sela",
    "finetune",
    "fixmatch",
)
LOCAL = {"swav": {"queue"}, "suave": {"queue"}, "deepcluster": {"bank", "pool", "labels"}}
LOCAL["sela"] = LOCAL["deepcluster"]
"""What each process keeps for itself."""


def contents(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The tensors of a checkpoint as bytes, and its numbers but for the time."""
    with safe_open(path, "np") as file:
        numbers = json.loads(file.metadata()["tapetum"])
        del numbers["train_seconds"]
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}, numbers  # noqa: SIM118 (no mapping)


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in csv.DictReader(file)]


def assert_broken_off_inside_an_epoch(run: Path) -> None:
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-00000006.safetensors",
        "step-00000009.safetensors",
    ]


def assert_same(folder: Path, kind: str, processes: int) -> None:
    """Weights, momentum, queues and banks of all processes, numbers, and metrics.csv."""
    last = "checkpoints/step-00000014.safetensors"
    (expected, numbers), (found, found_numbers) = contents(folder / "whole" / last), contents(folder / "parts" / last)
    assert numbers == found_numbers
    assert sorted(expected) == sorted(found)
    assert [name for name in expected if expected[name] != found[name]] == []
    local = {name for name in expected if name.startswith("local.")}
    assert local == {f"local.{rank}.{name}" for rank in range(processes) for name in LOCAL.get(kind, ())}
    assert any(name.startswith("optimizer.") for name in expected)
    table = metrics(folder / "whole")
    assert table == metrics(folder / "parts")
    assert [row["step"] for row in table] == [str(step + 1) for step in range(14)]


def test_the_list_is_whole(family):
    assert set(METHODS) == set(family.TRAINED)


@pytest.mark.parametrize("trained", METHODS)
def test_one_process(family: ModuleType, trained: str, tmp_path: Path):
    family.train(trained, tmp_path / "whole")
    family.break_off(trained, tmp_path / "parts")
    assert_broken_off_inside_an_epoch(tmp_path / "parts")
    family.train(trained, tmp_path / "parts")
    assert_same(tmp_path, trained, 1)


@pytest.mark.slow
def test_four_processes(family: ModuleType, tmp_path: Path):
    """Those that go on are new processes. Most of the time goes into starting them, once for all methods."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    for action in ("break-off", "resume"):
        command = [sys.executable, family.__file__, action, str(tmp_path), "4", *METHODS]
        subprocess.run(command, env=environment, check=True, timeout=500)
        for kind in METHODS if action == "break-off" else ():
            assert_broken_off_inside_an_epoch(tmp_path / kind / "parts")
    for kind in METHODS:
        assert_same(tmp_path / kind, kind, 4)
