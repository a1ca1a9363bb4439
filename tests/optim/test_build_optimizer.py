"""Parameter groups, the builder, and what schedules write."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tapetum.nn.backbones import ResNetConfig, build_backbone
from tapetum.optim.optimizers import (
    LARS,
    AdamWConfig,
    LARSConfig,
    MuonConfig,
    ScheduleConfig,
    SGDConfig,
    build_optimizer,
    group_parameters,
    set_schedules,
)

LR = ScheduleConfig(start=0.1, peak=1.0, final=0.01, warmup_epochs=1)
CONFIGS = [
    LARSConfig(lr=LR),
    SGDConfig(lr=LR, weight_decay=0.1),
    AdamWConfig(lr=LR),
    MuonConfig(lr=LR, weight_decay=0.1),
]


class Mixed(nn.Module):
    """Layers whose names mislead."""

    def __init__(self):
        super().__init__()
        self.subnet = nn.Linear(3, 3)
        self.scale = nn.LayerNorm([2, 3])
        self.unbiased = nn.Conv2d(1, 1, 1, bias=False)
        self.group = nn.GroupNorm(1, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, 3))
        self.gamma = nn.Parameter(torch.ones(3))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.shared = self.subnet


def test_groups_by_type_sorted_by_name():
    groups = group_parameters(Mixed())
    names = [[name for name, _ in group["params"]] for group in groups]
    assert names == [
        ["subnet.weight", "token", "unbiased.weight"],
        ["gamma", "group.bias", "group.weight", "scale.bias", "scale.weight", "subnet.bias"],
    ]
    assert [group["decayed"] for group in groups] == [True, False]
    (everything,) = group_parameters(Mixed(), exclude=False)
    assert [name for name, _ in everything["params"]] == sorted(names[0] + names[1])


def test_downsampling_batch_norm_is_excluded():
    decayed, excluded = group_parameters(build_backbone(ResNetConfig(depth=18)))
    assert "layer2.0.downsample.1.weight" in dict(excluded["params"])
    assert all(p.ndim == 4 for _, p in decayed["params"])


@pytest.mark.parametrize("config", CONFIGS)
def test_the_backbone_may_learn_more_slowly(config):
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    optimizer = build_optimizer(replace(config, backbone_lr=0.1), model)
    set_schedules(optimizer, config, 10, 10, 20)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rates["head.weight"] == rates["head.bias"] == pytest.approx(1.0)
    assert rates["backbone.weight"] == rates["backbone.bias"] == pytest.approx(0.1)
    assert len(optimizer.param_groups) == 4
    assert len(build_optimizer(config, model).param_groups) == 2


def test_nothing_to_train():
    with pytest.raises(ValueError, match="no trainable parameter"):
        group_parameters(nn.Linear(1, 1).requires_grad_(False))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_schedules_write_every_group(config):
    optimizer = build_optimizer(config, Mixed())
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    assert set_schedules(optimizer, config, 5, 10, 100) == (pytest.approx(0.55), config.weight_decay)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.55)] * 2
    assert [group["weight_decay"] for group in optimizer.param_groups] == [config.weight_decay, 0.0]


def test_weight_decay_schedule():
    rise = ScheduleConfig(peak=0.04, final=0.4, shape="linear")
    config = AdamWConfig(lr=LR, weight_decay_schedule=rise)
    optimizer = build_optimizer(config, Mixed())
    set_schedules(optimizer, config, 50, 10, 100)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(0.22), 0.0]


def test_lars_adapts_only_the_decayed():
    optimizer = build_optimizer(LARSConfig(lr=LR, nesterov=True), Mixed())
    assert isinstance(optimizer, LARS)
    assert [(group["adapt"], group["nesterov"]) for group in optimizer.param_groups] == [(True, True), (False, True)]
    (group,) = build_optimizer(LARSConfig(lr=LR, exclude=False), Mixed()).param_groups
    assert group["adapt"]
    assert group["weight_decay"] == 1e-6


def _train(model, optimizer, config, steps):
    for step in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        set_schedules(optimizer, config, step, 3, 8)
        model(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_resumed_run_equals_the_uninterrupted_one(config):
    def fresh():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
        return model, build_optimizer(config, model)

    model, optimizer = fresh()
    _train(model, optimizer, config, range(8))
    first, first_optimizer = fresh()
    _train(first, first_optimizer, config, range(4))
    second, second_optimizer = fresh()
    second.load_state_dict(first.state_dict())
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    _train(second, second_optimizer, config, range(4, 8))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LARSConfig(lr=LR, momentum=1.0), ["momentum", "1.0"]),
        (lambda: LARSConfig(lr=LR, trust_coefficient=-1.0), ["trust_coefficient"]),
        (lambda: SGDConfig(lr=LR, momentum=0.0), ["nesterov", "momentum"]),
        (lambda: SGDConfig(lr=LR, weight_decay=-1.0), ["weight_decay", "-1.0"]),
        (lambda: AdamWConfig(lr=LR, betas=(0.9, 1.0)), ["betas", "1.0"]),
    ],
)
def test_errors_name_field_value_and_fix(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words)
