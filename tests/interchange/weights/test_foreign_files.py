"""Files that PaddlePaddle and TensorFlow wrote (tests/fixtures): the same outputs, and nothing in them is run."""

import pickle
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.interchange.weights import keras_h5
from tapetum.interchange.weights.initial_weights import load_initial_weights
from tapetum.interchange.weights.networks import network_of
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.methods.registry import method_class
from tapetum.nn.backbones import ResNetConfig, WideResNetConfig, build_backbone
from tapetum.nn.heads import HeadConfig, unit_length

FIXTURES = Path(__file__).parents[2] / "fixtures"
COLOURS = "the mean and variance of colours, which a recipe's views hold"
KERAS = ("keras", "paws", {"head": HeadConfig(output=32)}, WideResNetConfig(depth=16, width=1, variant="keras"))
PADDLE = (
    *("paddle", "swav", {"num_prototypes": (7,), "head": HeadConfig(hidden=24, output=12, layers=2)}),
    ResNetConfig(depth=20, stem="small"),
)
FILES = {
    "published": (*KERAS, "PAWS-TF", {COLOURS: 3}),
    "keras2.h5": (*KERAS, "PAWS-TF", {COLOURS: 3}),
    "keras3.weights.h5": (*KERAS, "PAWS-TF", {COLOURS: 3}),
    "protocol2.pdparams": (*PADDLE, "SwAV", {}),
    "protocol4.pdparams": (*PADDLE, "SwAV", {}),
}
"""Name in an archive -> archive, method, its settings, the network, the layout's title, tensors that are not used."""


def unpacked(name, folder):
    """A fixture as a file, or as a folder; its archive is unpacked beside it."""
    with zipfile.ZipFile(FIXTURES / f"{FILES[name][0]}.zip") as archive:
        archive.extractall(folder)
    return folder / name


def needs(name):
    if name.endswith(".h5"):
        pytest.importorskip("h5py", reason="HDF5 files are read by h5py")


def loaded(path, kind, settings, backbone):
    found = method_class(kind)
    method = found(found.Config(**settings), build_backbone(backbone), num_classes=3, num_images=4).eval()
    return method, load_initial_weights(method, path)


def errors(method, folder):
    """Largest differences from what the framework computed, relative to its largest value; output -> error."""
    expected = np.load(folder / "expected.npz")
    images = torch.from_numpy(expected["images"])
    if images.dtype == torch.uint8:  # PAWS-TF's network takes bytes, channels last, and normalises them itself
        mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.247, 0.243, 0.261])
        images = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = method.backbone(images)
        projection = method.projector(features)
        outputs = {"trunk": features, "features": features, "projection": projection}
        if hasattr(method, "prototypes"):
            outputs["projection"] = unit_length(projection)
            (outputs["scores"],) = method.prototypes(outputs["projection"])
    names = sorted({*expected.files} - {"images"})
    return {
        name: float(np.abs(outputs[name].numpy() - expected[name]).max() / np.abs(expected[name]).max())
        for name in names
    }


@pytest.mark.parametrize("name", FILES)
def test_outputs_are_those_of_the_framework(name, tmp_path):
    needs(name)
    archive, kind, settings, backbone, title, unused = FILES[name]
    path = unpacked(name, tmp_path)
    assert network_of(read_weights(path)) == (backbone, 3)
    method, taken = loaded(path, kind, settings, backbone)
    found = errors(method, tmp_path)
    assert len(found) == (2 if archive == "keras" else 3)
    assert max(found.values()) < 2e-6
    assert (taken.layout, taken.new) == (title, ())
    assert list(taken.unused.values()) == [why for why, count in unused.items() for _ in range(count)]


def test_the_linear_probe_of_passl_is_accounted_for(tmp_path):
    weights = read_weights(unpacked("protocol4.pdparams", tmp_path))
    probe = {name: tensor for name, tensor in weights.items() if ".encoder." in name}
    torch.save(probe | {"linear.linear.weight": torch.ones(2, 64)}, tmp_path / "probe.pth")
    _, taken = loaded(tmp_path / "probe.pth", *PADDLE[1:])
    assert taken.layout == "PASSL, linear probe"
    assert taken.unused == {"linear.linear.weight": "the classifier of the classes it was trained on"}


class Harmful:
    def __reduce__(self):
        return (Path("harmed").touch, ())


class Evaluated:
    def __reduce__(self):
        return (eval, ("open('harmed', 'w')",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"w": Harmful()}, 2), r"it calls __builtin__\.getattr"),
        (pickle.dumps({"w": Evaluated()}, 4), r"it calls builtins\.eval"),
        (pickle.dumps({"w": np.float32(1)}), r"it calls numpy\.\S*multiarray\.scalar"),
        (pickle.dumps({"w": np.array([{}])}, 4), "it holds values of type"),
        (pickle.dumps({"w": np.ones(2, ">u2")}, 4), "it holds values of type >u2"),
        (pickle.dumps({"w": {"x": np.ones(2)}}, 4), "it holds a dict beside arrays"),
        (pickle.dumps([np.ones(2)], 4), "it is no dictionary of names"),
        (pickle.dumps({"w": np.ones(500)}, 4)[:-700], ""),
        (b"\x80\2}r\xff\xff\xff\x7f.", "place 2147483647 of its memo is out of order"),
        (b"\x80\4}\x8c\1w\x8e" + struct.pack("<Q", 1 << 60) + b"abc", ""),
        (b"hello", ""),
        (b"", ""),
    ],
    ids=str.split("method function scalar object bfloat16 nested list cut memo long text empty"),
)
def test_pickles_of_paddle_run_nothing(tmp_path, monkeypatch, content, reason):
    monkeypatch.chdir(tmp_path)
    Path("a.pdparams").write_bytes(content)
    message = rf"a\.pdparams holds more than arrays, or is damaged, and is not opened \(.*{reason}.*\): write a state"
    with pytest.raises(ValueError, match=message) as error:
        read_weights("a.pdparams")
    assert "\n" not in str(error.value)
    assert not Path("harmed").exists()


class Array:
    """Pickles as an array of any shape over a few bytes."""

    def __init__(self, shape):
        self.shape = shape

    def __reduce__(self):
        reconstruct, arguments, state = np.zeros(2, np.float32).__reduce__()
        return reconstruct, arguments, (state[0], self.shape, *state[2:])


@pytest.mark.parametrize("shape", [(1 << 40,), (-1, -2), (3,)])
def test_arrays_of_paddle_have_the_bytes_of_their_shape(tmp_path, shape):
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"w": Array(shape)}, 4))
    with pytest.raises(ValueError, match=r"8 bytes are no array of shape"):
        read_weights(tmp_path / "a.pdparams")
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"w": Array((2,))}, 4))
    assert torch.equal(read_weights(tmp_path / "a.pdparams")["w"], torch.zeros(2))


def test_axes_and_orders_of_paddle(tmp_path):
    arrays = {
        "a.weight": np.arange(6.0).reshape(2, 3),
        "b.weight": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        "c._mean": np.arange(3, dtype=">f4"),
        "StructuredToParameterName@@": {"a.weight": "linear_0.w_0"},
    }
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(arrays, 4))
    found = read_weights(tmp_path / "a.pdparams")
    assert list(found) == ["a.weight", "b.weight", "c.running_mean"]
    assert found["a.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["b.weight"].tolist() == arrays["b.weight"].tolist()
    assert found["c.running_mean"].tolist() == [0, 1, 2]


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_files_of_keras_that_are_cut_short(tmp_path, share):
    pytest.importorskip("h5py", reason="HDF5 files are read by h5py")
    folder = unpacked("published", tmp_path)
    cut(tmp_path / "keras2.h5", share)
    with pytest.raises(ValueError, match=r"keras2\.h5 is cut short or no file of Keras weights \(.*\): get it again"):
        read_weights(tmp_path / "keras2.h5")
    shutil.copytree(folder, tmp_path / "data")
    cut(tmp_path / "data" / "variables" / "variables.data-00000-of-00001", share)
    cut(folder / "variables" / "variables.index", share)
    for path in (folder, tmp_path / "data"):
        with pytest.raises(ValueError, match=r"variables\.index or its data is cut short or damaged \(.*\): get both"):
            read_weights(path)


def test_half_a_saved_model(tmp_path):
    folder = unpacked("published", tmp_path)
    (folder / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(ValueError, match=r"variables\.data-00000-of-00001 is missing: keep it beside variables\.index"):
        read_weights(folder)


def written_layers(path, shapes):
    """A `.h5` as Keras 2 writes it, of layers with kernels of these shapes."""
    h5py = pytest.importorskip("h5py", reason="HDF5 files are read by h5py")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [f"layer_{number}" for number in range(len(shapes))]
        for number, shape in enumerate(shapes):
            group = file.create_group(f"layer_{number}")
            group.attrs["weight_names"] = ["kernel:0"]
            group["kernel:0"] = np.ones(shape, np.float32)
    return path


@pytest.mark.parametrize(
    ("shapes", "shown"),
    [
        ([(3, 3, 1, 1)] * 7 + [(1, 1, 1, 1)] * 15, "PAWS-TF's ResNet-20 with 22 layers of weights"),
        ([(5, 5, 1, 1), (4, 4)], "a network of Keras with 2 layers of weights"),
        ([], "a network of Keras with 0 layers of weights"),
    ],
)
def test_other_networks_of_keras_are_refused(tmp_path, shapes, shown):
    with pytest.raises(ValueError, match=rf"a\.h5 is {shown}, which Tapetum does not have: of Keras it takes"):
        read_weights(written_layers(tmp_path / "a.h5", shapes))


def test_what_reads_hdf5_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.h5 needs h5py, which is not installed: pip install 'tapetum\[keras\]'"):
        read_weights(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "HDF5 died of it: Segmentation fault"),
        ("import time; time.sleep(60)", "reading it took more than 2 s"),
        ("while True: pass", "HDF5 died of it: CPU time limit exceeded"),
        ("import sys; sys.exit('out of luck')", "its reader ended with code 1: out of luck"),
    ],
    ids=["dies", "waits", "computes", "ends"],
)
def test_hdf5_may_die_of_a_file(tmp_path, monkeypatch, code, reason):
    (tmp_path / "h5py.py").write_text(f"{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(keras_h5, "SECONDS", 2 if "sleep" in code else 60)
    monkeypatch.setattr(keras_h5, "COMPUTING", 1)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"a\.h5 is cut short or no file of Keras weights \({reason}\): get it again"):
        read_weights(tmp_path / "a.h5")


def test_nothing_in_the_present_folder_is_imported_by_the_reader_of_hdf5(tmp_path, monkeypatch):
    path = written_layers(tmp_path / "a.h5", [(4, 4)])
    for name in ("h5py", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    assert [list(layer) for layer in keras_h5.read_h5(path)] == [["kernel"]]


def test_other_weights_of_paddle_are_refused_by_their_first_difference(tmp_path):
    path = unpacked("protocol4.pdparams", tmp_path)
    with pytest.raises(ValueError, match=r"init: .*protocol4\.pdparams.* choose the backbone that these weights"):
        loaded(path, "swav", PADDLE[2], ResNetConfig(depth=20, width=2))
