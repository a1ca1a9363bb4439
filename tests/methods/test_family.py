"""What holds for every method of the family: it learns, and processes share its work rightly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.usefixtures("one_thread")


def test_training_lowers_the_loss_and_keeps_the_embedding_alive(family, kind):
    run = family.trainer(kind, None, 40)
    losses = family.losses_of(run.method)
    run.fit()
    assert torch.stack(losses[-8:]).mean() < torch.stack(losses[:8]).mean()
    images = family.batch_of(0).views.groups[0]
    assert (run.method.eval().embed(images).std(0) > 1e-3).any()


Ranks = list[tuple[dict[str, Tensor], dict[str, Tensor]]]
"""Losses and weights, and local state, of each process."""


@pytest.fixture(scope="session")
def trained_in(family, tmp_path_factory) -> Callable[[int, str], Ranks]:
    """(number of processes, method) -> what it came to. Processes are started once for all methods."""
    folders: dict[int, Path] = {}

    def ranks(processes: int, kind: str) -> Ranks:
        if processes not in folders:
            folder = tmp_path_factory.mktemp(f"{processes} processes")
            environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
            command = [sys.executable, family.__file__, "compare", str(folder), str(processes)]
            subprocess.run(command, env=environment, check=True, timeout=300)
            folders[processes] = folder
        return [torch.load(folders[processes] / f"{kind}-{rank}.pt") for rank in range(processes)]

    return ranks


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_equal_one(family, kind, processes, trained_in):
    [(one, local)] = trained_in(1, kind)
    several = trained_in(processes, kind)

    def assert_close(found: Tensor, expected: Tensor, name: str) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, msg=lambda text: f"{name}: {text}")

    assert_close(torch.stack([parts["losses"] for parts, _ in several]).mean(0), one["losses"], "losses")
    for parts, _ in several:
        for name in one.keys() - {"losses"}:
            assert_close(parts[name], one[name], name)
    for name, expected in local.items():
        assert_close(family.joined(name, [state[name] for _, state in several]), expected, name)


def test_autocast_lowers_no_loss(family, kind):
    """Under bfloat16 the loss is float32, and so is every gradient, all finite."""
    method, batch = family.make(kind, torch.float32), family.batch_of(0, dtype=torch.float32)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(batch, family.progress_of(0))
    assert {output.loss.dtype, *(metric.dtype for metric in output.metrics.values())} == {torch.float32}
    output.loss.backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_metrics_are_detached_numbers(family, kind):
    method = family.make(kind)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    output = method(family.batch_of(0), family.progress_of(0))
    assert all(metric.ndim == 0 and not metric.requires_grad for metric in output.metrics.values())
    assert torch.equal(output.metrics["loss"], output.loss.detach())


def test_small_views_do_not_move_the_backbones_running_statistics(family, kind):
    means = []
    for keeps_small in (True, False):
        method, batch = family.make(kind), family.batch_of(0)
        method.before_epoch(family.progress_of(0), family.embed_all(method))
        if not keeps_small:
            batch.views.groups, batch.views.counts = batch.views.groups[:1], batch.views.counts[:1]
        method(batch, family.progress_of(0))
        means.append(method.backbone.norm.running_mean)
    assert torch.equal(*means)


def test_bad_temperatures_name_field_and_value(family, kind):
    if kind == "finetune":
        pytest.skip("it has no temperature")
    with pytest.raises(ValueError, match=r"^temperature is 0.0: use "):
        family.make(kind, temperature=0.0)
