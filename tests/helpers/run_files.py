"""What a run leaves on disk, as tests compare it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

CHECKPOINTS = ["step-00000003.safetensors", "step-00000006.safetensors"]


def checkpoints(run: str | Path) -> list[str]:
    return sorted(path.name for path in (Path(run) / "checkpoints").iterdir())


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "checkpoints" / checkpoints(run)[-1])


def assert_same_weights(left: str | Path, right: str | Path) -> None:
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def rows(run: str | Path) -> list[dict[str, str]]:
    """metrics.csv without the columns of time."""
    with (Path(run) / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name not in ("train_seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sentence(error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text
