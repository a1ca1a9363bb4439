"""Fused optimisers take the steps of those that they replace, and only GPUs get them."""

import copy

import pytest
import torch
from torch import nn

from tapetum.engine import runtime as runtime_module
from tapetum.engine.runtime import Runtime, RuntimeConfig
from tapetum.optim.optimizers import AdamWConfig, LARSConfig, ScheduleConfig, SGDConfig, build_optimizer, fuse

LR = ScheduleConfig(peak=0.1)
FUSED = [SGDConfig(lr=LR, weight_decay=0.1), AdamWConfig(lr=LR)]


def _train(model, optimizer, steps):
    for step in steps:
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(10 * step + number)
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.step()


@pytest.mark.parametrize("config", FUSED, ids=["sgd", "adamw"])
def test_a_fused_step_is_the_same_step(config):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2)).double()
    model.to(memory_format=torch.channels_last)
    other = copy.deepcopy(model)
    plain, fused = build_optimizer(config, model), build_optimizer(config, other)
    fuse(fused)
    _train(model, plain, range(4))
    _train(other, fused, range(4))
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    keys = {key for state in fused.state.values() for key in state}
    assert keys == {key for state in plain.state.values() for key in state}


def test_lars_has_no_fused_form():
    optimizer = build_optimizer(LARSConfig(lr=LR), nn.Linear(2, 2))
    before = [set(group) for group in optimizer.param_groups]
    fuse(optimizer)
    assert [set(group) for group in optimizer.param_groups] == before


@pytest.mark.parametrize(("device", "fused"), [("cpu", False), ("cuda", True)])
def test_only_gpus_get_it(monkeypatch, device, fused):
    """On a CPU it would move the last bits."""
    asked = []
    monkeypatch.setattr(runtime_module, "fuse", asked.append)
    on = Runtime(RuntimeConfig(accelerator="cpu", threads=1, precision="float32"))
    on.device = torch.device(device)
    model = nn.Linear(2, 2)
    monkeypatch.setattr(model, "to", lambda *place, **layout: model)  # there may be no such device
    optimizer = build_optimizer(FUSED[0], model)
    on.setup(model, optimizer)
    assert asked == ([optimizer] if fused else [])
