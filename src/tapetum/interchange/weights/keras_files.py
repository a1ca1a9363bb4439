"""Reads weights that Keras saved, those of PAWS-TF: `.h5` files and SavedModel folders.

Keras numbers its layers and gives them no names that mean something, so a network is recognised by the numbers and
kinds of its layers. The one known here is PAWS-TF's wide ResNet, `WideResNetConfig(variant="keras")`: Keras lists
layers of one kind from the first to the last, and only its shortcuts are convolutions of 1x1.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tapetum.interchange.weights.keras_h5 import NORMALIZATION, Layer, read_h5
from tapetum.interchange.weights.tensor_bundles import read_bundle

_BUNDLE = Path("variables", "variables.index")
_IN_BUNDLE = re.compile(r"((?:layer_with_weights-\d+/)+)(\w+)/\.ATTRIBUTES/VARIABLE_VALUE")
_NORMALIZATION = dict(zip(("weight", "bias", "running_mean", "running_var"), NORMALIZATION, strict=True))
_HEADS = ("fc.fc1", "fc.fc2", "fc.fc3", "pred.fc1", "pred.fc2")
_HEADS_NORMALIZATION = ("fc.bn1", "fc.bn2", "pred.bn1", "pred.bn2")
_NUM_HEADS = {0: 0, 3: 2, 5: 4}
"""Dense layers of the heads (none; the projection head; the prediction head, too) -> their BatchNorms."""


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds the variables of a SavedModel."""
    return (folder / _BUNDLE).is_file()


def read_keras(path: Path) -> dict[str, Tensor]:
    """Read the wide ResNet of PAWS-TF, with the names of the published PAWS and torch's orders of axes.

    Its dense layers have no biases; those of the same layers in Tapetum become zeros, which changes no output.

    Args:
        path: a `.h5` file of weights or of a model, or the folder of a SavedModel.

    Raises:
        ValueError: the file is damaged or of another network; h5py is needed and not installed.
    """
    layers, others = _layers_in_bundle(path / _BUNDLE) if path.is_dir() else (read_h5(path), {})
    try:
        return _wide_resnet(layers, path) | {name: torch.from_numpy(array) for name, array in others.items()}
    except (LookupError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} has layers of other parts than Keras gives them: get it again.") from error


def _layers_in_bundle(index: Path) -> tuple[list[Layer], Mapping[str, np.ndarray]]:
    """The layers, and what is none, such as the state of an optimizer."""
    layers: dict[tuple[int, ...], Layer] = {}
    others = {}
    for name, array in read_bundle(index).items():
        match = _IN_BUNDLE.fullmatch(name)
        if match is None:
            others[name] = array
        else:
            place = tuple(int(number) for number in re.findall(r"\d+", match[1]))
            layers.setdefault(place, {})[match[2]] = array
    return [layers[place] for place in sorted(layers)], others


def _wide_resnet(layers: list[Layer], path: Path) -> dict[str, Tensor]:
    """The tensors of PAWS-TF's wide ResNet and its heads."""
    kernels = [layer for layer in layers if "kernel" in layer]
    wide = [layer for layer in kernels if layer["kernel"].shape[:2] == (3, 3)]
    narrow = [layer for layer in kernels if layer["kernel"].ndim == 4 and layer["kernel"].shape[:2] == (1, 1)]
    dense = [layer for layer in kernels if layer["kernel"].ndim == 2]
    normalizations = [layer for layer in layers if "gamma" in layer]
    blocks, rest = divmod(len(wide) - 1, 6)
    expected = 6 * blocks + 1 + _NUM_HEADS.get(len(dense), -1)
    known = len(kernels) == len(wide) + len(narrow) + len(dense)
    if rest or blocks < 1 or len(narrow) != 3 or len(normalizations) != expected or not known:
        shown = "PAWS-TF's ResNet-20" if (len(wide), len(narrow)) == (7, 15) else "a network of Keras"
        raise ValueError(
            f"{path} is {shown} with {len(kernels)} layers of weights, which Tapetum does not have: "
            f"of Keras it takes the wide ResNet of PAWS-TF."
        )
    return _named(blocks, wide, narrow, dense, normalizations) | {
        f"normalization.{part}": torch.from_numpy(array)
        for layer in layers
        if not {"kernel", "gamma"} & layer.keys()
        for part, array in layer.items()
    }


def _named(
    blocks: int, wide: list[Layer], narrow: list[Layer], dense: list[Layer], normalizations: list[Layer]
) -> dict[str, Tensor]:
    """The tensors under the names of the published PAWS, from the layers of each kind in their order."""
    names = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(blocks)]
    weights = ["conv1", *(f"{name}.conv{number}" for name in names for number in (1, 2))]
    weights += [f"layer{stage}.0.shortcut" for stage in (1, 2, 3)]
    weights += _HEADS[: len(dense)]
    tensors = {}
    for name, layer in zip(weights, [*wide, *narrow, *dense], strict=True):
        kernel = torch.from_numpy(layer["kernel"])
        tensors[f"{name}.weight"] = (kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T).contiguous()
        if "bias" in layer:
            tensors[f"{name}.bias"] = torch.from_numpy(layer["bias"])
        elif kernel.ndim == 2:
            tensors[f"{name}.bias"] = torch.zeros(kernel.shape[1])
    normalized = [*(f"{name}.bn{number}" for name in names for number in (1, 2)), "bn1", *_HEADS_NORMALIZATION]
    for name, layer in zip(normalized, normalizations, strict=False):
        tensors |= {f"{name}.{ours}": torch.from_numpy(layer[theirs]) for ours, theirs in _NORMALIZATION.items()}
    return tensors
