"""`tapetum labels`: write labels, and what a model predicts, in the formats of labelling tools and data sets."""

import difflib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tapetum.data.images.decoding import UnreadableImage, header_size
from tapetum.data.images.stores import FileStore
from tapetum.data.label_formats.entries import Item
from tapetum.data.label_formats.formats import WRITERS, Write
from tapetum.data.label_formats.label_studio import interface
from tapetum.data.label_formats.predictions import read as read_predictions
from tapetum.data.labels.label_files import labels_in
from tapetum.data.labels.labels import NONE_OF_THESE, Labels
from tapetum.data.labels.name_matcher import NameMatcher
from tapetum.data.sources.open_source import open_source
from tapetum.data.sources.save_source import is_path
from tapetum.methods.registry import load_plugins
from tapetum.recipe.files import RECIPE
from tapetum.runs.places import located, moved_to
from tapetum.runs.run_folder import open_run_folder
from tapetum.system.checksums import refuse_changed
from tapetum.system.files import refuse_taken, sole_writing, write_text
from tapetum.system.notices import notify

_LABEL_STUDIO = "label-studio"
_TELL_SIZES = ("cvat", "coco")
_USAGE = {
    "label-studio": "Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={above}; in a new project, add {root} as local storage, paste {interface} "
    "as the labelling interface, and import {file}.",
    "cvat": "In CVAT, make a task of these images with the labels of {file}, and upload it as 'CVAT 1.1'.",
    "coco": "In Python: pycocotools.coco.COCO({file!r})",
    "fiftyone": "In Python: fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneImageClassificationDataset, "
    "data_path={root!r}, labels_path={file!r})",
    "imagefolder": "In Python: datasets.load_dataset('imagefolder', data_dir={folder!r})",
}
"""Format -> how its tool reads the file."""


def labels(
    labels: Any,
    output: str | Path,
    format: str,
    images: Any = None,
    predictions: str | Path | None = None,
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the labels of a folder of images in the format of another tool, which `fit` reads, too.

    Before the file gets its name, it is read back, and its labels are compared with the given ones.

    Args:
        labels: in any form that `fit` takes, "none" for no labels, or the folder of a run, for its images and labels.
        output: the new file. For "imagefolder", metadata.jsonl or metadata.csv in the folder of images, or above it.
        format: one of `tapetum.data.label_formats.formats.WRITERS`.
        images: their folder, or another source of image files; None for those of the run, or for class folders that are
            given as labels.
        predictions: a table that `predict` wrote for these images. Only Label Studio keeps them apart from labels.
        plugins: modules to import first; they register methods, of which a run may be.

    Returns:
        `images` (their number), `labels` (number of images of each class) and `predictions` (their number).

    Raises:
        ValueError: faulty labels, images or predictions; no such format; the format cannot hold the labels; the file
            exists or cannot be written.

    Example:
        >>> import tapetum
        >>> counts = tapetum.labels("labels.csv", "tasks.json", "label-studio", images="photos")  # doctest: +SKIP
    """
    load_plugins(plugins)
    path = Path(output)
    write = _writer(path, format)
    if predictions is not None and format != _LABEL_STUDIO:
        raise ValueError(f"{format} would take predictions for labels: use the format {_LABEL_STUDIO} for predictions.")
    store, known = _opened(labels, images)
    class_of = _class_of(known, len(store))
    counts = {name: class_of.count(name) for name in _classes(known)}
    predicted = {} if predictions is None else _predicted(Path(predictions), store)
    sizes = _sizes(store) if format in _TELL_SIZES else {}
    names = _beside(store, path) if format == "imagefolder" else store.names
    items = [Item(name, class_of[i], sizes.get(i), predicted.get(i)) for i, name in enumerate(names)]
    try:
        _refuse_bytes(names)
        text = write(items, list(counts), store.folder.resolve().name)
        _compare(text, path, store, class_of)
    except ValueError as error:
        raise ValueError(f"{format} cannot hold these labels: {error}.") from None
    with sole_writing(path):
        _writer(path, format)  # refuses what somebody else has written meanwhile
        if format == _LABEL_STUDIO:
            further = sorted({label for label, _ in predicted.values()} - set(counts))
            _write_interface(_interface_of(path), interface([*counts, *further]))
        write_text(path, text)
    _tell(path, format, store, sum(counts.values()), len(predicted))
    return {"images": len(store), "labels": counts, "predictions": len(predicted)}


def _writer(path: Path, format: str) -> Write:
    """Return what writes a format, if the file is new, and will be recognised by its name when it is read."""
    if format not in WRITERS:
        near = difflib.get_close_matches(format, WRITERS, n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"format is {format!r}{hint}: use one of {', '.join(WRITERS)}.")
    suffixes = WRITERS[format]
    if format == "imagefolder" and path.stem != "metadata":
        raise ValueError(f"{path} would not be found beside images: call it metadata.jsonl or metadata.csv.")
    if path.suffix not in suffixes:
        raise ValueError(f"{path} would not be recognised as {format}: let its name end in {' or '.join(suffixes)}.")
    refuse_taken(path)
    return suffixes[path.suffix]


def _write_interface(path: Path, text: str) -> None:
    """Write it before the labels, so that a command that was killed in between can be repeated."""
    if not (path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text):
        refuse_taken(path)
        write_text(path, text)


def _interface_of(path: Path) -> Path:
    return path.with_suffix(".config.xml")


def _opened(labels: Any, images: Any) -> tuple[FileStore, Labels | None]:
    if is_path(labels) and (Path(labels) / RECIPE).is_file():
        folder, recipe = open_run_folder(labels)
        data = located(folder, recipe, moved_to(images if is_path(images) else None)).data
        labels, images = data.labels, data.images if images is None else images
    elif images is None:
        if not is_path(labels) or not Path(labels).is_dir():
            raise ValueError(f"{labels} does not come with images: give their folder as --images.")
        labels, images = None, labels
    source = open_source(images, labels)
    if not isinstance(source.store, FileStore):
        raise ValueError(f"{images} are not image files, which other tools need: save them as files first.")
    return source.store, source.labels


def _classes(known: Labels | None) -> Sequence[str]:
    """Return the classes, and what images of none of them are labelled with, if there are any."""
    if known is None:
        return ()
    return (*known.classes, NONE_OF_THESE) if known.none.size else known.classes


def _class_of(known: Labels | None, count: int) -> list[str | None]:
    if known is None:
        return [None] * count
    class_of = [known.classes[value] if value >= 0 else None for value in known.values.tolist()]
    for image in known.none.tolist():
        class_of[image] = NONE_OF_THESE
    return class_of


def _predicted(table: Path, store: FileStore) -> dict[int, tuple[str, float | None]]:
    """Read the label and the confidence predicted for each image."""
    try:
        refuse_changed(table)
        text = table.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ValueError(f"predictions {table} cannot be read ({error.strerror}): check the path.") from error
    matcher = NameMatcher(store.names, store.root, table.parent)
    predicted: dict[int, tuple[str, float | None]] = {}
    try:
        for place, name, label, confidence in read_predictions(text):
            try:
                predicted[matcher.find(name, "name")] = label, confidence
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{table}, {error}.") from None
    return predicted


def _sizes(store: FileStore) -> dict[int, tuple[int, int]]:
    """Read (width, height) of each image from its header; those that cannot be read have none."""
    sizes, problems = {}, []
    for i, path in enumerate(store.paths):
        try:
            height, width = header_size(path)
        except UnreadableImage as error:
            problems.append(str(error))
            continue
        sizes[i] = width, height
    if problems:
        notify(f"{len(problems)} images have no size in the file, because they cannot be read: {problems[0]}")
    return sizes


def _beside(store: FileStore, path: Path) -> list[str]:
    """Return the images' paths relative to the folder of a file."""
    folder = os.path.relpath(store.folder, path.parent)
    if folder.startswith(".."):  # links may lead into it
        folder = os.path.relpath(os.path.realpath(store.folder), os.path.realpath(path.parent))
    names = [Path(os.path.normpath(os.path.join(folder, name))).as_posix() for name in store.names]
    outside = next((name for name in names if name.startswith("../")), None)
    if outside is not None:
        raise ValueError(f"{path} does not lie above the image {outside}: write it into the folder of images.")
    return names


def _refuse_bytes(names: Sequence[str]) -> None:
    for name in names:
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ValueError(f"the name {name!r} is not text in UTF-8: rename the image") from None


def _compare(text: str, path: Path, store: FileStore, class_of: Sequence[str | None]) -> None:
    """Refuse a text from which other labels would be read."""
    if not any(class_of):
        return
    read = _class_of(labels_in(text.encode(), path, store.names, store.root), len(store))
    for name, given, found in zip(store.names, class_of, read, strict=True):
        if given != found:
            raise ValueError(f"the label {given!r} of {name!r} would be read as {found!r}: rename class or image")


def _tell(path: Path, format: str, store: FileStore, num_labels: int, num_predictions: int) -> None:
    predicted = f" and {num_predictions} predictions" if num_predictions else ""
    print(f"Wrote {num_labels} labels{predicted} of {len(store)} images as {format}: {path}")
    root = store.folder.resolve()
    if format in _USAGE:
        told = {"file": str(path), "folder": str(path.parent), "root": str(root), "above": str(root.parent)}
        print(_USAGE[format].format(**told, interface=_interface_of(path)))
    print(f"Next: {shlex.join(['tapetum', 'check', str(store.folder), '--labels', str(path)])}")
