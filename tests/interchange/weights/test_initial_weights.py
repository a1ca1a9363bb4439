"""Starting from weights: of runs, of files in the field's forms, and what is refused."""

import io
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tapetum
from tapetum.interchange.weights.initial_weights import load_initial_weights
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.methods.paws import PAWS, PAWSConfig
from tapetum.nn.heads import HeadConfig
from tapetum.nn.small_net import SmallNet, SmallNetConfig
from tapetum.nn.wide_resnet import WideResNet, WideResNetConfig


def paws(seed, output=8, channels=3):
    torch.manual_seed(seed)
    backbone = SmallNet(SmallNetConfig(stem=8, widths=(8, 16)), channels)
    return PAWS(PAWSConfig(head=HeadConfig(output=output)), backbone, num_classes=3, num_images=9)


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


FORMS = {
    "plain.safetensors": (save_file, lambda state: state),
    "plain.pth": (torch.save, lambda state: state),
    "nested.pth.tar": (torch.save, lambda state: {"epoch": 3, "encoder": {f"module.{k}": v for k, v in state.items()}}),
    "named.ckpt": (torch.save, lambda state: {"state_dict": {f"model.encoder.{k}": v for k, v in state.items()}}),
    "without counts.pt": (torch.save, lambda s: {k: v for k, v in s.items() if "num_batches_tracked" not in k}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_backbone_is_found_under_any_prefix(tmp_path, name):
    write, form = FORMS[name]
    source, target = paws(1), paws(2)
    fresh = {k: v.clone() for k, v in target.projector.state_dict().items()}
    write(form(source.backbone.state_dict()), tmp_path / name)
    taken = load_initial_weights(target, tmp_path / name)
    assert_equal(target.backbone.state_dict(), source.backbone.state_dict())
    assert_equal(target.projector.state_dict(), fresh)
    assert "0 of heads" in taken.describe()
    assert not taken.unused


def test_an_exported_file_gives_the_heads_that_fit(tmp_path):
    source, target, other = paws(1), paws(2), paws(3, output=5)
    save_file(source.state_dict(), tmp_path / "exported.safetensors")
    assert load_initial_weights(target, tmp_path / "exported.safetensors").layout == "Tapetum, exported"
    assert_equal(target.state_dict(), source.state_dict())
    taken = load_initial_weights(other, tmp_path / "exported.safetensors")
    assert set(taken.unused) == {"projector.fc3.weight", "projector.fc3.bias"}


@pytest.fixture
def run(tmp_path, monkeypatch, one_thread):
    """A finished run on digits, in the folder `run`."""
    monkeypatch.chdir(tmp_path)
    tapetum.train("paws_digits", "run", ["trainer.steps=3", "data.test=null"])
    return tmp_path / "run"


def state(run):
    return {k.removeprefix("method."): v for k, v in read_weights(run).items() if k.startswith("method.")}


SHORT = ["trainer.steps=1", "data.test=null", "optimizer.lr.peak=1e-9"]


def nearly(left, right):
    return torch.allclose(left, right, atol=1e-6)


def test_methods_are_told_of_weights_to_start_from(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(PAWS, "starts_from_weights", lambda method: told.append(method))
    method = paws(0)
    save_file(method.state_dict(), tmp_path / "w.safetensors")
    load_initial_weights(method, tmp_path / "w.safetensors")
    assert told == [method]


def test_a_run_gives_its_heads_where_they_fit(run, capfd):
    tapetum.train("paws_digits", "same", [*SHORT, "init=run", "seed=5"])
    assert "started from run: " in capfd.readouterr().err
    tapetum.train("paws_digits", "other", [*SHORT, "init=run", "seed=5", "method.head.output=5"])
    first, same, other = state(run), state("same"), state("other")
    for name, tensor in first.items():
        if name.endswith("weight"):
            assert nearly(tensor, same[name]), name
            fits = name != "projector.fc2.weight"
            assert nearly(tensor, other[name]) if fits else tensor.shape != other[name].shape
    # The momentum of that run, which its checkpoint holds beside every weight, is no weight.
    assert any(name.startswith("optimizer.backbone.") for name in read_weights(run))


def test_weights_to_start_from_may_be_gone_once_there_is_a_checkpoint(run):
    tapetum.train("paws_digits", "next", [*SHORT, "init=run"])
    shutil.rmtree("run")
    tapetum.evaluate("next", "digits")
    tapetum.resume("next")
    shutil.rmtree("next/checkpoints")
    with pytest.raises(ValueError, match="there is nothing at run"):
        tapetum.resume("next")


class Harmful:
    def __reduce__(self):
        return (Path("harmed").touch, ())


def cut():
    """The first half of a file that torch wrote."""
    file = io.BytesIO()
    torch.save({"conv1.weight": torch.ones(100)}, file)
    return file.getvalue()[:500]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("harm.pth", Harmful(), r"holds more than tensors, or is damaged, and is not opened"),
        ("text.pth", b"hello", "holds more than tensors, or is damaged"),
        ("cut.pth", cut(), "holds more than tensors, or is damaged"),
        ("cut.safetensors", b"hello", r"is cut short or not a safetensors file"),
        ("HARM.PTH", Harmful(), r"holds more than tensors, or is damaged, and is not opened"),
        ("CUT.SAFETENSORS", b"hello", r"is cut short or not a safetensors file"),
        ("a.onnx", b"hello", r"is not a file of weights: give one that ends in .safetensors, .pt.*\.pdparams, \.h5"),
        ("empty.pth", {}, r"has no tensor named \S+, with which the backbone begins \(it has nothing"),
    ],
)
def test_other_files_are_refused_and_not_run(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    elif isinstance(content, Harmful):
        Path(name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, name)
    with pytest.raises(ValueError, match=message) as error:
        load_initial_weights(paws(0), name)
    assert "\n" not in str(error.value)
    assert not Path("harmed").exists()


def test_colours_are_summed_for_grey_images(tmp_path):
    colour, grey = paws(0).eval(), paws(1, channels=1).eval()
    save_file(colour.backbone.state_dict(), tmp_path / "a.safetensors")
    taken = load_initial_weights(grey, tmp_path / "a.safetensors")
    assert "Colours are summed for grey images" in taken.describe()
    image = torch.rand(2, 1, 12, 12)
    with torch.no_grad():
        assert torch.allclose(grey.backbone(image), colour.backbone(image.expand(2, 3, 12, 12)), atol=1e-5)
    assert "Colours" not in load_initial_weights(colour, tmp_path / "a.safetensors").describe()


def test_other_networks_are_refused_by_the_first_difference(tmp_path):
    save_file(paws(0, channels=1).backbone.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"is \(8, 1, \d, \d\), but the backbone's is \(8, 3, \d, \d\)"):
        load_initial_weights(paws(0), tmp_path / "a.safetensors")
    wide = PAWS(PAWSConfig(), WideResNet(WideResNetConfig(depth=10, width=1)), num_classes=3, num_images=9)
    with pytest.raises(ValueError, match="choose the backbone that these weights belong to"):
        load_initial_weights(wide, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="there is nothing at"):
        load_initial_weights(wide, tmp_path / "nowhere.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="holds no checkpoint"):
        load_initial_weights(wide, tmp_path / "folder")


def test_a_run_gives_parts_of_any_name(tmp_path):
    """As methods from outside have them."""
    source, target = paws(1), paws(2)
    for method in (source, target):
        method.decoder = torch.nn.Linear(3, 2)
    save_file({f"method.{name}": tensor for name, tensor in source.state_dict().items()}, tmp_path / "a.safetensors")
    taken = load_initial_weights(target, tmp_path / "a.safetensors")
    assert (taken.layout, taken.new, taken.unused) == ("Tapetum", (), {})
    assert_equal(target.state_dict(), source.state_dict())
