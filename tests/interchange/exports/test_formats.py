"""The table of formats, and what each of them refuses."""

import importlib
from pathlib import Path

import pytest
import torch

from tapetum.interchange.exports.formats import FORMATS, HOLD_SUPPORTS, exporter
from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, TimmConfig, WideResNetConfig

SUFFIXES = {"safetensors": ".safetensors", "torchvision": ".pth"}
PLAIN = ("torchvision", "timm", "huggingface")
SMALL = SmallNetConfig(stem=8, widths=(8, 16))
RESNET = ResNetConfig(depth=18)


def refusal(format, model, folder):
    with pytest.raises(ValueError) as error:
        exporter(format)(model, folder / f"out{SUFFIXES.get(format, '')}")
    assert list(folder.iterdir()) == []
    return str(error.value)


def test_each_entry_names_a_function():
    assert set(FORMATS) >= HOLD_SUPPORTS
    for format, (module, name) in FORMATS.items():
        assert importlib.util.find_spec(module), format
        assert name == f"export_{format.replace('.', '_')}"


def test_an_unknown_format_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"'torch_hub' \(did you mean torch.hub\?\): use one of huggingface, onnx,"):
        exporter("torch_hub")


@pytest.mark.parametrize("format", PLAIN)
@pytest.mark.parametrize(
    "backbone, channels, found",
    [
        (SMALL, 3, "is a small_net,"),
        (WideResNetConfig(depth=10, width=1), 3, "is a wide_resnet,"),
        (ResNetConfig(depth=20), 3, "is a resnet,"),
        (ResNetConfig(depth=18, width=2), 3, "is a ResNet-18 with width 2,"),
        (ResNetConfig(depth=18, stem="small"), 3, "is a ResNet-18 with stem small,"),
        (ResNetConfig(depth=18), 1, "is a ResNet-18 with 1 channel,"),
    ],
)
def test_networks_that_a_tool_lacks_are_refused(format, backbone, channels, found, make_model, tmp_path):
    with torch.device("meta"):
        model = make_model(backbone, channels=channels)
    message = refusal(format, model, tmp_path)
    assert found in message
    assert f"--format {format} holds ResNets of depth 18, 34, 50, 101, 152" in message
    assert "choose --format torch.hub" in message


@pytest.mark.parametrize("format", [*PLAIN, "torch.hub"])
@pytest.mark.parametrize("method", ["suave", "doubled"])
def test_a_classifier_of_more_than_the_features_is_refused(format, method, make_model, tmp_path):
    model = make_model(SMALL if format == "torch.hub" else RESNET, method)
    message = refusal(format, model, tmp_path)
    assert f"predicts by more than a linear layer on its network's features, and --format {format} would" in message
    assert "choose --format onnx" in message


@pytest.mark.parametrize("format", ["torchvision", "torch.hub"])
def test_timm_networks_are_for_timm(format, make_model, tmp_path):
    message = refusal(format, make_model(TimmConfig(name="resnet10t")), tmp_path)
    assert "is timm's resnet10t" in message
    assert message.endswith("choose --format timm.")


@pytest.mark.parametrize("format", ["timm", "huggingface"])
def test_timm_always_resizes(format, make_model, tmp_path):
    message = refusal(format, make_model(TimmConfig(name="resnet10t"), resize=None), tmp_path)
    assert "(views.evaluation.resize is null)" in message


def test_predictions_by_labelled_images_are_refused_where_a_classifier_is_needed(make_model, tmp_path):
    message = refusal("huggingface", make_model(RESNET, "paws"), tmp_path)
    assert "has no linear classifier" in message
    assert "`tapetum finetune RUN`" in message
    assert "choose --format onnx" in message
    assert "without labels" in refusal("huggingface", make_model(RESNET, "swav", classes=()), tmp_path)


@pytest.mark.parametrize("format, suffix", [("safetensors", ".bin"), ("torchvision", ".safetensors")])
def test_files_need_their_ending(format, suffix, make_model, tmp_path):
    with pytest.raises(ValueError, match="does not end in"):
        exporter(format)(make_model(), tmp_path / f"out{suffix}")


@pytest.mark.parametrize("format", [*PLAIN, "torch.hub"])
def test_what_cannot_be_written_leaves_nothing(format, resnet, tmp_path, monkeypatch):
    """Each format fails at the end, when its weights are on disk already."""
    stops = {"torchvision": "check_written", "torch.hub": "check_written", "timm": "write_tensors"}
    module = importlib.import_module(FORMATS[format][0])

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, stops.get(format, "_model_card"), full)
    assert "(no space left on device): make room" in refusal(format, resnet, tmp_path)


@pytest.mark.parametrize("format", ["timm", "torch.hub", "huggingface"])
def test_a_folder_that_holds_something_stays_as_it_is(format, resnet, tmp_path):
    (tmp_path / "out").mkdir()
    kept = Path(tmp_path / "out" / "kept")
    kept.write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        exporter(format)(resnet, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert kept.read_text() == "mine"
