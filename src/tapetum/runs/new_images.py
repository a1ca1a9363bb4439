"""Opens the images to use a run on: to predict, embed or cluster."""

import os
from pathlib import Path
from typing import Any

from tapetum.data.images.decoding import IMAGE_SUFFIXES
from tapetum.data.images.stores import FileStore, Store, shrunk
from tapetum.data.sources.folders import image_names
from tapetum.data.sources.open_source import NO_LABELS, open_test_part


def open_new_images(path: Any, shrink_to: int | None) -> Store:
    """Open images to predict: all images below a folder, or one file; for other sources, the test part if any.

    Args:
        path: a folder, a file, or any other source.
        shrink_to: `data.shrink_to` of the run, so that images are read as its pool was.

    Raises:
        ValueError: the path does not exist or is not recognised.
    """
    return shrunk(_new_images(path), shrink_to)


def _new_images(path: Any) -> Store:
    given = Path(path).expanduser() if isinstance(path, (str, os.PathLike)) else None
    if given is not None and given.suffix.lower() in IMAGE_SUFFIXES and given.is_file():
        return FileStore(given.parent, [given.name])
    store = open_test_part(path, NO_LABELS).store
    if (
        given is not None
        and given.is_dir()
        and isinstance(store, FileStore)
        and not os.path.samefile(store.root, given)
    ):
        return FileStore(given, sorted(image_names(given)))  # train/ and test/ are folders like any others here
    return store
