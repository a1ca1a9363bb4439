"""Opens the images to use a run on: to predict, embed or cluster."""

import os
from pathlib import Path
from typing import Any

from tapetum.data.images.decoding import IMAGE_SUFFIXES
from tapetum.data.images.stores import FileStore, Store, shrunk
from tapetum.data.sources.folders import image_names
from tapetum.data.sources.held import find_held, held_in_folder
from tapetum.data.sources.open_source import NO_LABELS, open_test_part
from tapetum.system.addresses import place_of


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
    place = place_of(path) if isinstance(path, (str, os.PathLike)) else None
    if place is not None and (held := find_held(place, "all")):
        return held.store
    given = place if isinstance(place, Path) else None
    if given is not None and given.suffix.lower() in IMAGE_SUFFIXES and given.is_file():
        return FileStore(given.parent, [given.name])
    store = open_test_part(path, NO_LABELS).store
    if (
        given is not None
        and given.is_dir()
        and isinstance(store, FileStore)
        and (store.contents is not None or not os.path.samefile(store.folder, given))
    ):
        if store.contents is not None:
            held = held_in_folder(given, "all")
            return store if held is None else held.store
        return FileStore(given, sorted(image_names(given)))  # train/ and test/ are folders like any others here
    return store
