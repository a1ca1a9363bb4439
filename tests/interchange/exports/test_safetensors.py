import json

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tapetum.interchange.exports import safetensors
from tapetum.interchange.weights.initial_weights import load_initial_weights


def test_it_holds_every_tensor_under_the_methods_names(make_model, tmp_path):
    model = make_model(method="paws")
    path = safetensors.export_safetensors(model, tmp_path / "out.safetensors")
    names = {}
    exec(safetensors.usage(model, path), names)
    found, state = names["tensors"], model.method.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert any(name.startswith("projector.") for name in found)


def test_the_header_says_what_it_is(make_model, tmp_path):
    model = make_model()
    path = safetensors.export_safetensors(model, tmp_path / "out.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    about = json.loads(metadata["tapetum"])
    assert about["format"] == 1
    assert about["backbone"] == {
        "kind": "small_net",
        "stem": 8,
        "widths": [8, 16],
        "activation": "gelu",
        "pool": "mean",
    }
    assert tuple(about["classes"]) == model.classes
    assert about["predicts_by"] == "classifier"
    assert about["accuracies"] == {"30 test images": 81.25}
    assert about["preprocessing"] == {
        "channels": 3,
        "resize": 40,
        "interpolation": "bilinear",
        "antialias": True,
        "crop": 32,
        "mirrored": False,
        "scales": [1.0],
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
    }


def test_training_starts_from_it(make_model, tmp_path):
    model = make_model()
    path = safetensors.export_safetensors(model, tmp_path / "out.safetensors")
    fresh = make_model().method
    for tensor in fresh.state_dict().values():
        tensor.zero_()
    load_initial_weights(fresh, path)
    state = fresh.backbone.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.method.backbone.state_dict().items())


def test_channels_last_weights_are_written_row_major(make_model, tmp_path):
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.method.state_dict().items()}
    model.method.to(memory_format=torch.channels_last)
    found = load_file(safetensors.export_safetensors(model, tmp_path / "out.safetensors"))
    assert all(torch.equal(found[name], before[name]) for name in before)
