"""Our networks against the published SwAV and DeepCluster-v2: names, shapes, outputs, running statistics."""

import json
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tapetum.methods.base import Method
from tapetum.methods.registry import method_class
from tapetum.nn.backbones import ResNetConfig, build_backbone
from tapetum.nn.heads import HeadConfig, unit_length

PUBLISHED = {
    "swav_resnet50": ("swav", ResNetConfig(depth=50), 2048, (300,)),
    "swav_resnet50w2": ("swav", ResNetConfig(depth=50, width=2), 4096, (3000,)),
    "deepcluster_resnet50": ("deepcluster", ResNetConfig(depth=50), 2048, (30, 30, 30)),
}
_HEAD = {"fc1": "0", "bn1": "1", "fc2": "3"}


def make(name: str) -> Method:
    kind, backbone, hidden, prototypes = PUBLISHED[name]
    found = method_class(kind)
    config = found.Config(num_prototypes=prototypes, head=HeadConfig(hidden=hidden, output=128, layers=2))
    return found(config, build_backbone(backbone), num_classes=0, num_images=4)


def published_state_dict(method: nn.Module) -> dict[str, Tensor]:
    """The state dict under published names; the tensors are the method's own."""
    state = {}
    for name, tensor in method.state_dict().items():
        part, rest = name.split(".", 1)
        if part == "projector":
            layer, rest = rest.split(".", 1)
            name = f"projection_head.{_HEAD[layer]}.{rest}"
        elif part == "prototypes":
            name = re.sub(r"\.(\d)", r".prototypes\1", name) if len(method.prototypes) > 1 else "prototypes.weight"
        else:
            name = rest
        state[name] = tensor
    return state


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_the_state_dict(name, golden_file):
    published = json.loads(golden_file("state_dict_shapes.json").read_text())[name]
    with torch.device("meta"):
        ours = published_state_dict(make(name))
    assert {key: list(tensor.shape) for key, tensor in ours.items()} == published


@pytest.mark.parametrize("name", ["swav_resnet50", "deepcluster_resnet50"])
def test_outputs_and_running_statistics(name, fill_procedurally, procedural_images, golden_file):
    """One backbone call for each run of equal sizes, and one of the projector for all."""
    golden = np.load(golden_file(f"model_{name}.npz"))
    method = make(name).double()
    fill_procedurally(published_state_dict(method))
    sizes = [int(size) for size in golden["input_sizes"]]
    images = [procedural_images(j, int(golden["batch"]), size) for j, size in enumerate(sizes)]
    calls = [torch.cat([x for x in images if x.shape[-1] == size]) for size in dict.fromkeys(sizes)]
    for mode in ("eval", "train"):
        method.train(mode == "train")
        with torch.no_grad():
            projections = unit_length(method.projector(torch.cat([method.backbone(call) for call in calls])))
            outputs = [projections, *method.prototypes(projections)]
        for j, output in enumerate(outputs):
            expected = golden[f"{mode}_out{j}"]
            assert np.abs(output.numpy() - expected).max() <= 1e-9 * np.abs(expected).max()
    state = published_state_dict(method)
    compared = [key for key in golden.files if key.startswith("after_train.")]
    assert compared
    for key in compared:
        ours, expected = state[key.removeprefix("after_train.")].numpy(), golden[key]
        assert np.abs(ours - expected).max() <= 1e-9 * max(np.abs(expected).max(), 1e-300), key
