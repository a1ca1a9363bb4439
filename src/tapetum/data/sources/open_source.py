"""Opens what a user points at as a store and its labels.

`open_source` recognises, in this order: data in memory (tables, lists of paths, arrays); "digits"; addresses and
archives (see `tapetum.data.sources.held`); a file of paths, arrays or SVHN; a folder with CIFAR batches; one with SVHN
or IDX files; one of archives; one with `train/` and `test/` (or `val/`) folders; one that another tool exported; any
other folder of images.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.images.decoding import IMAGE_SUFFIXES
from tapetum.data.images.stores import ArrayStore, FileStore, Store
from tapetum.data.labels.label_files import read_lines
from tapetum.data.labels.labels import Labels, labels_from_names, labels_from_values
from tapetum.data.sources.arrays import NoTestPart, Split, as_channels_first, named_arrays, read_numpy
from tapetum.data.sources.cifar import is_cifar, read_cifar
from tapetum.data.sources.digits import read_digits
from tapetum.data.sources.exported import find_exported
from tapetum.data.sources.folders import image_names, with_labelled_folder
from tapetum.data.sources.given_labels import NO_LABELS as NO_LABELS  # (others import it from here)
from tapetum.data.sources.given_labels import folder_labels, given_labels, is_folder, is_none, is_same
from tapetum.data.sources.held import TEST_NAMES, Held, find_held, held_in_folder
from tapetum.data.sources.idx import find_idx, read_idx
from tapetum.data.sources.image_lists import listed_files, read_listing
from tapetum.data.sources.svhn import find_mat, read_mat
from tapetum.data.sources.tables import images_of_table, is_table, label_column, labels_of_table
from tapetum.system.addresses import Place, place_of
from tapetum.system.strangers import short_reason


@dataclass(frozen=True)
class Source:
    """A pool of images, its labels, and a line about both for the log."""

    store: Store
    labels: Labels | None
    """Labels over all images of the store; None if nothing is labelled."""
    description: str
    """e.g. "50000 images of 32x32 pixels, 10 classes, from cifar-10-batches-py (train)"."""


def open_source(
    path: Any,
    labels: Any = None,
    split: Split = "train",
) -> Source:
    """Open a pool of images.

    Args:
        path: one of
            - a folder of class folders (`cat/1.jpg`), where images outside class folders are unlabelled; a folder of
              images without class folders; or a folder of images, nested in any way, with a CSV as `labels`;
            - a folder with one of these in `train/` and one in `test/` (or `val/`);
            - a zip, tar or Parquet file, `shards/{000..012}.tar`, a folder of such files, or an address such as
              `s3://bucket/folder` (see `tapetum.data.sources.held` and docs/sources.md);
            - a data set that FiftyOne, CVAT or Hugging Face wrote (see `tapetum.data.sources.exported`);
            - `cifar-10-batches-py` or `cifar-100-python`, or the folder that holds it;
            - a folder of IDX files (MNIST, Fashion-MNIST), gzipped or not;
            - SVHN's `train_32x32.mat` and `test_32x32.mat`, or the folder that holds them;
            - a .npy or .npz file (see `tapetum.data.sources.arrays.read_numpy`);
            - a .txt file of one path per line, absolute or relative to that file; or a list of paths;
            - a .csv file of `path` or `path,label` lines, where the label may be empty;
            - "digits": scikit-learn's 1,797 grey images of 8x8 pixels, scaled to 0..255: 50 of each digit, always the
              same ones, are "test", the other 1,297 are "train". For a folder of that name, write "./digits";
            - uint8 arrays: (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels;
            - a data frame or a Hugging Face data set with a column of images or of their paths (see
              `tapetum.data.sources.tables`);
            - a dict of arrays, named as in a .npz file, or of tables, named "train" and "test".
        labels: a file of paths and labels (see `tapetum.data.labels.label_files`), as FILE:FIELD if several of its
            fields may hold the labels; a .txt list of names or indices, or a .npy file of indices, of the images that
            keep their own labels (see `tapetum.data.labels.kept_labels`); for image files also a folder of class
            folders, whose images join the pool (see `tapetum.data.sources.folders`); an array or a .npy file, one
            integer or string per image; the name of a table's column, or ":NAME" for one of a Parquet file; an address
            of a file; "none" to read no labels; None for the labels that come with the images.
        split: which part, if the source has two. A source without parts is all "train" and has no "test".

    Raises:
        ValueError: the source does not exist, is not recognised or lacks the split, or labels are wrong; names the fix.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: choose 'train' or 'test'")
    if not isinstance(path, (str, os.PathLike)):
        return _from_memory(path, labels, split)
    if os.fspath(path) == "digits":
        return _from_arrays(*read_digits(split), labels, f"scikit-learn's digits ({split})")
    place = place_of(path)
    if held := find_held(place, split):
        return _from_held(held, place, labels)
    assert isinstance(place, Path)
    if not place.exists():
        raise ValueError(f"there is nothing at {place}: check the path (current folder: {Path.cwd()})")
    return _from_folder(place, labels, split) if place.is_dir() else _from_file(place, labels, split)


def open_test_part(path: Any, labels: Any = None) -> Source:
    """The test part of a source, or all of a source that has no parts; the arguments are those of `open_source`.

    Raises:
        ValueError: nothing there, or a damaged test part.
    """
    try:
        return open_source(path, labels, "test")
    except NoTestPart:  # no other error: where a test part is damaged, the rest is what was trained on
        return open_source(path, labels)


def _from_memory(given: Any, labels: Any, split: Split) -> Source:
    if isinstance(given, Mapping):
        if not all(is_table(table) for table in given.values()):
            arrays = {str(key): np.asarray(value) for key, value in given.items()}
            return _from_arrays(*named_arrays(arrays, split, "the dict"), labels, "arrays in memory")
        if split not in given:
            raise (NoTestPart if split == "test" else ValueError)(
                f"the dict has no {split} part; it holds {', '.join(map(str, given)) or 'nothing'}: name one {split}"
            )
        given = given[split]
    else:
        _only_train(split, "the data in memory")
    if is_table(given):
        return _from_table(given, labels)
    if isinstance(given, (list, tuple)) and given and all(isinstance(path, (str, os.PathLike)) for path in given):
        store = listed_files(((f"image {i} of the list", path) for i, path in enumerate(given)), Path.cwd())
        return _labelled_files(store, labels, "a list of paths")
    return _from_arrays(np.asarray(given), None, labels, "an array in memory")


def _from_table(table: Any, labels: Any) -> Source:
    store = images_of_table(table)
    column = None if is_none(labels) else label_column(table, labels)

    def own() -> Labels | None:
        own_column = column or label_column(table, None)
        return None if own_column is None else labels_from_names(store.names, labels_of_table(table, own_column))

    root = store.root if isinstance(store, FileStore) else None
    known = own() if column or labels is None else given_labels(labels, store, root, own)
    return Source(store, known, _describe(store, known, "a table in memory"))


def _from_held(held: Held, place: Place, labels: Any) -> Source:
    if isinstance(labels, str) and labels.startswith(":"):
        known = held.own(labels[1:])
    elif labels is None or (isinstance(labels, (str, os.PathLike)) and place_of(labels) == place):
        known = held.own()
    else:
        known = given_labels(labels, held.store, held.beside, held.own)
    return Source(held.store, known, _describe(held.store, known, held.described))


def _from_file(path: Path, labels: Any, split: Split) -> Source:
    ending = path.suffix.lower()
    if ending == ".txt":
        _only_train(split, str(path))
        lines = read_lines(path, "list of images")
        store = listed_files(((f"{path}, line {number}", text) for number, text in lines), path.parent)
        return _labelled_files(store, labels, path.name)
    if ending == ".csv":
        _only_train(split, str(path))
        listed, known = read_listing(path)
        if labels is not None:
            known = given_labels(labels, listed, listed.root, lambda: known)
        return Source(listed, known, _describe(listed, known, path.name))
    if ending == ".mat":
        _only_train(split, str(path))
        return _from_arrays(*read_mat(path), labels, path.name)
    if ending not in (".npy", ".npz"):
        raise ValueError(
            f"{path} is a file: give a folder of images, a .txt or .csv of their paths, or arrays as .npy or .npz"
        )
    if ending == ".npy":
        _only_train(split, str(path))
    return _from_arrays(*read_numpy(path, split), labels, path.name)


def _from_folder(path: Path, labels: Any, split: Split) -> Source:
    if is_folder(labels) and Path(labels).expanduser().samefile(path):
        labels = None
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-100-python"):
        if is_cifar(folder):
            images, values, classes = read_cifar(folder, split)
            return _from_arrays(images, values, labels, f"{folder.name} ({split})", classes)
    if mat := find_mat(path, split):
        return _from_arrays(*read_mat(mat), labels, mat.name)
    for folder in (path, path / "raw"):
        if files := find_idx(folder, split):
            return _from_arrays(read_idx(files[0]), read_idx(files[1]), labels, files[0].name)
    if held := held_in_folder(path, split):
        return _from_held(held, path, labels)
    root, described = path, path.name or str(path)
    parts = {name.lower(): path / name for name in _folders_in(path)}
    tests = [parts[name] for name in TEST_NAMES if name in parts]
    if "train" in parts and tests:
        root = parts["train"] if split == "train" else tests[0]
        described = f"{described}/{root.name}"
    else:
        _only_train(split, f"folder {path}")
    if is_folder(labels) and Path(labels).expanduser().samefile(root):
        labels = None
    found = find_exported(root)
    if found and (labels is None or is_same(labels, found[1])):
        root, labels = found
    return _from_files(root, labels, described)


def _folders_in(path: Path) -> list[str]:
    """Names of folders; of names that differ in capitals alone, the one in small letters is the last."""
    with os.scandir(path) as found:
        return sorted(one.name for one in found if one.is_dir())


def _only_train(split: Split, what: str) -> None:
    if split == "test":
        raise NoTestPart(f"{what} has no test part: put images into folders train/ and test/, or name a test source")


def _from_arrays(
    images: npt.NDArray[Any],
    values: npt.NDArray[Any] | None,
    labels: Any,
    described: str,
    classes: Sequence[str] | None = None,
) -> Source:
    try:
        store = ArrayStore(as_channels_first(images))
    except ValueError as error:
        raise ValueError(f"{described}: {error}") from None

    def own() -> Labels | None:
        try:
            return None if values is None else labels_from_values(store.names, values, classes)
        except ValueError as error:
            raise ValueError(f"{described}: {short_reason(error)}") from None

    known = own() if labels is None else given_labels(labels, store, None, own)
    return Source(store, known, _describe(store, known, described))


def _from_files(root: Path, labels: Any, described: str) -> Source:
    names = sorted(image_names(root))
    if not names:
        if held := held_in_folder(root, "all"):
            return _from_held(held, root, labels)
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"there are no images in {root}: put some there (recognised: {kinds})")
    return _labelled_files(FileStore(root, names), labels, described)


def _labelled_files(store: FileStore, labels: Any, described: str) -> Source:
    known: Labels | None
    if is_folder(labels) and (exported := find_exported(Path(labels).expanduser())):
        labels = exported[1]
    if is_folder(labels):
        names, known = with_labelled_folder(Path(labels).expanduser(), store.folder, store.names)
        # With links resolved, because names may begin with "../".
        store = FileStore(Path(os.path.realpath(store.folder)), names)
        return Source(store, known, _describe(store, known, described))

    def own() -> Labels | None:
        return folder_labels(store.root, store.names) if any("/" in name for name in store.names) else None

    known = own() if labels is None else given_labels(labels, store, store.root, own)
    return Source(store, known, _describe(store, known, described))


def _describe(store: Store, labels: Labels | None, described: str) -> str:
    # Not for files: their image_size would read every header just for a log line.
    size = "{}x{} pixels, ".format(*store.image_size) if isinstance(store, ArrayStore) and store.image_size else ""
    text = f"{len(store)} images of {size}" if size else f"{len(store)} images, "
    if labels is None:
        return f"{text}no labels, from {described}"
    num_labelled = len(labels.labelled)
    some = "" if num_labelled == len(store) else f", {num_labelled} labelled"
    return f"{text}{labels.num_classes} classes{some}, from {described}"
