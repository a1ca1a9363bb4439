"""Adds labelled images to an exported ONNX file, and with them classes: no training, no torch graph, a few new rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.interchange.exports.onnx import METADATA_KEY, ONNX_FORMAT, checked, package
from tapetum.system.files import whole_file

_INITIALIZERS = ("supports", "support_labels", "class_numbers")


def add_supports(
    path: str | Path,
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    names: Sequence[str] = (),
) -> Path:
    """Add labelled images, also of new classes, to a file that `export_onnx` wrote.

    Args:
        path: the file; it is replaced, whole or not at all.
        embeddings: (n, D) of any scale: the file's own output `embedding` for the new images.
        labels: (n,) their classes as indices into `classes`.
        classes: the names of all classes: those of the file in their order, and after them the new ones.
        names: n names of the images for the metadata; without them they are called "added 0" and so on.

    Returns:
        The path written.

    Raises:
        ValueError: onnx is not installed, the file does not predict by supports, or the arguments do not fit it.

    Example:
        >>> from tapetum.interchange.exports.onnx_supports import add_supports
        >>> add_supports("birds.onnx", embeddings, [3] * 10, ["crow", "jay", "rook", "heron"])  # doctest: +SKIP
    """
    path, helper = Path(path), package("onnx").numpy_helper
    proto, metadata = _read(path)
    known = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.name in _INITIALIZERS}
    if len(known) < len(_INITIALIZERS):
        raise ValueError(f"{path} does not predict by labelled images, so none can be added: train with their labels.")
    rows, numbers = np.asarray(embeddings, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    supports, support_labels = (helper.to_array(known[name]) for name in _INITIALIZERS[:2])
    _check(rows, numbers, supports.shape[1], list(classes), metadata["classes"], names)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)  # as torch's normalize
    new = (np.concatenate([supports, rows]), np.concatenate([support_labels, numbers]), np.arange(len(classes)))
    for name, values in zip(_INITIALIZERS, new):
        known[name].CopyFrom(helper.from_array(values.astype(helper.to_array(known[name]).dtype), name))
    metadata["classes"] = list(classes)
    metadata["support_names"] += list(names) or [f"added {i}" for i in range(len(rows))]
    content = checked(proto, metadata)
    with whole_file(path) as partial:
        partial.write_bytes(content)
    return path


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """Read a file and its metadata."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give one that `tapetum export` wrote.")
    try:
        proto = package("onnx").load_model_from_string(path.read_bytes())
        metadata = json.loads({entry.key: entry.value for entry in proto.metadata_props}[METADATA_KEY])
    except (KeyError, ValueError, package("google.protobuf.message").DecodeError) as error:
        raise ValueError(f"{path} is no ONNX file of Tapetum: give one that `tapetum export` wrote.") from error
    if metadata["format"] > ONNX_FORMAT:
        raise ValueError(
            f"{path} has format {metadata['format']}, newer than this Tapetum's {ONNX_FORMAT}: update Tapetum."
        )
    return proto, metadata


def _check(
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    width: int,
    classes: list[str],
    before: list[str],
    names: Sequence[str],
) -> None:
    """Check that the arguments of `add_supports` fit each other and the file."""
    if rows.ndim != 2 or rows.shape[1] != width or len(rows) == 0 or not np.isfinite(rows).all():
        raise ValueError(f"embeddings has the shape {rows.shape}: give (n, {width}) finite numbers, n at least 1.")
    if labels.shape != (len(rows),) or (names and len(names) != len(rows)):
        raise ValueError(f"there are {len(labels)} labels and {len(names)} names for {len(rows)} images: one for each.")
    if classes[: len(before)] != before or len(set(classes)) != len(classes):
        raise ValueError(f"classes is {classes}: begin with the file's own, {before}, and name others once each.")
    if not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"labels span {labels.min()} to {labels.max()}: use 0 to {len(classes) - 1}.")
