import json

import pytest
import torch
import torchvision

from tapetum.interchange.exports import torchvision as exporting
from tapetum.interchange.exports.torchvision import export_torchvision, usage
from tapetum.nn.backbones import ResNetConfig, build_backbone


@pytest.mark.parametrize("resize", [40, None])
def test_the_printed_lines_give_the_models_logits(make_model, resize, pictures, as_seen, tmp_path):
    model = make_model(ResNetConfig(depth=18), resize=resize)
    pictures = pictures if resize else [image for image in pictures if min(image.size) >= 32]
    path = export_torchvision(model, tmp_path / "trees.pth")
    names = {}
    exec(usage(model, path), names)
    seen = torch.stack([names["preprocess"](image) for image in pictures])
    assert torch.equal(seen, as_seen(model, pictures))
    with torch.no_grad():
        assert torch.equal(names["model"](seen), model.method.classify(seen))
    assert names["about"]["classes"] == list(model.classes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trees.preprocessing.json", "trees.pth"]


@pytest.mark.parametrize("depth", [34, 50])
def test_torchvision_has_the_same_tensors(depth):
    with torch.device("meta"):
        own = build_backbone(ResNetConfig(depth=depth)).state_dict()
        theirs = getattr(torchvision.models, f"resnet{depth}")().state_dict()
    assert {name: t.shape for name, t in own.items()} == {n: t.shape for n, t in theirs.items() if n[:3] != "fc."}


def test_without_a_classifier_it_is_the_backbone_and_the_lines_say_so(make_model, tmp_path):
    model = make_model(ResNetConfig(depth=18), "paws")
    path = export_torchvision(model, tmp_path / "trees.pth")
    told = usage(model, path)
    assert "model.fc = torch.nn.Identity()" in told
    names = {}
    exec(told, names)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(names["model"](images), model.method.backbone(images))


def test_the_preprocessing_of_another_file_is_kept(resnet, tmp_path):
    (tmp_path / "trees.preprocessing.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"trees.preprocessing.json exists already"):
        export_torchvision(resnet, tmp_path / "trees.pth")


def test_weights_that_came_out_wrong_are_not_kept(resnet, tmp_path, monkeypatch):
    save = torch.save
    wrong = {"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}
    monkeypatch.setattr(exporting.torch, "save", lambda state, path: save(state | wrong, path))
    with pytest.raises(RuntimeError, match="computes something else"):
        export_torchvision(resnet, tmp_path / "trees.pth")
    assert list(tmp_path.iterdir()) == []
