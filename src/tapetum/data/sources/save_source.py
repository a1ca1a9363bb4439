"""Writes data that the caller passed in memory to files, because a run can only be resumed from data on disk."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tapetum.data.images.stores import ArrayStore, FileStore, Store
from tapetum.data.label_formats.rows import safe_class
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.data.sources.open_source import Source
from tapetum.system.files import writing


def is_path(thing: Any) -> bool:
    """Return whether something names a file or folder, rather than being the data itself."""
    return isinstance(thing, (str, os.PathLike))


def save_source(source: Source, folder: Path) -> str:
    """Write a source, labels included, so that `open_source` can reopen it with the images in the same order.

    Args:
        source: arrays are saved as .npz, files are listed in a CSV, and table rows become PNG files listed in a CSV.
        folder: where to write; created if missing. Files that this function wrote there before are replaced.

    Returns:
        Path of the file to open.

    Raises:
        ValueError: an image cannot be read, or the folder cannot be written, e.g. because the disk is full.
    """
    with writing(folder):
        return _save(source, folder)


def _save(source: Source, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    labels = source.labels
    classes = None
    if labels is not None:
        classes = [labels.classes[value] if value >= 0 else "" for value in labels.values]
        for i in labels.none:
            classes[i] = NONE_OF_THESE
    if isinstance(source.store, ArrayStore):
        images = source.store.read(np.arange(len(source.store))).numpy()
        if classes is None:
            np.savez(folder / "images.npz", images=images)
        else:
            np.savez(folder / "images.npz", images=images, labels=np.array(classes))
        return str(folder / "images.npz")
    if isinstance(source.store, FileStore):
        paths = [os.path.abspath(path) for path in source.store.paths]
    else:
        paths = _save_rows(source.store, folder)
    with (folder / "images.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label"))
        writer.writerows((path, "" if classes is None else safe_class(classes[i])) for i, path in enumerate(paths))
    return str(folder / "images.csv")


def _save_rows(store: Store, folder: Path) -> list[str]:
    """Write the images as PNG files into the folder; return the file names."""
    names = [f"{i:08}.png" for i in range(len(store))]
    for i, name in enumerate(names):
        (image,) = store.read(np.array([i]))
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
    return names
