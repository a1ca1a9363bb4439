"""Labelled images that were added to a run after its training: embedded, in one file of the run folder for each class.

    embeddings (n, D) float32, pictures (n, C, s, s) uint8
    metadata["tapetum"]  JSON: format, class, names and hashes of the images, and the hash of the weights that embedded
                         them, because embeddings by other weights say nothing

Nothing is pickled, so reading a file cannot run code.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.views.apply import evaluation_view
from tapetum.data.views.draw import EvaluationViewConfig
from tapetum.engine.checked_tensors import read_tensors, write_tensors
from tapetum.engine.checkpoint import Checkpoint
from tapetum.evaluation.embedding import Embedder
from tapetum.evaluation.image_chunks import Indices, in_batches, read_chunks

ADDED = "added_classes"
"""Name of their folder inside a run folder."""
_FORMAT = 1
_SIDE = 96  # largest side of a picture, in pixels
_BATCH = 500  # images read at once


@dataclass(frozen=True)
class AddedClass:
    """Images added to one class."""

    label: str
    """The class, one of the training's or a new one."""
    names: tuple[str, ...]
    """n paths of the images, as they were given."""
    hashes: tuple[str, ...]
    """n hashes of their evaluation views."""
    embeddings: Tensor
    """(n, D) float32, of any scale."""
    pictures: Tensor
    """(n, C, s, s) uint8: their evaluation views, made smaller for pages."""

    def __len__(self) -> int:
        return len(self.names)


def joined(parts: Sequence[AddedClass]) -> AddedClass:
    """Join images of one class, in this order."""
    return AddedClass(
        parts[0].label,
        tuple(name for part in parts for name in part.names),
        tuple(digest for part in parts for digest in part.hashes),
        torch.cat([part.embeddings for part in parts]),
        torch.cat([part.pictures for part in parts]),
    )


def weights_digest(checkpoint: Checkpoint) -> str:
    """Hash the weights of a checkpoint."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(checkpoint.part("method").items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_of(view: Tensor) -> str:
    """Hash an image's evaluation view, (C, S, S) uint8; images that the network cannot tell apart have the same."""
    return hashlib.blake2b(view.contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def hashes_of(embedder: Embedder, store: Store, indices: Indices) -> Iterator[tuple[int, str]]:
    """Yield index and hash of each of a store's images that can be read, without embedding them."""
    views = embedder.views
    for chunk in read_chunks(store, in_batches(indices, _BATCH), views.evaluation, len(views.mean)):
        yield from zip(chunk.indices.tolist(), map(hash_of, chunk.pixels))


def picture_of(views: Tensor) -> Tensor:
    """Make (n, C, S, S) uint8 evaluation views at most 96 pixels wide."""
    if views.shape[-1] <= _SIDE or not len(views):
        return views
    return evaluation_view(views, EvaluationViewConfig(crop=_SIDE, resize=_SIDE))


def write_added_class(folder: Path, added: AddedClass, checkpoint: Checkpoint) -> Path:
    """Write a class's images, embedded by a checkpoint, whole or not at all, in place of those written before.

    Raises:
        ValueError: the file cannot be written.
    """
    path = folder / ADDED / f"{quote(os.fsencode(added.label), safe=' ')}.safetensors"
    about = {"format": _FORMAT, "class": added.label, "weights": weights_digest(checkpoint)}
    header = json.dumps({**about, "names": added.names, "hashes": added.hashes})
    tensors = {"embeddings": added.embeddings.contiguous(), "pictures": added.pictures.contiguous()}
    write_tensors(path, tensors, header, "run the same command again")
    return path


def read_added_classes(folder: Path, checkpoint: Checkpoint) -> tuple[AddedClass, ...]:
    """Read all classes that were added to a run, by name.

    Args:
        folder: the run folder.
        checkpoint: holds the weights that the run predicts with.

    Raises:
        ValueError: a file is damaged, is newer than this version, or holds images embedded by other weights.
    """
    paths = sorted((folder / ADDED).glob("*.safetensors"))
    weights = weights_digest(checkpoint) if paths else ""
    return tuple(sorted((_read(path, weights) for path in paths), key=lambda added: added.label))


def added_labels(folder: Path) -> list[str]:
    """Return the names of the classes that were added to a run, or to which images were, without reading them."""
    return [os.fsdecode(unquote_to_bytes(path.stem)) for path in sorted((folder / ADDED).glob("*.safetensors"))]


def _read(path: Path, weights: str) -> AddedClass:
    try:
        tensors, text = read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{error} Then add the class again.") from error
    try:
        about: dict[str, Any] = json.loads(text or "")
        version, label = about["format"], about["class"]
        tensors = {name: tensors[name] for name in ("embeddings", "pictures")}
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not of Tapetum: delete it, and add the class again.") from error
    if version > _FORMAT:
        raise ValueError(f"{path} has format {version}, newer than this Tapetum's {_FORMAT}: update Tapetum.")
    if about["weights"] != weights:
        raise ValueError(
            f"{path} holds images of {label} that other weights embedded, before the run was continued: delete it, and "
            "add the class again."
        )
    return AddedClass(label, tuple(about["names"]), tuple(about["hashes"]), **tensors)


def refuse_added(added: Sequence[AddedClass], embedder: Embedder, store: Store, indices: Indices, test: str) -> None:
    """Refuse to measure accuracy on images that were added to the run, because predictions are based on them.

    Args:
        added: the run's added classes.
        embedder: what reads the images.
        store, indices: the images to measure on.
        test: what errors call them.

    Raises:
        ValueError: some of the images were added.
    """
    classes = {digest: one.label for one in added for digest in one.hashes}
    hashes = hashes_of(embedder, store, indices) if added else ()
    if shared := [(i, classes[digest]) for i, digest in hashes if digest in classes]:
        index, label = shared[0]
        raise ValueError(
            f"test is {test}, but {len(shared)} of its images, such as {store.names[index]}, were added to the run as "
            f"examples of {label}: give other images."
        )
