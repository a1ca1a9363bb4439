"""Files in published layouts: recognised, accounted for tensor by tensor, and right to the golden outputs."""

import json

import numpy as np
import pytest
import torch

import golden
from tapetum.interchange.weights.initial_weights import load_initial_weights
from tapetum.methods.registry import method_class
from tapetum.nn.backbones import ResNetConfig, WideResNetConfig, build_backbone
from tapetum.nn.heads import HeadConfig, unit_length

RESNET50 = ResNetConfig(depth=50)
SWAV_HEAD = HeadConfig(hidden=2048, output=128, layers=2)
PUBLISHED = {
    "paws_wide_resnet28w2": ("paws", WideResNetConfig(), {"head": HeadConfig(output=128)}, "PAWS, SimCLR+CT"),
    "paws_resnet50": ("paws", RESNET50, {"head": HeadConfig(output=2048, predictor=True)}, "PAWS, SimCLR+CT"),
    "swav_resnet50": ("swav", RESNET50, {"num_prototypes": (300,), "head": SWAV_HEAD}, "SwAV"),
    "deepcluster_resnet50": (
        *("deepcluster", RESNET50, {"num_prototypes": (30, 30, 30), "head": SWAV_HEAD}),
        "DeepCluster-v2, SeLa-v2, SwAV with several sets of prototypes",
    ),
}


def method_of(kind, backbone, settings):
    found = method_class(kind)
    return found(found.Config(**settings), build_backbone(backbone), num_classes=3, num_images=4)


def published(name):
    """A state dict under published names, with the weights of the golden outputs."""
    shapes = json.loads(golden.golden_file("state_dict_shapes.json").read_text())[name]
    counter = "num_batches_tracked"
    state = {
        key: torch.zeros(shape, dtype=torch.int64 if key.endswith(counter) else torch.float64)
        for key, shape in shapes.items()
    }
    golden.fill(state)
    return state


def written(name, path):
    """A file as the published training writes it, with the state of its optimizer."""
    state = {f"module.{key}": tensor for key, tensor in published(name).items()}
    momentum = {"state": {0: {"momentum_buffer": torch.ones(2)}}}
    content = {"encoder": state, "opt": momentum, "epoch": 3} if "paws" in name else state
    torch.save(content, path)
    return path


def outputs(method, images):
    """As the golden files list them: heads once per size for PAWS, once for all sizes otherwise."""
    features = [method.backbone(image) for image in images]
    if hasattr(method, "predictor"):
        h = [method.projector(each) for each in features]
        z = h if method.predictor is None else [method.predictor(each) for each in h]
        return [torch.cat(h), torch.cat(z)]
    projections = unit_length(method.projector(torch.cat(features)))
    return [projections, *method.prototypes(projections)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_golden_outputs_after_loading_a_published_file(name, tmp_path):
    expected = np.load(golden.golden_file(f"model_{name}.npz"))
    kind, backbone, settings, title = PUBLISHED[name]
    method = method_of(kind, backbone, settings).double().eval()
    taken = load_initial_weights(method, written(name, tmp_path / "published.pth.tar"))
    assert taken.layout == title
    assert taken.new == ()
    assert set(taken.unused.values()) == ({"training state"} if kind == "paws" else set())
    images = [golden.images(j, int(expected["batch"]), int(size)) for j, size in enumerate(expected["input_sizes"])]
    calls = [torch.cat([x for x in images if x.shape[-1] == s]) for s in dict.fromkeys(x.shape[-1] for x in images)]
    with torch.no_grad():
        for j, output in enumerate(outputs(method, calls)):
            wanted = expected[f"eval_out{j}"]
            assert np.abs(output.numpy() - wanted).max() <= 1e-9 * np.abs(wanted).max()


def small(name):
    """Every tensor of a published layout below a small backbone."""
    backbone = {f"{k}": v for k, v in build_backbone(WideResNetConfig(depth=10, width=1)).state_dict().items()}
    heads = {key: tensor for key, tensor in published(name).items() if key.startswith(("fc", "pred", "proj", "proto"))}
    return backbone | heads


def paws(**settings):
    return method_of("paws", WideResNetConfig(depth=10, width=1), settings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor_is_used_or_named_with_a_reason(name, tmp_path):
    torch.save(small(name), tmp_path / "a.pth")
    method = paws(head=HeadConfig(hidden=8, output=8, layers=2))
    taken = load_initial_weights(method, tmp_path / "a.pth")
    assert sorted([*taken.used.values(), *taken.unused]) == sorted(small(name))
    own = {key for key in method.state_dict() if not key.endswith("num_batches_tracked")}
    assert own <= {*taken.used, *taken.new}
    reasons = set(taken.unused.values())
    if name == "paws_resnet50":
        assert "of a predictor, which this method lacks" in reasons
    if name.startswith(("swav", "deepcluster")):
        assert "of a prototypes, which this method lacks" not in reasons
        assert "of prototypes, which this method lacks" in reasons
    assert any(reason.startswith("of another shape") for reason in reasons)


@pytest.mark.parametrize(
    ("heads", "title", "reason"),
    [
        (("fc.weight", "fc.bias"), "torchvision, timm", "the classifier of the classes it was trained on"),
        (("fc.fc1.weight", "fc.fc2.weight"), "PAWS, fine-tuned", "the classifier of the classes it was fine-tuned on"),
        (("projection_head.weight",), "SwAV, fine-tuned", "the classifier of the classes it was fine-tuned on"),
        (("odd.weight",), "a backbone", "of no part of this network"),
    ],
)
def test_classifiers_of_other_classes_are_left_out(heads, title, reason, tmp_path):
    backbone = build_backbone(WideResNetConfig(depth=10, width=1)).state_dict()
    torch.save(backbone | {name: torch.ones(3) for name in heads}, tmp_path / "a.pth")
    taken = load_initial_weights(paws(), tmp_path / "a.pth")
    assert (taken.layout, taken.unused) == (title, dict.fromkeys(heads, reason))
    assert f"Not used are {len(heads)} of the file: {len(heads)} are {reason}" in taken.describe()


def test_dino_starts_from_its_teacher(tmp_path):
    student, teacher = (build_backbone(WideResNetConfig(depth=10, width=1)).state_dict() for _ in range(2))
    content = {
        part: {f"module.backbone.{k}": v for k, v in state.items()} | {"module.head.mlp.0.weight": torch.ones(2)}
        for part, state in (("student", student), ("teacher", teacher))
    }
    torch.save(content, tmp_path / "dino.pth")
    method = paws()
    taken = load_initial_weights(method, tmp_path / "dino.pth")
    assert taken.layout == "DINO"
    assert all(torch.equal(value, teacher[key]) for key, value in method.backbone.state_dict().items())
    assert taken.unused["teacher.module.head.mlp.0.weight"] == "DINO's own head"
