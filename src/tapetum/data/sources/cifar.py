"""Reads CIFAR-10 and CIFAR-100 from the pickles in which they are published.

No file can run code: the unpickler builds arrays of numbers and plain values, and nothing else.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.sources.arrays import Pixels, Split
from tapetum.system.strangers import check_pickle, is_regular, short_reason, shown


class _PickledDtype:
    """Stands in for `numpy.dtype`: plain numbers only, no fields, no objects."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self._code = code.decode() if isinstance(code, bytes) else code
        self._order = "|"
        if not re.fullmatch("[biuf][1248]", self._code):
            raise pickle.UnpicklingError(f"it holds an array of {shown(self._code)}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self._order = order.decode() if isinstance(order, bytes) else order

    def to_numpy(self) -> np.dtype[Any]:
        return np.dtype(self._order.replace("|", "=") + self._code)


class _PickledArray:
    """Stands in for `numpy.ndarray`: keeps the pickled state until `to_numpy` checks it."""

    _content: tuple[bytes, _PickledDtype, tuple[int, ...], bool] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, raw = state
        self._content = raw, dtype, shape, is_fortran

    def to_numpy(self) -> npt.NDArray[Any]:
        assert self._content is not None
        raw, dtype, shape, is_fortran = self._content
        return np.frombuffer(raw, dtype=dtype.to_numpy()).reshape(shape, order="F" if is_fortran else "C")


def _reconstruct(*_: Any) -> _PickledArray:
    return _PickledArray()


def _frombuffer(raw: bytes, dtype: _PickledDtype, shape: tuple[int, ...], order: str) -> _PickledArray:
    array = _PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _encode(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {shown(codec)}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,  # protocol 5
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,  # protocol 2 stores bytes this way
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler for dicts, lists, text, numbers and arrays of numbers.

    A name in a file reaches only the stand-ins above. In particular, it does not reach numpy's own code for pickled
    state, which is written in C and trusts its input.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module[:80]}.{name[:80]}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside the file")


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dict of arrays, lists and text, with keys as str; no code in it is run.

    Raises:
        ValueError: the file is damaged, holds anything else, or refers to code.
    """
    try:
        if not is_regular(path):
            raise pickle.UnpicklingError("it is a pipe, a socket or a device")
        file = io.BytesIO(path.read_bytes())
        check_pickle(file)
        file.seek(0)
        content = _ArraysOnly(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dict")
        return {
            key.decode(errors="replace") if isinstance(key, bytes) else str(key): (
                value.to_numpy() if isinstance(value, _PickledArray) else value
            )
            for key, value in content.items()
        }
    except Exception as error:  # damaged pickles raise nearly any type
        raise ValueError(
            f"{path} is not a plain CIFAR batch ({short_reason(error)}): fetch it again from its publisher"
        ) from error


def _cifar_part(path: Path, label_key: str) -> tuple[Pixels, npt.NDArray[np.int64]]:
    content = read_pickle(path)
    data, labels = content.get("data"), content.get(label_key)
    is_batch = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072
    are_labels = isinstance(labels, list) and all(type(label) is int and 0 <= label < 2**31 for label in labels)
    if data is None or labels is None or not is_batch or not are_labels or len(labels) != len(data):
        raise ValueError(f"{path} lacks data (N, 3072) or its N {label_key}: fetch it again from its publisher")
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def is_cifar(folder: Path) -> bool:
    """Return whether a folder holds the Python version of CIFAR-10 or CIFAR-100."""
    return (folder / "batches.meta").is_file() or all((folder / n).is_file() for n in ("meta", "train", "test"))


def read_cifar(folder: Path, split: Split) -> tuple[Pixels, npt.NDArray[np.int64], list[str]]:
    """Read CIFAR-10 (`cifar-10-batches-py`) or CIFAR-100 (`cifar-100-python`), in the published order.

    Returns:
        images (N, 3, 32, 32) uint8, class indices (N,), class names.

    Raises:
        ValueError: a batch is missing or damaged.
    """
    if (folder / "batches.meta").is_file():
        files = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        label_key, meta, names_key = "labels", "batches.meta", "label_names"
    else:
        files, label_key, meta, names_key = [split], "fine_labels", "meta", "fine_label_names"
    classes = read_pickle(folder / meta).get(names_key)
    if not isinstance(classes, list) or not classes or not all(isinstance(name, bytes | str) for name in classes):
        raise ValueError(f"{folder / meta} lacks {names_key}: fetch it again from its publisher")
    parts = [_cifar_part(folder / name, label_key) for name in files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images, labels, [name.decode(errors="replace") if isinstance(name, bytes) else name for name in classes]
