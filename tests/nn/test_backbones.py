"""The door to backbones: sizes, counts, channels, errors."""

import builtins
import importlib.util

import pytest
import torch

from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, TimmConfig, WideResNetConfig, build_backbone


def needing_timm(*words):
    is_missing = importlib.util.find_spec("timm") is None
    return pytest.param(*words, marks=pytest.mark.skipif(is_missing, reason="timm is not installed"))


SMALL = [
    WideResNetConfig(depth=10, width=1),
    ResNetConfig(depth=20),
    ResNetConfig(depth=18, stem="small"),
    SmallNetConfig(stem=8, widths=(8, 16, 24)),
    SmallNetConfig(widths=(12,), activation="relu"),
    needing_timm(TimmConfig(name="resnet10t")),
    needing_timm(TimmConfig(name="mobilenetv3_small_050")),
    needing_timm(TimmConfig(name="test_vit", options={"img_size": 32, "patch_size": 4, "dynamic_img_size": True})),
]


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (WideResNetConfig(), 1_468_352),
        (ResNetConfig(depth=50), 23_508_032),
        (ResNetConfig(depth=50, width=2), 93_907_072),
        (ResNetConfig(depth=50, width=4), 375_378_176),
        (ResNetConfig(depth=101), 42_500_160),
        (ResNetConfig(depth=152), 58_143_808),
        (ResNetConfig(depth=200), 62_624_832),
        # torchvision's published counts less the classifier of 1000 classes
        (ResNetConfig(depth=18), 11_689_512 - 513_000),
        (ResNetConfig(depth=34), 21_797_672 - 513_000),
    ],
)
def test_parameter_counts(config, count):
    with torch.device("meta"):
        backbone = build_backbone(config)
    assert sum(p.numel() for p in backbone.parameters()) == count


@pytest.mark.parametrize("config", SMALL, ids=str)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_num_features_is_what_forward_returns(config, in_channels):
    backbone = build_backbone(config, in_channels)
    for size in (32, 20):
        out = backbone(torch.randn(2, in_channels, size, size))
        assert out.shape == (2, backbone.num_features)
    out.sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize("size", [8, 9, 11, 12, 15, 18, 31, 33, 40])
def test_small_net_takes_every_size_from_8(size):
    backbone = build_backbone(SmallNetConfig(stem=4, widths=(4, 8, 8, 8)))
    out = backbone(torch.randn(3, 3, size, size + 1))
    assert out.shape == (3, 8)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_matches_torchvision(depth):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    ours = build_backbone(ResNetConfig(depth=depth))
    theirs = getattr(torchvision.models, f"resnet{depth}")()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    x = torch.randn(2, 3, 64, 48)
    for network in (ours, theirs):
        network(x).square().mean().backward()
    assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("config", SMALL[:5], ids=str)
def test_same_seed_same_weights(config):
    def weights():
        torch.manual_seed(3)
        return torch.cat([p.flatten() for p in build_backbone(config).parameters()])

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WideResNetConfig(depth=27), ["depth", "27", "28"]),
        (lambda: WideResNetConfig(width=0), ["width", "0"]),
        (lambda: WideResNetConfig(dropout=1.0), ["dropout", "1.0"]),
        (lambda: WideResNetConfig(final_momentum=0.0), ["final_momentum"]),
        (lambda: WideResNetConfig(variant="torch"), ["variant", "torch", "keras"]),
        (lambda: ResNetConfig(depth=51), ["depth", "51", "50"]),
        (lambda: ResNetConfig(width=0), ["width"]),
        (lambda: ResNetConfig(stem="big"), ["stem", "big", "small"]),
        (lambda: SmallNetConfig(widths=()), ["widths"]),
        (lambda: SmallNetConfig(widths=(64, 0)), ["widths"]),
        (lambda: SmallNetConfig(stem=0), ["stem"]),
        (lambda: SmallNetConfig(activation="tanh"), ["activation", "tanh", "gelu"]),
        (lambda: TimmConfig(name=""), ["name"]),
        (lambda: TimmConfig(name="resnet18", options={"in_chans": 1}), ["options", "in_chans"]),
        (
            lambda: TimmConfig(name="resnet18", options={"checkpoint_path": "a.pth"}),
            ["checkpoint_path", "may run", "init"],
        ),
        (lambda: build_backbone(WideResNetConfig(), in_channels=0), ["in_channels", "0"]),
        needing_timm(lambda: build_backbone(TimmConfig(name="resnet_18")), ["resnet_18", "resnet18"]),
        needing_timm(lambda: build_backbone(TimmConfig(name="resnet10t", options={"wings": 2})), ["options", "wings"]),
    ],
)
def test_errors_name_field_value_and_fix(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words)


def test_missing_timm_is_named_with_its_extra(monkeypatch):
    real_import = builtins.__import__

    def without_timm(name, *args, **kwargs):
        if name == "timm":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(ValueError, match=r"pip install 'tapetum\[timm\]'"):
        build_backbone(TimmConfig(name="resnet18"))
