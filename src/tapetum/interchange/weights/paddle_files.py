"""Reads PaddlePaddle's `.pdparams`, the files of PASSL, without running what a pickle may ask for.

Such a file is a pickle of a dictionary: names, and arrays of NumPy. Unpickling calls what the file names. Here it finds
five names alone, those with which NumPy describes an array, and even for these it gets classes of this file, which keep
what they are given and do nothing. NumPy then only looks at bytes whose number fits shape and type.
"""

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapetum.system.strangers import check_pickle, refuse_bomb, short_reason, shown

_NAMES_OF_PARAMETERS = "StructuredToParameterName@@"
_TYPE = re.compile(r"f[248]|i[1248]|u1|b1")


class _Kept:
    """What a file calls: it keeps the arguments."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Array(_Kept):
    """Stands in for an array, and for what makes one."""


class _Type(_Kept):
    """Stands in for numpy.dtype."""


class _Encoded(_Kept):
    """Stands in for the bytes that pickles of protocol 2 write as a text."""


_ALLOWED: dict[tuple[str, str], type[_Kept]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Encoded,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Kept]:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module[:80]}.{name[:80]}")
        return _ALLOWED[module, name]


def read_paddle(path: Path) -> dict[str, Tensor]:
    """Read a file of `paddle.save(layer.state_dict(), path)`, with torch's names and orders of axes.

    Weights of linear layers, (in, out) in Paddle, become (out, in); BatchNorm's `_mean` and `_variance` become
    `running_mean` and `running_var`.

    Raises:
        ValueError: the file is damaged, or anything but names and arrays of numbers.
    """
    try:
        content = _content(path.read_bytes())
        arrays: dict[str, np.ndarray] = {}
        size = 0
        for name, value in content.items():
            if name != _NAMES_OF_PARAMETERS:
                arrays[name] = _array(value)
                size += arrays[name].nbytes
                refuse_bomb(path, size)  # one text may be the values of many arrays
    except Exception as error:  # pickles fail in many ways on files that are none
        raise ValueError(
            f"{path} holds more than arrays, or is damaged, and is not opened ({short_reason(error)[:120]}): "
            f"write a state dict by paddle.save."
        ) from error
    return {_own_name(name): _own_axes(name, array) for name, array in arrays.items()}


def _content(data: bytes) -> dict[str, Any]:
    """The pickled dictionary, in which instances of `_Kept` stand for arrays."""
    check_pickle(io.BytesIO(data))
    content = _ArraysOnly(io.BytesIO(data)).load()
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError("it is no dictionary of names")
    return content


def _array(value: Any) -> np.ndarray:
    """An array from the state that NumPy pickles: version, shape, type, whether column-major, and bytes."""
    if not isinstance(value, _Array) or not isinstance(value.state, tuple):
        raise ValueError(f"it holds a {type(value).__name__.strip('_').lower()} beside arrays")
    _, shape, kind, column_major, data = value.state
    code, order = kind.arguments[0], kind.state[1]
    if _TYPE.fullmatch(code) is None or order not in ("<", ">", "|"):
        raise ValueError(f"it holds values of type {order if isinstance(order, str) else shown(order)}{code}")
    if isinstance(data, _Encoded):
        data = data.arguments[0].encode("latin-1")
    dtype = np.dtype(order + code)
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes are no array of shape {shown(tuple(shape))}")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if column_major else "C")
    return array.astype(dtype.newbyteorder("="), order="C")


def _own_name(name: str) -> str:
    stem, dot, last = name.rpartition(".")
    return stem + dot + {"_mean": "running_mean", "_variance": "running_var"}.get(last, last)


def _own_axes(name: str, array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.T.contiguous() if tensor.ndim == 2 and name.endswith("weight") else tensor
