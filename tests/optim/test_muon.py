"""Muon beside a slow plain version, and which parameters it trains."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tapetum.engine.runtime import Runtime, RuntimeConfig
from tapetum.engine.sharding import ShardedWeights
from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, build_backbone
from tapetum.optim.muon import Muon, is_kernel, orthogonalised
from tapetum.optim.optimizers import MuonConfig, ScheduleConfig, SGDConfig, build_optimizer, set_schedules

LR = ScheduleConfig(peak=0.2, warmup_epochs=0, shape="constant")


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (8, 8)])
def test_singular_values_end_near_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix)
    values = torch.linalg.svdvals(found)
    assert 0.5 < values.min() < values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(found.flatten(), (u @ v).flatten(), dim=0) > 0.97
    torch.testing.assert_close(orthogonalised(1000 * matrix), found)


def plain_orthogonalised(x, iterations=3):
    """Newton-Schulz iterations of x itself."""
    x = x / (np.sqrt((x**2).sum()) + 1e-7)
    for _ in range(iterations):
        x = 3.4445 * x - 4.7750 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ (x @ x.T) @ x
    return x


@pytest.mark.parametrize("iterations", [1, 3, 5])
@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-4, 0.0])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 1e-3), (torch.bfloat16, 2e-2)])
def test_small_singular_values_agree_with_the_plain_version(smallest, dtype, error, iterations):
    generator = torch.Generator().manual_seed(2)
    u, _, v = torch.linalg.svd(torch.randn(32, 216, generator=generator, dtype=torch.float64), full_matrices=False)
    matrix = (u * torch.linspace(1, 0, 32, dtype=torch.float64).pow(4).clamp(min=smallest) @ v).to(dtype)
    expected = plain_orthogonalised(matrix.double().numpy(), iterations)
    found = orthogonalised(matrix, iterations)
    assert found.dtype == dtype
    assert np.linalg.norm(found.double().numpy() - expected) < error * np.linalg.norm(expected)


@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("shape", [(32, 288), (128, 288), (256, 1152)])
def test_products_in_bfloat16_come_near_the_plain_version(shape, decay):
    generator = torch.Generator().manual_seed(2)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    matrix = (u * torch.arange(1.0, len(u) + 1, dtype=torch.float64).pow(-decay) @ v).float()
    found = orthogonalised(matrix, products=torch.bfloat16)
    expected = plain_orthogonalised(matrix.double().numpy())
    assert found.dtype == torch.float32
    assert np.linalg.norm(found.double().numpy() - expected) < 0.2 * np.linalg.norm(expected)
    assert torch.linalg.svdvals(found)[0] < 1.3


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 4])
def test_few_directions_stay_finite_inside_autocast(rank, products):
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(128, rank, generator=generator) @ torch.randn(rank, 1152, generator=generator)
    outside = orthogonalised(matrix, products=products)
    with torch.autocast("cpu", torch.bfloat16):
        inside = orthogonalised(matrix, products=products)
    assert torch.equal(inside, outside)
    assert torch.linalg.svdvals(outside)[0] < 1.3


def test_a_copy_steps_as_the_original():
    weight = nn.Parameter(torch.randn(8, 5, 3, 3, generator=torch.Generator().manual_seed(0)))
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.1)
    optimizer.iterations, optimizer.products = 2, torch.bfloat16
    copied, copied_optimizer = copy.deepcopy((weight, optimizer))
    for parameter, steps in ((weight, optimizer), (copied, copied_optimizer)):
        parameter.grad = torch.ones_like(parameter).cumsum(0)
        steps.step()
    assert torch.equal(weight, copied)


@pytest.mark.parametrize(("precision", "products"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_run_in_bfloat16_orthogonalises_in_it(precision, products):
    method = nn.ModuleDict({"backbone": build_backbone(SmallNetConfig(widths=(8, 8)))})
    optimizer = build_optimizer(MuonConfig(lr=LR), method)
    assert optimizer.products == torch.float32
    Runtime(RuntimeConfig(accelerator="cpu", precision=precision)).setup(method, optimizer)
    assert optimizer.products == products


def plain_muon(weight, gradients, lr, momentum):
    """The formula of the docstring in NumPy, with one kernel as a matrix."""
    buffer = np.zeros_like(weight)
    for gradient in gradients:
        buffer = momentum * buffer + gradient
        update = plain_orthogonalised(gradient + momentum * buffer)
        weight = weight * np.sqrt(len(weight)) / np.sqrt((weight**2).sum()) - lr * update
    return weight


@pytest.mark.parametrize("is_last", [False, True])
def test_kernels_follow_the_plain_version(is_last):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(6, 5, 3, 3, generator=generator, dtype=torch.float64)
    gradients = torch.randn(4, 6, 5, 3, 3, generator=generator, dtype=torch.float64)
    weight = nn.Parameter(start.to(memory_format=torch.channels_last if is_last else torch.contiguous_format).clone())
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.1, momentum=0.6, weight_decay=0.5)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    expected = plain_muon(start.flatten(1).numpy(), [g.flatten(1).numpy() for g in gradients], 0.1, 0.6)
    np.testing.assert_allclose(weight.detach().flatten(1).numpy(), expected, rtol=1e-10)


def test_the_rest_is_sgd_to_the_bit():
    def trained(config):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        optimizer = build_optimizer(config, model)
        for step in range(5):
            set_schedules(optimizer, config, step, 5, 5)
            optimizer.zero_grad()
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
        return list(model.parameters())

    muon, sgd = trained(MuonConfig(lr=LR, weight_decay=0.1)), trained(SGDConfig(lr=LR, weight_decay=0.1))
    assert all(torch.equal(a, b) for a, b in zip(muon, sgd, strict=True))


@pytest.mark.parametrize("backbone", [SmallNetConfig(), ResNetConfig(depth=18)], ids=lambda config: config.kind)
def test_all_kernels_but_the_first_layers_are_muons(backbone):
    model = nn.ModuleDict({"backbone": build_backbone(backbone), "head": nn.Linear(2, 2)})
    config = MuonConfig(lr=LR, kernel_lr=0.04, backbone_lr=0.5)
    optimizer = build_optimizer(config, model)
    set_schedules(optimizer, config, 0, 10, 10)
    muons = {n: group for group in optimizer.param_groups if group["orthogonal"] for n in group["param_names"]}
    first = next(name for name, p in model.named_parameters() if p.ndim == 4)
    assert set(muons) == {name for name, p in model.named_parameters() if p.ndim == 4} - {first}
    assert {(round(g["lr"], 9), g["momentum"], g["weight_decay"]) for g in muons.values()} == {(0.02, 0.6, 0.0)}
    others = [group["lr"] for group in optimizer.param_groups if not group["orthogonal"]]
    assert sorted(others) == pytest.approx([0.1, 0.1, 0.2, 0.2])
    every = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(every) == sorted(name for name, _ in model.named_parameters())


def test_kernels_over_one_channel_are_not_muons():
    assert not is_kernel(nn.Conv2d(8, 8, 3, groups=8).weight)
    assert not is_kernel(nn.Linear(8, 8).weight)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kernel_lr": -1.0}, "kernel_lr is -1.0: use 0 or more"),
        ({"kernel_momentum": 1.0}, "kernel_momentum is 1.0: use 0 or more and less than 1"),
        ({"lr": ScheduleConfig(peak=0.0)}, "lr.peak is 0.0"),
    ],
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        MuonConfig(**{"lr": LR, **words})
    with pytest.raises(ValueError, match="momentum is 1"):
        Muon([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=1)


def test_muon_needs_whole_kernels():
    model = nn.ModuleDict({"backbone": nn.Conv2d(8, 8, 3)})
    optimizer = build_optimizer(MuonConfig(lr=ScheduleConfig(peak=0.1)), model)
    with pytest.raises(ValueError, match=r"runtime.strategy is fsdp, .* optimizer.kind muon needs whole: use ddp"):
        ShardedWeights(model, optimizer, torch.device("cpu"))
