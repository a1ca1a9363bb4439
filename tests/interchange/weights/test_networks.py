"""Networks are recognised by the names and shapes of their tensors, and others are refused."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torchvision

from tapetum.interchange.weights.initial_weights import load_initial_weights
from tapetum.interchange.weights.networks import network_of
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.methods.frozen import Frozen, FrozenConfig
from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, TimmConfig, WideResNetConfig, build_backbone

EXPORTS = json.loads((Path(__file__).parents[2] / "fixtures" / "lightly_train.json").read_text())["exports"]
DINO = {"dynamic_img_size": True}
TINY = TimmConfig(
    name="vit_tiny_patch16_224", options={"dynamic_img_size": True, "patch_size": 4, "img_size": 16, "depth": 1}
)
CONFIGS = [
    ResNetConfig(depth=18, stem="imagenet"),
    ResNetConfig(depth=18, stem="small"),
    ResNetConfig(depth=20, stem="small"),
    ResNetConfig(depth=20, width=2, stem="imagenet"),
    ResNetConfig(depth=34, stem="imagenet"),
    ResNetConfig(depth=50, width=2, stem="imagenet"),
    ResNetConfig(depth=50, width=4, stem="small"),
    ResNetConfig(depth=50, width=5, stem="imagenet"),
    ResNetConfig(depth=101, stem="imagenet"),
    ResNetConfig(depth=152, stem="imagenet"),
    ResNetConfig(depth=200, width=2, stem="imagenet"),
    WideResNetConfig(depth=10, width=1),
    WideResNetConfig(depth=28, width=2),
    WideResNetConfig(depth=28, width=2, variant="keras"),
    SmallNetConfig(),
    SmallNetConfig(stem=3, widths=(5,)),
]
TRANSFORMERS = [
    TimmConfig(name="vit_small_patch16_224", options=DINO),
    TimmConfig(name="vit_small_patch8_224", options=DINO),
    TimmConfig(name="vit_base_patch16_224", options=DINO),
    TimmConfig(name="vit_base_patch8_224", options=DINO),
    TimmConfig(name="vit_small_patch14_dinov2", options=DINO),
    TimmConfig(name="vit_small_patch16_224", options=DINO | {"img_size": 384}),
    TINY,
]


def shapes(build):
    """Tensors without memory."""
    with torch.device("meta"):
        return build().state_dict()


def below(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("config", [*CONFIGS, *TRANSFORMERS], ids=lambda c: f"{c.kind}-{getattr(c, 'name', '')}")
def test_each_network_is_recognised(config):
    if config in TRANSFORMERS:
        pytest.importorskip("timm", reason="timm has the vision transformers")
    for prefix, channels in (("", 3), ("teacher.module.backbone.", 1)):
        state = below(prefix, shapes(lambda channels=channels: build_backbone(config, channels)))
        beside = {"optimizer.state.0.exp_avg": torch.ones(2), f"{prefix}head.weight": torch.ones(2)}
        assert network_of(beside | state) == (config, channels)


def resnet18():
    return shapes(lambda: build_backbone(ResNetConfig(depth=18)))


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


OTHERS = {
    "another inside": lambda: shapes(lambda: torchvision.models.resnext50_32x4d()),
    "another name": lambda: shapes(lambda: torchvision.models.vgg11_bn()),
    "more in a block": lambda: resnet18() | {"layer1.0.se.fc1.weight": torch.ones(1)},
    "a block less": lambda: without(resnet18(), "layer4.1.conv1.weight"),
    "a bias less": lambda: without(resnet18(), "layer4.1.bn2.bias"),
    "another shape": lambda: resnet18() | {"layer4.1.conv2.weight": torch.ones(1)},
    "no depth": lambda: {name: t for name, t in resnet18().items() if not name.startswith("layer4")},
    "nothing": dict,
    "a wide ResNet with symmetric padding": lambda: {
        name: tensor
        for name, tensor in shapes(lambda: build_backbone(WideResNetConfig(depth=10))).items()
        if not name.endswith(("conv1.bias", "conv2.bias", "shortcut.0.bias"))
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_refused(name):
    state = OTHERS[name]()
    shown = ", ".join(list(state)[:3]) or "nothing"
    with pytest.raises(ValueError, match=r"^no network that is recognised has these tensors") as error:
        network_of(state)
    assert f"({shown}, ...): known are ResNet" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", ["dist_token", "pos_embed", "norm.weight"])
def test_other_transformers_are_refused(change):
    pytest.importorskip("timm", reason="timm has the vision transformers")
    state = shapes(lambda: build_backbone(TINY))
    if change == "norm.weight":
        del state[change]
    else:  # 18 places are no square and a class token
        state["pos_embed"] = torch.ones(1, 19, 192)
    with pytest.raises(ValueError, match="no network that is recognised"):
        network_of(state)


def dino(folder, config):
    """A checkpoint as DINO's training writes it, and the teacher's backbone in it."""
    student, teacher = (build_backbone(config).state_dict() for _ in range(2))
    head = {"head.mlp.0.weight": torch.ones(2), "head.last_layer.weight_g": torch.ones(2)}
    content = {
        "student": below("module.", below("backbone.", student) | head),
        "teacher": below("backbone.", teacher) | head,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "args": Namespace(arch="vit_small", lr=0.1),
        "dino_loss": {"center": torch.ones(1, 2)},
    }
    torch.save(content, folder / "dino.pth")
    return folder / "dino.pth", teacher


def frozen(config):
    return Frozen(FrozenConfig(), build_backbone(config), num_classes=2, num_images=2)


def test_a_checkpoint_of_dino_gives_its_teacher(tmp_path):
    pytest.importorskip("timm", reason="timm has the vision transformers")
    path, teacher = dino(tmp_path, TINY)
    assert network_of(read_weights(path)) == (TINY, 3)
    method = frozen(TINY)
    taken = load_initial_weights(method, path)
    assert taken.layout == "DINO"
    assert all(torch.equal(tensor, teacher[name]) for name, tensor in method.backbone.state_dict().items())
    assert len(taken.used) == len(teacher)
    reasons = {name: why for name, why in taken.unused.items() if not name.startswith("student.")}
    assert reasons == {
        "teacher.head.mlp.0.weight": "DINO's own head",
        "teacher.head.last_layer.weight_g": "DINO's own head",
        "optimizer.state.0.exp_avg": "training state",
        "dino_loss.center": "training state",
    }
    assert set(taken.unused.values()) == {"DINO's own head", "training state"}


def test_a_classifier_of_timm_is_left_out(tmp_path):
    timm = pytest.importorskip("timm", reason="timm writes this file")
    model = timm.create_model(TINY.name, num_classes=5, **TINY.options).eval()
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    assert network_of(read_weights(tmp_path / "timm.pth")) == (TINY, 3)
    method = frozen(TINY).eval()
    taken = load_initial_weights(method, tmp_path / "timm.pth")
    classifier = dict.fromkeys(["head.weight", "head.bias"], "the classifier of the classes it was trained on")
    assert (taken.layout, taken.unused, taken.new) == ("timm, vision transformer", classifier, ())
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(method.backbone(images), model.forward_head(model.forward_features(images), pre_logits=True))


RECOGNISED = {
    "torchvision/resnet18": ResNetConfig(depth=18, stem="imagenet"),
    "timm/vit_tiny_patch16_224": TimmConfig(name="vit_tiny_patch16_224", options=DINO),
}


@pytest.mark.parametrize("model", EXPORTS)
@pytest.mark.parametrize("part", ["model", "embedding_model"])
def test_exports_of_lightly_train(model, part):
    if "torchvision" not in model:
        pytest.importorskip("timm", reason="timm has the vision transformers")
    state = {name: torch.empty(shape, device="meta") for name, shape in EXPORTS[model][part].items()}
    if model in RECOGNISED:
        assert network_of(state) == (RECOGNISED[model], 3)
    else:
        with pytest.raises(ValueError, match="no network that is recognised"):
            network_of(state)


@pytest.mark.parametrize("part", ["model", "embedding_model"])
def test_an_export_of_lightly_train_is_accounted_for(tmp_path, part):
    """Its own names, above a smaller network."""
    names = EXPORTS["torchvision/resnet18"][part]
    prefix = next(iter(names)).removesuffix("conv1.weight")
    beside = {name: torch.ones(2) for name in names if name.startswith(("fc.", "embed_head."))}
    network = build_backbone(ResNetConfig(depth=20)).state_dict()
    torch.save(below(prefix, network) | beside, tmp_path / "export.pt")
    method = frozen(ResNetConfig(depth=20))
    taken = load_initial_weights(method, tmp_path / "export.pt")
    title, why = {
        "model": ("torchvision, timm", "the classifier of the classes it was trained on"),
        "embedding_model": ("lightly-train, embedding model", "lightly-train's own embedding"),
    }[part]
    assert (taken.layout, taken.unused, taken.new) == (title, dict.fromkeys(beside, why), ())
    assert all(torch.equal(tensor, network[name]) for name, tensor in method.backbone.state_dict().items())


def test_a_checkpoint_of_lightly_train_holds_code_and_is_not_opened(tmp_path):
    content = {"state_dict": {}, "lightly_train": {"models": {"model": torch.nn.Linear(1, 1)}}}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt holds more than tensors, or is damaged, .*: save a state dict"):
        read_weights(tmp_path / "last.ckpt")
