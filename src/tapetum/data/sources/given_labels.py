"""Labels in the forms that a user gives beside images: a file here or elsewhere, an array, a column, or `none`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tapetum.data.images.stores import Store
from tapetum.data.labels.kept_labels import labels_from_array_file
from tapetum.data.labels.label_files import read_label_file
from tapetum.data.labels.labels import Labels, labels_from_folders, labels_from_values
from tapetum.data.sources.arrays import read_numpy
from tapetum.system.addresses import Address, Place, place_of

NO_LABELS = "none"
"""Value of `labels` to read images only, even if they lie in class folders."""


def is_none(labels: Any) -> bool:
    """Return whether no labels are to be read."""
    return isinstance(labels, str) and labels == NO_LABELS


def is_folder(labels: Any) -> bool:
    """Return whether labels are a folder on this machine."""
    return isinstance(labels, (str, os.PathLike)) and not is_none(labels) and Path(labels).expanduser().is_dir()


def is_same(labels: Any, file: Path) -> bool:
    """Return whether labels are this file on this machine."""
    given = Path(labels).expanduser() if isinstance(labels, (str, os.PathLike)) else None
    return given is not None and given.exists() and given.samefile(file)


def given_labels(labels: Any, store: Store, root: Place | None, own: Callable[[], Labels | None]) -> Labels | None:
    """Read labels in any form that `open_source` takes.

    Args:
        labels: not None.
        store: the images.
        root: where they lie, if they are files.
        own: returns the labels that they come with.

    Raises:
        ValueError: there is no such file, or it is faulty.
        Unreachable: it lies on another machine, which does not answer.
    """
    if is_none(labels):
        return None
    if not isinstance(labels, (str, os.PathLike)):
        return labels_from_values(store.names, labels)
    place, field = place_of(labels), None
    if ":" in place.name and (isinstance(place, Address) or not place.exists()):
        name, _, field = place.name.rpartition(":")
        place = place.parent / name
    if isinstance(place, Path):
        if not place.exists():
            raise ValueError(f"there is no labels file {place}: check the path (current folder: {Path.cwd()})")
        if place.is_dir():
            raise ValueError(f"labels is the folder {place}, but the images are not files: give a .npy file of labels")
        if place.suffix.lower() == ".npy":
            return labels_from_array_file(place, read_numpy(place, "train")[0], store.names, own)
    elif place.suffix.lower() == ".npy":
        raise ValueError(f"labels is {place}, but an array must lie on this machine: copy it, or give a CSV")
    return read_label_file(place, store.names, root, own, field)


def folder_labels(root: Place, names: Sequence[str]) -> Labels:
    """Take labels from folders, with an error that says what else is possible."""
    try:
        return labels_from_folders(names)
    except ValueError as error:
        raise ValueError(
            f"{root}: {error}: make one folder per class, or give a CSV of path,label lines as labels, or "
            f"'{NO_LABELS}' for no labels"
        ) from None
