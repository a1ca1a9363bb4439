import sys

import pytest
import torch

from tapetum.interchange.exports.torch_hub import export_torch_hub, usage
from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, WideResNetConfig

NETWORKS = {
    "resnet": ResNetConfig(depth=20, width=2),
    "wide_resnet": WideResNetConfig(depth=10, width=1),
    "small_net": SmallNetConfig(stem=8, widths=(8, 16), pool="max"),
}


def load(path, name, **options):
    return torch.hub.load(str(path), name, source="local", trust_repo=True, **options)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_comes_with_its_code(network, channels, make_model, pictures, as_seen, tmp_path):
    model = make_model(NETWORKS[network], channels=channels)
    names = {}
    exec(usage(model, export_torch_hub(model, tmp_path / "out")), names)
    seen = torch.stack([names["preprocess"](image) for image in pictures])
    assert torch.equal(seen, as_seen(model, pictures))
    with torch.no_grad():
        assert torch.equal(names["model"](seen), model.method.classify(seen))
    assert names["model"].classes == model.classes
    assert not names["model"].training


def test_it_needs_no_tapetum_and_minds_no_other_module(make_model, tmp_path, monkeypatch):
    model = make_model()
    out = export_torch_hub(model, tmp_path / "out")
    (tmp_path / "networks.py").write_text("raise ImportError('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "tapetum"]:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    images = torch.ones(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load("out", "model")(images), model.method.classify(images))
    assert out.is_dir()


def test_two_exports_do_not_share_code(make_model, tmp_path):
    first = load(export_torch_hub(make_model(), tmp_path / "first"), "model")
    second = load(export_torch_hub(make_model(), tmp_path / "second"), "model")
    assert type(first.backbone) is not type(second.backbone)


def test_features_where_there_is_no_classifier(make_model, tmp_path):
    model = make_model(method="paws")
    network = load(export_torch_hub(model, tmp_path / "out"), "model")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), model.method.backbone(images))
    assert network.classes == ()


def test_swavs_names_give_weights_only_of_their_own_network(make_model, tmp_path):
    model = make_model(ResNetConfig(depth=50), "swav", classes=())
    out = export_torch_hub(model, tmp_path / "out")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load(out, "resnet50")(images), model.method.backbone(images))
    with pytest.raises(
        ValueError, match=r"holds weights of trees \(kind resnet, depth 50, width 1,.*not of a ResNet-50"
    ):
        load(out, "resnet50w2")
    for name, width in (("resnet50", 1), ("resnet50w2", 2), ("resnet50w4", 4), ("resnet50w5", 5)):
        with torch.device("meta"):
            assert load(out, name, pretrained=False).backbone.num_features == 2048 * width


def test_random_weights_on_request(make_model, tmp_path):
    model = make_model()
    network = load(export_torch_hub(model, tmp_path / "out"), "model", pretrained=False)
    assert network.state_dict().keys() == model.method.state_dict().keys()
    assert not torch.equal(network.classifier.weight, model.method.classifier.weight)
