"""The formats of `tapetum export`: a name, and the function that writes it, which is imported when it is needed."""

import difflib
import importlib
from collections.abc import Callable
from pathlib import Path

from tapetum.interchange.exports.trained_model import TrainedModel

FORMATS = {
    "huggingface": ("tapetum.interchange.exports.huggingface", "export_huggingface"),
    "onnx": ("tapetum.interchange.exports.onnx", "export_onnx"),
    "safetensors": ("tapetum.interchange.exports.safetensors", "export_safetensors"),
    "timm": ("tapetum.interchange.exports.timm", "export_timm"),
    "torch.hub": ("tapetum.interchange.exports.torch_hub", "export_torch_hub"),
    "torchvision": ("tapetum.interchange.exports.torchvision", "export_torchvision"),
}
"""Format -> its module and function, which takes a model and the path to write, and returns this path.

The module may also have `usage(model, path)`, which returns the lines that show people how to use what was written.
"""

HOLD_SUPPORTS = frozenset({"onnx"})
"""Formats that hold the labelled images' embeddings, which take a pass over these images."""


def exporter(format: str) -> Callable[[TrainedModel, Path], Path]:
    """Return the function that writes a format.

    Raises:
        ValueError: there is no such format.

    Example:
        >>> exporter("safetensors").__name__
        'export_safetensors'
    """
    if format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"format is {format!r}{hint}: use one of {', '.join(FORMATS)}.")
    module, name = FORMATS[format]
    found: Callable[[TrainedModel, Path], Path] = getattr(importlib.import_module(module), name)
    return found


def usage(format: str, model: TrainedModel, path: Path) -> str | None:
    """Return the lines that show how to use what was written; None if the format's module has none."""
    told = getattr(importlib.import_module(FORMATS[format][0]), "usage", None)
    return None if told is None else str(told(model, path))
