"""Reading the array files that data sets are published in: CIFAR pickles, IDX, npz.

None of these readers lets a file run code: pickles go through an unpickler that knows arrays of numbers and nothing
else, and numpy files are opened with `allow_pickle=False`.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Split = Literal["train", "test"]
Pixels = npt.NDArray[np.uint8]


class _PickledDtype:
    """Stands in for `numpy.dtype`: plain numbers only, no fields, no objects."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self._code = code.decode() if isinstance(code, bytes) else code
        self._order = "|"
        if not re.fullmatch("[biuf][1248]", self._code):
            raise pickle.UnpicklingError(f"it holds an array of {self._code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self._order = order.decode() if isinstance(order, bytes) else order

    def to_numpy(self) -> np.dtype[Any]:
        return np.dtype(self._order.replace("|", "=") + self._code)


class _PickledArray:
    """Stands in for `numpy.ndarray`: keeps what the pickle says until `to_numpy` has checked it."""

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
        raise pickle.UnpicklingError(f"it asks for the codec {codec}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,  # protocol 5
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,  # how protocol 2 spells bytes
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler for dicts, lists, text, numbers and arrays of numbers.

    No name in a file reaches anything but the stand-ins above, numpy's own reading of pickled state (in C, and
    trusting) included.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside the file")


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dict of arrays, lists and text, keys as str; no code in it is run.

    Raises:
        ValueError: the file is damaged, holds anything else, or asks for code.
    """
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dict")
        return {
            key.decode() if isinstance(key, bytes) else str(key): (
                value.to_numpy() if isinstance(value, _PickledArray) else value
            )
            for key, value in content.items()
        }
    except Exception as error:  # damaged pickles raise nearly any type
        raise ValueError(
            f"{path} is not a plain CIFAR batch ({error or type(error).__name__}): fetch it again from its publisher"
        ) from error


def _cifar_part(path: Path, label_key: str) -> tuple[Pixels, npt.NDArray[np.int64]]:
    content = read_pickle(path)
    data, labels = content.get("data"), content.get(label_key)
    is_batch = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072
    if data is None or not is_batch or not isinstance(labels, list) or len(labels) != len(data):
        raise ValueError(f"{path} lacks data (N, 3072) or its N {label_key}: fetch it again from its publisher")
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def is_cifar(folder: Path) -> bool:
    """Whether a folder holds the Python version of CIFAR-10 or CIFAR-100."""
    return (folder / "batches.meta").is_file() or all((folder / n).is_file() for n in ("meta", "train", "test"))


def read_cifar(folder: Path, split: Split) -> tuple[Pixels, npt.NDArray[np.int64], list[str]]:
    """CIFAR-10 (`cifar-10-batches-py`) or CIFAR-100 (`cifar-100-python`), in the published order.

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
    if not isinstance(classes, list) or not classes:
        raise ValueError(f"{folder / meta} lacks {names_key}: fetch it again from its publisher")
    parts = [_cifar_part(folder / name, label_key) for name in files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images, labels, [name.decode() if isinstance(name, bytes) else str(name) for name in classes]


_IDX_NAMES = {"train": ("train",), "test": ("t10k", "test")}


def find_idx(folder: Path, split: Split) -> tuple[Path, Path] | None:
    """The image and label file of a split (`train-images-idx3-ubyte`, `.gz` or not), or None.

    Raises:
        ValueError: several files could be meant, or the labels are missing.
    """
    for prefix in _IDX_NAMES[split]:
        found: dict[str, list[Path]] = {}
        for part, dims in (("images", "idx3"), ("labels", "idx1")):
            files = sorted(folder.glob(f"*{prefix}-{part}?{dims}-ubyte")) or sorted(
                folder.glob(f"*{prefix}-{part}?{dims}-ubyte.gz")
            )
            found[part] = files
        if len(found["images"]) == 1 and len(found["labels"]) == 1:
            return found["images"][0], found["labels"][0]
        if found["images"]:
            names = ", ".join(path.name for path in (*found["images"], *found["labels"]))
            raise ValueError(f"{folder} must hold one IDX file of {split} images and one of labels, not {names}")
    return None


def read_idx(path: Path) -> Pixels:
    """An IDX file of unsigned bytes, gzipped or not (format: yann.lecun.com/exdb/mnist).

    Raises:
        ValueError: damaged, of another type, or of another length than its header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it again from its publisher") from error
    header = 4 + 4 * raw[3] if len(raw) >= 4 else 4
    if len(raw) < header or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: fetch it again from its publisher")
    shape = tuple(np.frombuffer(raw[4:header], dtype=">u4").astype(int).tolist())
    if len(raw) - header != math.prod(shape):
        raise ValueError(f"{path} has {len(raw) - header} bytes of data where its header says {shape}: fetch it again")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


_NPZ_KEYS = (
    ("{split}_images", "{split}_labels"),  # MedMNIST
    ("x_{split}", "y_{split}"),  # Keras
    ("images", "labels"),
    ("x", "y"),
)


def read_numpy(path: Path, split: Split) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Images and, where there are any, labels of a .npy or .npz file.

    A .npz holds `images` (and `labels`), `x` (and `y`), or one such pair per split: `train_images`, `train_labels`,
    `x_train`, `y_train`, and so on.

    Raises:
        ValueError: damaged, pickled objects inside, none of these names, or no such split.
    """
    try:
        content = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        if isinstance(content, np.ndarray):
            arrays: Mapping[str, npt.NDArray[Any]] = {"images": content}
        else:
            with content:
                arrays = {key: content[key] for key in content.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): save plain numeric arrays with numpy.save or numpy.savez"
        ) from error
    return named_arrays(arrays, split, str(path))


def named_arrays(
    arrays: Mapping[str, npt.NDArray[Any]], split: Split, where: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Images and labels of a split, by the names that `read_numpy` lists; `where` is what errors call them.

    Raises:
        ValueError: none of these names, or no such split.
    """
    for images_key, labels_key in _NPZ_KEYS:
        images = arrays.get(images_key.format(split=split))
        if images is None:
            continue
        if "split" not in images_key and split == "test":
            raise ValueError(f"{where} has no test part: it holds {', '.join(arrays)}; name one x_test, y_test")
        return images, arrays.get(labels_key.format(split=split))
    raise ValueError(f"{where} holds {', '.join(arrays) or 'nothing'}: name the arrays images and labels")
