"""LARS against the published one, and its own promises."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tapetum.optim.lars import LARS


def _grouped(weight, bias, **settings):
    groups = [{"params": [weight]}, {"params": [bias], "adapt": False, "weight_decay": 0.0}]
    return LARS(groups, **settings)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_golden(golden, number):
    data = golden(f"lars_{number}")
    weight, bias = (nn.Parameter(torch.from_numpy(data[name])) for name in ("weight0", "bias0"))
    names = ("weight_decay", "momentum", "trust_coefficient")
    settings = {name: float(data[name]) for name in names} | {"nesterov": bool(data["nesterov"])}
    optimizer = _grouped(weight, bias, lr=0.0, **settings)
    for i, lr in enumerate(data["lr"]):
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        weight.grad = torch.from_numpy(data["weight_grads"][i])
        bias.grad = torch.from_numpy(data["bias_grads"][i])
        before = weight.grad.clone()
        optimizer.step()
        assert torch.equal(weight.grad, before)
        for ours, theirs in ((weight, data["weights"][i]), (bias, data["biases"][i])):
            error = np.abs(ours.detach().numpy() - theirs).max() / (np.abs(theirs).max() or 1.0)
            assert error <= 1e-9


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_adaptation_and_with_lr_outside_it_is_torchs_sgd(nesterov):
    start = torch.randn(4, 3, dtype=torch.float64)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    settings = {"momentum": 0.8, "weight_decay": 0.1, "nesterov": nesterov}
    pair = LARS([ours], lr=0.1, adapt=False, lr_in_buffer=False, **settings), torch.optim.SGD([theirs], 0.1, **settings)
    for lr in (0.1, 0.3, 0.02, 0.5):
        gradient = torch.randn(4, 3, dtype=torch.float64)
        for parameter, optimizer in zip((ours, theirs), pair, strict=True):
            parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_buffer_conventions_agree_while_lr_is_constant():
    start = torch.randn(4, 3, dtype=torch.float64)
    ends = []
    for lr_in_buffer in (True, False):
        generator = torch.Generator().manual_seed(0)
        weight = nn.Parameter(start.clone())
        optimizer = LARS([weight], lr=0.3, weight_decay=0.01, nesterov=True, lr_in_buffer=lr_in_buffer)
        for _ in range(4):
            weight.grad = torch.randn(4, 3, dtype=torch.float64, generator=generator)
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_step_does_not_depend_on_the_scale_of_the_gradient(scale):
    weight = torch.randn(5, 5, dtype=torch.float64)
    gradient = torch.randn(5, 5, dtype=torch.float64)
    steps = []
    for factor in (1.0, scale):
        parameter = nn.Parameter(weight.clone())
        parameter.grad = gradient * factor
        LARS([parameter], lr=1.0, eps=0.0).step()
        steps.append(parameter.detach() - weight)
    torch.testing.assert_close(*steps)
    assert torch.isclose(steps[0].norm(), 0.001 * weight.norm())


def test_zero_norms_get_plain_gradients_and_no_decay():
    zero_weight, zero_gradient = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))
    zero_weight.grad, zero_gradient.grad = torch.ones(3), torch.zeros(3)
    LARS([zero_weight, zero_gradient], lr=0.5, weight_decay=0.1).step()
    assert torch.equal(zero_weight, torch.full((3,), -0.5))
    assert torch.equal(zero_gradient, torch.ones(3))


def test_parameters_without_gradient_stay():
    weight, frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimizer = LARS([weight, frozen], lr=0.5)
    optimizer.step()
    assert torch.equal(frozen, torch.ones(3))
    assert frozen not in optimizer.state
    assert set(optimizer.state[weight]) == {"momentum_buffer"}


def test_resumed_from_its_state_dict_to_the_bit():
    def gradients(i):
        return torch.randn(4, 4, generator=torch.Generator().manual_seed(i))

    def train(weight, optimizer, steps):
        for i in steps:
            weight.grad = gradients(i)
            optimizer.step()

    whole = nn.Parameter(torch.ones(4, 4))
    optimizer = LARS([whole], lr=0.3, weight_decay=1e-3)
    train(whole, optimizer, range(3))
    resumed = nn.Parameter(whole.detach().clone())
    second = LARS([resumed], lr=9.0)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch would share the buffers
    train(whole, optimizer, range(3, 6))
    train(resumed, second, range(3, 6))
    assert torch.equal(whole, resumed)


@pytest.mark.parametrize("field", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"eps": -1.0}])
def test_errors_name_field_and_value(field):
    ((name, value),) = field.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        LARS([nn.Parameter(torch.ones(1))], **{"lr": 0.1, **field})


def test_closure_is_called_with_gradients_on():
    weight = nn.Parameter(torch.ones(2))
    optimizer = LARS([weight], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert (weight < 1).all()


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_step_never_reads_a_value_back(nesterov):
    # Tensors without values: whatever would wait for the device (item, a branch on a tensor) raises.
    with FakeTensorMode():
        weight, bias = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.zeros(3))
        optimizer = _grouped(weight, bias, lr=0.1, weight_decay=1e-6, nesterov=nesterov)
        for _ in range(2):
            weight.grad, bias.grad = torch.ones(3, 3), torch.ones(3)
            optimizer.step()
        with pytest.raises(Exception, match="_local_scalar_dense"):
            weight.sum().item()
