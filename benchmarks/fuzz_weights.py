"""Valid weights and checkpoints, small, made by the programs that usually write them; and what a valid input is."""

from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save as save_safetensors

from tapetum.engine.checked_tensors import read_tensors, write_tensors
from tapetum.engine.checkpoint import capture, write_checkpoint
from tapetum.methods.supervised import Supervised, SupervisedConfig
from tapetum.nn.backbones import SmallNetConfig, build_backbone

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"


class Seed(NamedTuple):
    """A valid input: files in a folder, of which all but the kept ones are changed."""

    files: Mapping[str, bytes]
    entry: str
    """The file or folder that is given to Tapetum; "" is the folder that holds all."""
    kept: tuple[str, ...] = ()


def one(name: str, content: bytes) -> Seed:
    """A seed of one file."""
    return Seed({name: content}, name)


def network() -> Supervised:
    """A method small enough to be built thousands of times."""
    torch.manual_seed(0)
    backbone = build_backbone(SmallNetConfig(stem=4, widths=(4, 4)))
    return Supervised(SupervisedConfig(), backbone, num_classes=3, num_images=4)


def trained() -> tuple[Supervised, torch.optim.Optimizer]:
    """The method and its optimizer, after a step."""
    method = network()
    optimizer = torch.optim.AdamW(method.parameters())
    for parameter in method.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return method, optimizer


def checkpoints() -> list[Seed]:
    """A run's two latest checkpoints."""
    scalars = {"step": 2, "skipped": 0, "fingerprint": {"recipe": "a"}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "step-00000002.safetensors")
        write_checkpoint(path, capture(*trained(), [{"queue": torch.ones(3)}], scalars))
        content = path.read_bytes()
    return [Seed({f"checkpoints/{path.name}": content}, "")]


def resealed(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A checkpoint with other words beside its tensors, and a check sum that fits them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        path.write_bytes(content)
        tensors, about = read_tensors(path)
        write_tensors(path, tensors, change((about or "").encode()).decode("latin-1"), "")
        return path.read_bytes()


def safetensors() -> list[Seed]:
    """Weights alone, of several types."""
    state = {name: value.contiguous() for name, value in network().state_dict().items()}
    odd = {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.zeros(0, 3), "c": torch.tensor(True)}
    return [one("w.safetensors", save_safetensors(state)), one("w.safetensors", save_safetensors(odd, {"a": "b"}))]


def torch_files() -> list[Seed]:
    """State dicts by torch.save, in both its formats."""
    contents = [network().state_dict(), {"state_dict": {"module.a": torch.ones(3)}, "epoch": 3, "x": (1, 2.5, "y")}]
    found = []
    for content in contents:
        for is_zip in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=is_zip)
            found.append(one("w.pth", file.getvalue()))
    return found


def paddle() -> list[Seed]:
    """State dicts by paddle.save: pickles of arrays."""
    arrays = {"conv1.weight": np.ones((4, 3, 3, 3), np.float32), "bn1._mean": np.zeros(4)}
    arrays |= {"StructuredToParameterName@@": {"conv1.weight": "conv_0.w_0"}}  # type: ignore[dict-item]
    return [one("w.pdparams", pickle.dumps(arrays, protocol)) for protocol in (2, 4)]


def keras() -> list[Seed]:
    """The smallest wide ResNet of PAWS-TF as Keras 2 writes it, and layers as Keras 3 writes them."""
    import h5py

    kernels = [(3, 3, 1, 1)] * 7 + [(1, 1, 1, 1)] * 3
    layers = [{"kernel": np.ones(shape, np.float32)} for shape in kernels]
    layers += [dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), np.ones(1, np.float32))] * 7
    old, new = io.BytesIO(), io.BytesIO()
    with h5py.File(old, "w") as content:
        content.attrs["layer_names"] = [f"layer_{number}" for number in range(len(layers))]
        for number, layer in enumerate(layers):
            group = content.create_group(f"layer_{number}")
            group.attrs["weight_names"] = [f"{name}:0" for name in layer]
            for name, values in layer.items():
                group.create_dataset(f"{name}:0", data=values, compression="gzip" if values.ndim > 1 else None)
    with h5py.File(new, "w") as content:
        group = content.create_group("layers/conv2d/vars")
        group["0"], group["1"] = np.ones((3, 3, 3, 4), np.float32), np.ones(4)
    return [one("w.h5", old.getvalue()), one("w.h5", new.getvalue())]


def tensorflow() -> list[Seed]:
    """The variables of a SavedModel, as TensorFlow wrote them."""
    with zipfile.ZipFile(FIXTURES / "keras.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith("published/variables/variables.")]
        files = {f"model/{name.removeprefix('published/')}": archive.read(name) for name in names}
    return [Seed(files, "model", tuple(name for name in files if ".data-" in name))]
