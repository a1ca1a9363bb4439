"""Our networks against the published PAWS: names, shapes, outputs, running statistics, a checkpoint."""

import json

import numpy as np
import pytest
import torch

from tapetum.interchange.weights.initial_weights import load_initial_weights
from tapetum.methods.paws import PAWS, PAWSConfig
from tapetum.nn.backbones import ResNetConfig, WideResNetConfig
from tapetum.nn.heads import HeadConfig
from tapetum.nn.wide_resnet import WideResNet

ENCODERS = {
    "wide_resnet28w2": (WideResNetConfig(final_momentum=0.99), HeadConfig(output=128)),
    "resnet50": (ResNetConfig(depth=50), HeadConfig(output=2048, predictor=True)),
}


def _assert_close(ours, golden, tolerance=1e-9):
    scale = np.abs(golden).max() or 1.0
    assert np.abs(np.asarray(ours) - golden).max() / scale <= tolerance


@pytest.mark.parametrize("name", ENCODERS)
def test_names_shapes_and_order_of_the_state_dict(name, make_encoder, golden_file):
    published = json.loads(golden_file("state_dict_shapes.json").read_text())[f"paws_{name}"]
    with torch.device("meta"):
        ours = make_encoder(*ENCODERS[name]).published_state_dict()
    assert [(key, list(tensor.shape)) for key, tensor in ours.items()] == list(published.items())


@pytest.mark.parametrize("name", ENCODERS)
def test_outputs_and_running_statistics(name, make_encoder, procedural_images, golden_file):
    golden = np.load(golden_file(f"model_paws_{name}.npz"))
    encoder = make_encoder(*ENCODERS[name]).double()
    encoder.fill_procedurally()
    images = [procedural_images(j, int(golden["batch"]), int(s)) for j, s in enumerate(golden["input_sizes"])]
    for mode in ("eval", "train"):
        encoder.train(mode == "train")
        with torch.no_grad():
            outputs = encoder(images)
        for j, output in enumerate(outputs):
            _assert_close(output, golden[f"{mode}_out{j}"])
    state = encoder.published_state_dict()
    for key in golden.files:
        if key.startswith("after_train."):
            _assert_close(state[key.removeprefix("after_train.")], golden[key])


def test_checkpoint_file_gives_the_published_embedding(make_encoder, golden_file):
    golden = np.load(golden_file("checkpoint_paws_wide_resnet28w2.npz"))
    file = torch.load(golden_file("paws_wide_resnet28w2.pth.tar"), weights_only=True, map_location="cpu")
    encoder = make_encoder(*ENCODERS["wide_resnet28w2"]).eval()
    published = {key.removeprefix("module."): tensor for key, tensor in file["encoder"].items()}
    state = encoder.published_state_dict()
    assert published.keys() == state.keys()
    for key, tensor in state.items():
        tensor.copy_(published[key])
    with torch.no_grad():
        h, _ = encoder([torch.from_numpy(golden["x"])])
    _assert_close(h, golden["embedding"], tolerance=1e-5)


def test_a_training_can_start_from_it(golden_file):
    published = golden_file("paws_wide_resnet28w2.pth.tar")
    method = PAWS(PAWSConfig(), WideResNet(WideResNetConfig()), num_classes=10, num_images=9)
    load_initial_weights(method, published)
    kept = torch.load(published, weights_only=True)["encoder"]
    for name, tensor in method.backbone.state_dict().items():
        assert torch.equal(tensor, kept[f"module.{name}"]), name
