"""Nothing in a step makes the host wait for a GPU, shown on a machine without one (see helpers/host_waits.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from host_waits import host_waits, method_to_meta, to_meta
from torch import Tensor, nn
from torch.optim import Optimizer

from tapetum.engine.trainer import Trainer, TrainerConfig
from tapetum.methods.base import Method
from tapetum.nn.batch_norm import convert_batch_norm
from tapetum.optim.optimizers import (
    AdamWConfig,
    LARSConfig,
    MuonConfig,
    OptimizerConfig,
    ScheduleConfig,
    SGDConfig,
    build_optimizer,
    set_schedules,
)

pytestmark = pytest.mark.usefixtures("one_thread")

LR = ScheduleConfig(peak=0.1)
LARS = LARSConfig(lr=LR)
STEPS = (0, 4, 5, 6)
"""A first epoch's; then a queue starts, is full, and takes part."""


@pytest.fixture(scope="module")
def exchange() -> Iterator[ModuleType]:
    """benchmarks/exchange.py."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    import exchange

    yield exchange
    sys.path.remove(folder)


class OnMeta:
    """What the trainer asks of a runtime, for tensors without values."""

    device = torch.device("meta")
    rank = 0

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size

    def setup(self, method: Method, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        return method, optimizer

    def seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    def place(self, batch: Any) -> Any:
        return batch

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def without_reduction(self, module: nn.Module, enabled: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()


def waits(family, exchange, kind: str, config: OptimizerConfig, world_size: int = 1, **settings: Any) -> set[str]:
    """What waits in the steps of a method, from the batch to the optimiser step and the metrics."""
    method = family.make(kind, torch.float32, **settings)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    method.before_epoch = lambda progress, embed_all: None  # once an epoch it may wait
    if world_size > 1:
        convert_batch_norm(method)
    method_to_meta(method)
    optimizer = build_optimizer(config, method)
    trainer = Trainer(
        method,
        optimizer,
        lambda step: set_schedules(optimizer, config, step, family.STEPS_PER_EPOCH, 100),
        lambda start, stop: iter(()),
        steps_per_epoch=family.STEPS_PER_EPOCH,
        total_steps=100,
        config=TrainerConfig(steps=100),
        runtime=OnMeta(world_size),
    )
    trainer._began = 0.0
    batches = {step: to_meta(family.batch_of(step, 0, world_size, torch.float32)) for step in STEPS}
    with exchange.pretended(world_size), host_waits() as found:
        for trainer.state.step, batch in batches.items():
            trainer._train_step(iter([batch]))
    return found


def test_no_step_waits_for_the_device(family, exchange, kind):
    """In one of two processes, whose step holds all that a single one's does, and the collectives."""
    assert waits(family, exchange, kind, LARS, world_size=2) == set()


@pytest.mark.parametrize("alone", ["paws", "swav"])
def test_no_step_of_a_single_process_waits(family, exchange, alone):
    assert waits(family, exchange, alone, LARS) == set()


@pytest.mark.parametrize(
    "config",
    [SGDConfig(lr=LR, weight_decay=0.1), AdamWConfig(lr=LR), MuonConfig(lr=LR)],
    ids=lambda config: config.kind,
)
def test_no_other_optimiser_waits(family, exchange, config):
    """By `foreach`: torch cannot run fused kernels without values."""
    assert waits(family, exchange, "supervised", config) == set()


def test_a_class_prior_waits_on_the_device(family, exchange):
    assert waits(family, exchange, "paws", LARS, class_prior=(0.5, 0.25, 0.25)) == set()


def test_what_waits_is_found():
    """Each way of waiting that a step could contain."""
    rows, host = torch.ones(3, 2, device="meta"), torch.arange(2)
    for waiting in (
        lambda: rows[[0, 1]],
        lambda: rows[host],
        lambda: rows.index_put_((host,), rows[0]),
        lambda: host.to("meta"),
        lambda: rows.copy_(torch.ones(3, 2)),
        lambda: torch.tensor([1.0, 2.0], device="meta"),
        lambda: torch.linalg.solve(rows[:2], rows[:2]),
    ):
        with host_waits() as found:
            waiting()
        assert len(found) == 1, found
    for reading in (lambda: rows.sum().item(), lambda: bool(rows.sum() > 0), rows.tolist, lambda: rows[rows > 0]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            reading()
    with host_waits() as found:
        host.to("meta", non_blocking=True)
        rows.copy_(torch.ones(3, 2), non_blocking=True)
        _ = rows[torch.arange(2, device="meta")], host[[0, 1]], torch.tensor([1.0])
    assert not found
