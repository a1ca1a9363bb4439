"""Backbones shared out over two and four processes, and what becomes of their runs. See also test_family.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tapetum.engine.checkpoint import list_checkpoints, read_checkpoint

pytestmark = pytest.mark.slow

HELPER = Path(__file__).parents[1] / "helpers" / "sharded.py"
CASES = ("wide_resnet", "wide_resnet_recomputed", "prototypes", "bank", "resnet", "timm", "timm_recomputed", "frozen")


BY_ADAMW = ("resnet", "transformer_recomputed")
"""A BatchNorm takes away the biases before it, and attention those of its keys. The gradient of such a bias is rounding
alone, and AdamW, which divides each gradient by its size, makes steps of that: up to 1e-9 in float64."""


def assert_same(sharded: tuple[Any, ...], plain: tuple[Any, ...], name: str) -> None:
    """Losses, norms, weights and buffers; and what belongs to the process."""
    for found, expected in zip(sharded, plain, strict=True):
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            ours = {"rtol": 1e-11, "atol": 1e-9 if name in BY_ADAMW else 1e-11, "equal_nan": True}
            torch.testing.assert_close(found[key], tensor, **ours, msg=f"{name}, {key}")


def run(folder: Path, processes: int, *names: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    command = [sys.executable, str(HELPER), str(folder), str(processes), *names]
    subprocess.run(command, env=environment, check=True, timeout=600)


@pytest.mark.parametrize("processes", [2, 4])
def test_sharding_out_changes_nothing(family, tmp_path, processes):
    """Beside DDP: losses, norms of gradients, weights, buffers, local state."""
    cases = (*CASES, "transformer", "transformer_recomputed", "not_finite")
    run(tmp_path, processes, "all_methods", *cases)
    for kind in family.SHARDABLE:
        for rank in range(processes):
            assert_same(
                torch.load(tmp_path / f"{kind}-fsdp-{rank}.pt"), torch.load(tmp_path / f"{kind}-{rank}.pt"), kind
            )
    for name in cases:
        for rank in range(processes):
            sharded, plain = (torch.load(tmp_path / f"{name}-{way}-{rank}.pt") for way in ("fsdp", "ddp"))
            assert sharded[2] == plain[2]
            assert_same(sharded[:2], plain[:2], name)


def test_a_run_of_two_processes_goes_on_in_any_number_of_them(tmp_path):
    """With --inexact: sums of gradients are taken in another order."""
    run(tmp_path, 2, "resume:timm")
    kept = tmp_path / "kept"
    (tmp_path / "whole").rename(kept)
    states = {}
    for processes in (2, 4, 1):
        shutil.copytree(kept, tmp_path / "whole")
        run(tmp_path, processes, "continue:timm")
        states[processes] = torch.load(tmp_path / f"continued-{processes}.pt")
        last = list_checkpoints(tmp_path / "whole" / "checkpoints")[-1]
        weights = read_checkpoint(last).part("method")
        assert last.is_dir() == (processes > 1)
        assert all(torch.equal(weights[name], states[processes][name]) for name in weights)
        shutil.rmtree(tmp_path / "whole")
    for processes in (4, 1):
        for name, tensor in states[2].items():
            torch.testing.assert_close(states[processes][name], tensor, rtol=1e-9, atol=1e-9)


RECIPE = """
method: {kind: paws, head: {hidden: 16, output: 8, layers: 2}}
backbone: {kind: wide_resnet, depth: 10, width: 1}
data: {images: digits, labels_per_class: 4, batch_size: 16, held_out_per_class: 10}
views: {large: {size: 8, count: 2, scale: [0.5, 1.0], flip: 0}, mean: [0.3], std: [0.4], evaluation: {crop: 8}}
support: {images_per_class: 2}
optimizer: {kind: lars, lr: {peak: 1.0}}
trainer: {steps: 6, checkpoint_every: 2, keep_every: 2, evaluate_every: 2, keep_best: true}
runtime: {devices: 2, strategy: fsdp, recompute: blocks, accelerator: cpu, threads: 1, precision: float32}
"""


def test_a_sharded_run_is_trained_resumed_and_used_by_the_verbs(tmp_path):
    """It has the accuracy of the same run under DDP, up to rounding, and one process evaluates and exports it."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def tapetum(*arguments: str) -> str:
        command = [sys.executable, "-m", "tapetum", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    trained = tapetum("train", "recipe.yaml", "--output", "sharded")
    assert "Accuracy on held-out labels" in trained
    assert (tmp_path / "sharded/checkpoints/step-00000006.safetensors/part-00001-of-00002.safetensors").is_file()
    tapetum("train", "recipe.yaml", "--output", "plain", "runtime.strategy=ddp", "runtime.recompute=none")
    sharded, plain = (
        read_checkpoint(tmp_path / name / "checkpoints/step-00000006.safetensors").part("method")
        for name in ("sharded", "plain")
    )
    for name, tensor in plain.items():
        torch.testing.assert_close(sharded[name], tensor, rtol=1e-3, atol=1e-4)
    shutil.rmtree(tmp_path / "sharded/checkpoints/step-00000006.safetensors")
    tapetum("resume", "sharded")
    again = read_checkpoint(tmp_path / "sharded/checkpoints/step-00000006.safetensors").part("method")
    assert all(torch.equal(again[name], sharded[name]) for name in sharded)
    assert "%" in tapetum("evaluate", "sharded")
    tapetum("export", "sharded", "--format", "safetensors", "--output", "model.safetensors")
