"""BatchNorm's conversion, and frozen running statistics."""

import copy

import pytest
import torch
from torch import nn

from tapetum.nn.backbones import TimmConfig, WideResNetConfig, build_backbone
from tapetum.nn.batch_norm import BatchNorm, _NormaliseOverRanks, convert_batch_norm, running_statistics_frozen


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(16, 5),
        nn.BatchNorm1d(5, momentum=None),
        nn.BatchNorm1d(5, affine=False, track_running_stats=False),
        nn.Linear(5, 2),
    ]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alone_it_is_torchs_layer_to_the_bit(dtype):
    layer = nn.BatchNorm2d(6)
    ours = convert_batch_norm(copy.deepcopy(layer))
    assert isinstance(ours, BatchNorm)
    x = torch.randn(5, 6, 4, 4).to(dtype).to(memory_format=torch.channels_last)
    for _ in range(2):
        assert torch.equal(layer(x), ours(x))
    for name, buffer in layer.state_dict().items():
        assert torch.equal(buffer, ours.state_dict()[name])
    assert torch.equal(layer.eval()(x), ours.eval()(x))


def test_conversion_keeps_names_tensors_and_optimizers():
    network = build_backbone(WideResNetConfig(depth=10, width=1, final_momentum=0.99))
    before = network.state_dict(keep_vars=True)
    parameters = list(network.parameters())
    assert convert_batch_norm(network) is network
    after = network.state_dict(keep_vars=True)
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))
    kinds = {type(m) for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {BatchNorm}
    assert network.bn1.momentum == 0.99
    assert convert_batch_norm(network.bn1) is network.bn1


def test_timms_layers_keep_their_activation():
    pytest.importorskip("timm")
    network = build_backbone(TimmConfig(name="mobilenetv3_small_050")).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = network(x)
    assert torch.equal(convert_batch_norm(network)(x), expected)


def test_unknown_subclass_is_refused():
    class Loud(nn.BatchNorm1d):
        def forward(self, input):
            return 2 * super().forward(input)

    with pytest.raises(ValueError, match="Loud"):
        convert_batch_norm(nn.Sequential(Loud(3)))


def _same_state(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_frozen_running_statistics():
    network = _network().train()
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    before = copy.deepcopy(network.state_dict())
    settings = [getattr(m, "track_running_stats", None) for m in network]
    with running_statistics_frozen(network):
        frozen = network(x)
        with running_statistics_frozen(network[1]):
            network(x)
        network(x)
    assert _same_state(before, network.state_dict())
    with pytest.raises(RuntimeError, match="stop"), running_statistics_frozen(network):
        raise RuntimeError("stop")
    assert [getattr(m, "track_running_stats", None) for m in network] == settings
    assert torch.equal(network(x), frozen)  # the same batch statistics ...
    assert not _same_state(before, network.state_dict())  # ... but now the running ones move


def test_freezing_leaves_evaluation_alone():
    network = _network()
    network(torch.randn(8, 3, 4, 4, dtype=torch.float64))
    network.eval()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = network(x)
    with running_statistics_frozen(network):
        assert torch.equal(network(x), expected)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 2, 3)])
def test_gradients_of_the_normalisation(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *a: _NormaliseOverRanks.apply(*a, 1e-5)[0], (x, weight, bias))
    assert torch.autograd.gradcheck(lambda a: _NormaliseOverRanks.apply(a, None, None, 1e-5)[0], (x,))


def test_half_precision_keeps_dtype_layout_and_exact_statistics():
    x = (50 + torch.randn(16, 8, 6, 6)).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.ones(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    out, _, mean, variance = _NormaliseOverRanks.apply(x, weight, bias, 1e-5)
    (out.float() ** 3).sum().backward()
    for tensor in (out, x.grad):
        assert tensor.dtype == torch.bfloat16
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert mean.dtype == weight.grad.dtype == torch.float32
    exact = x.detach().double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, exact.mean(1).float())
    torch.testing.assert_close(variance, exact.var(1, correction=0).float())
