import json

import pytest
import torch

from tapetum.interchange.exports.preprocessing import crop_share
from tapetum.interchange.exports.timm import export_timm, usage
from tapetum.nn.backbones import ResNetConfig, TimmConfig, build_backbone

timm = pytest.importorskip("timm", reason="timm reads what is written")

NETWORKS = {
    "resnet18": ResNetConfig(depth=18),
    "resnet10t": TimmConfig(name="resnet10t"),
    "mobilenetv3": TimmConfig(name="mobilenetv3_small_050.lamb_in1k"),
    "vit of 32 pixels": TimmConfig(name="vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8, "depth": 2}),
    "vit of any size": TimmConfig(name="vit_tiny_patch16_224", options={"dynamic_img_size": True, "depth": 2}),
}


def loaded(model, path):
    names = {}
    exec(usage(model, path), names)
    return names["model"], names["preprocess"]


@pytest.mark.parametrize("network", NETWORKS)
def test_timm_computes_the_models_logits(network, make_model, pictures, as_seen, tmp_path):
    model = make_model(NETWORKS[network])
    theirs, preprocess = loaded(model, export_timm(model, tmp_path / "out"))
    seen = torch.stack([preprocess(image) for image in pictures])
    assert torch.equal(seen, as_seen(model, pictures))
    with torch.no_grad():
        assert torch.allclose(theirs(seen), model.method.classify(seen), atol=1e-5)
    assert tuple(theirs.pretrained_cfg["label_names"]) == model.classes


def test_grey_images_and_no_classifier(make_model, pictures, as_seen, tmp_path):
    model = make_model(TimmConfig(name="resnet10t"), "paws", channels=1)
    theirs, preprocess = loaded(model, export_timm(model, tmp_path / "out"))
    assert "as grey" in usage(model, tmp_path / "out")
    seen = torch.stack([preprocess(image.convert("L")) for image in pictures])
    assert torch.equal(seen, as_seen(model, pictures))
    with torch.no_grad():
        assert torch.allclose(theirs(seen), model.method.backbone(seen), atol=1e-5)


@pytest.mark.parametrize("depth", [34, 50])
def test_timms_resnets_have_the_same_tensors(depth):
    with torch.device("meta"):
        own = build_backbone(ResNetConfig(depth=depth)).state_dict()
        theirs = timm.create_model(f"resnet{depth}", num_classes=0).state_dict()
    assert {name: t.shape for name, t in own.items()} == {name: t.shape for name, t in theirs.items()}


def test_the_model_itself_stays_as_it_was(make_model, tmp_path):
    model = make_model(TimmConfig(name="resnet10t"))
    names = list(model.method.state_dict())
    export_timm(model, tmp_path / "out")
    assert list(model.method.state_dict()) == names
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architecture"] == "resnet10t"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_a_network_with_two_classifiers_is_refused(make_model, tmp_path):
    model = make_model(TimmConfig(name="deit_tiny_distilled_patch16_224", options={"img_size": 32, "depth": 1}))
    with pytest.raises(ValueError, match=r"timm's deit_tiny_distilled_patch16_224 has no place: choose --format onnx"):
        export_timm(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_every_size_survives_timms_division():
    for crop in range(1, 130):
        for resize in range(crop, 200):
            assert int(crop / crop_share(crop, resize)) == resize
