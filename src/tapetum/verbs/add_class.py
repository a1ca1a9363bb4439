"""`tapetum add-class`: give a trained run another class, or more examples of one, without training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tapetum.data.images.stores import FileStore
from tapetum.data.label_formats.entries import composed, is_printable
from tapetum.data.labels.labels import NONE_OF_THESE, sorted_classes
from tapetum.data.sources.folders import image_names
from tapetum.runs.added_classes import ADDED, AddedClass, hash_of, hashes_of, joined, picture_of, write_added_class
from tapetum.runs.places import moved_to
from tapetum.runs.run_folder import open_run_folder
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.system.files import sole_writing
from tapetum.system.notices import notify

_SHOWN_CLASSES = 20


def add_class(
    run: str | Path,
    folder: str | Path,
    name: str | None = None,
    plugins: Sequence[str] = (),
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
) -> dict[str, Any]:
    """Add labelled images of one class to a run that predicts by its labelled images; nothing is trained.

    The images are embedded by the run's network and kept in the run's folder. From then on they are supports like those
    of the training, and `predict`, `evaluate`, `report`, `plot` and `export` know the class.

    Args:
        run: the run's folder; its last checkpoint is used, or its best one with `trainer.keep_best`.
        folder: all images below it are examples of the class.
        name: the class; None for the folder's name. If the run knows the class, it gets more examples; blanks around
            the name, and how its accents are stored, make no other class.
        plugins: modules to import first; they register methods.
        images, labels: where the run's own images and labels are now, if they have been moved.

    Returns:
        `class`, `is_new`, `added` (number of images), `known` (images that are labelled so already or are given twice,
        and are not added again), `unreadable`, `classes` (all of the run's classes).

    Raises:
        ValueError: there is no run folder, the run predicts by a classifier, there are no images to add, or one of them
            is labelled as another class.

    Example:
        >>> import tapetum
        >>> result = tapetum.add_class("runs/first", "photos/heron")  # doctest: +SKIP
    """
    open_run_folder(run)
    with sole_writing(Path(run) / ADDED):  # what is added is read, and written with more
        trained = open_trained_run(run, plugins, needs_labels=False, moved=moved_to(images, labels))
        return _added(trained, Path(folder), name)


def _added(trained: TrainedRun, folder: Path, name: str | None) -> dict[str, Any]:
    if trained.predicts_by == "classifier":
        raise ValueError(
            f"{trained.folder} predicts by a classifier, which knows only the classes that it was trained on: train "
            f"with labels of the new class, for example by `tapetum fit --init {trained.folder}`."
        )
    label = _class_named(folder.resolve().name if name is None else name, trained.classes)
    store = _open(folder, trained.parts.recipe.data.shrink_to)
    new, unreadable = _embedded(trained, store, folder, label)
    if new:
        earlier = [images for images in trained.added if images.label == label]
        write_added_class(trained.folder, joined([*earlier, *new]), trained.checkpoint)
    added = sum(map(len, new))
    result = {
        "class": label,
        "is_new": label not in trained.classes,
        "added": added,
        "known": len(store) - unreadable - added,
        "unreadable": unreadable,
        "classes": sorted_classes([*trained.classes, label]),
    }
    _tell(result, trained, [*trained.added, *new])
    return result


def _class_named(name: str, classes: Sequence[str]) -> str:
    """Return the class of this name, whatever the blanks around it and however its accents are stored; else a new one.

    Raises:
        ValueError: the name can be no class.
    """
    plain = composed(name.strip())
    shows = is_printable(plain.encode(errors="replace").decode())  # it need not be UTF-8
    if not plain or plain == NONE_OF_THESE or not shows:  # the second stands for images of no class
        raise ValueError(f"name is {name!r}, which cannot be a class: give --name NAME.")
    return name if name in classes else next((c for c in classes if composed(c.strip()) == plain), plain)


def _open(folder: Path, shrink_to: int | None) -> FileStore:
    """Open all images below a folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the folder that holds the images of the class.")
    names = sorted(image_names(folder))
    if not names:
        raise ValueError(f"there are no images in {folder}: give the folder that holds the images of the class.")
    return FileStore(folder, names, shrink_to)


def _embedded(trained: TrainedRun, store: FileStore, folder: Path, label: str) -> tuple[list[AddedClass], int]:
    """Embed those images that are not labelled yet; returns them in parts, and how many cannot be read."""
    class_of, new, unreadable = _known(trained), [], 0
    for chunk, outputs in trained.embedder_for(store).stream(store, np.arange(len(store))):
        for problem in chunk.unreadable.values():
            notify(f"left out: {problem}")
        unreadable += len(chunk.unreadable)
        paths = [(folder / store.names[i]).as_posix() for i in chunk.indices]
        hashes = [hash_of(view) for view in chunk.pixels]
        kept = []
        for i, (path, digest) in enumerate(zip(paths, hashes)):
            if digest not in class_of:
                kept.append(i)
            elif class_of[digest] != label:
                raise ValueError(
                    f"{path} is labelled {class_of[digest]} in {trained.folder} already, so it is no example of "
                    f"{label}: take it out of {folder}."
                )
            class_of[digest] = label
        if kept:
            names, digests = tuple(paths[i] for i in kept), tuple(hashes[i] for i in kept)
            new.append(AddedClass(label, names, digests, outputs.embeddings[kept], picture_of(chunk.pixels[kept])))
    if unreadable == len(store):
        raise ValueError(f"none of the {unreadable} images in {folder} can be read: give images that can.")
    return new, unreadable


def _known(trained: TrainedRun) -> dict[str, str]:
    """Return the class of each image that is labelled already, by the hash of its evaluation view."""
    data = trained.parts.data
    found = {digest: images.label for images in trained.added for digest in images.hashes}
    for labels in (data.labels, data.held_out):
        if labels is not None:
            hashes = hashes_of(trained.parts.embedder, data.store, labels.labelled)
            found |= {digest: labels.classes[labels.values[i]] for i, digest in hashes}
    return found


def _tell(result: Mapping[str, Any], trained: TrainedRun, added: Sequence[AddedClass]) -> None:
    label, classes, folder = result["class"], result["classes"], trained.folder
    print(f"Added {result['added']} images to the {'new ' if result['is_new'] else ''}class {label}, without training.")
    if result["known"]:
        print(f"{result['known']} images were labelled {label} already, or are given twice: they count once.")
    if result["unreadable"]:
        print(f"{result['unreadable']} images could not be read, and were left out.")
    shown = ", ".join(classes[:_SHOWN_CLASSES]) + (", ..." if len(classes) > _SHOWN_CLASSES else "")
    print(f"Classes now ({len(classes)}): {shown}")
    if (few := _few_examples(label, trained, added)) is not None:
        print(few)
    if result["is_new"]:
        print(f"No accuracy for {label} is known: measure it by tapetum evaluate {folder} --test DIR, on other images.")
        if trained.parts.data.held_out is not None:
            print(f"Confidences no longer count as calibrated, because no label of {label} was held out.")
    elif result["added"]:
        print(f"Accuracies measured so far are those without these images: tapetum evaluate {folder} measures anew.")
    if not trained.is_finished:
        print("The run has not finished: once it has been continued, the images must be added again.")
    if len(classes) == 1:
        print(f"Next: tapetum add-class {folder} DIR")
    else:
        print(f"Next: tapetum predict {folder} DIR --output predictions.csv")


def _few_examples(label: str, trained: TrainedRun, added: Sequence[AddedClass]) -> str | None:
    """Say so if a class has far fewer labelled images than others, which have more votes together; else None."""
    counts: Counter[str] = Counter()
    for images in added:
        counts[images.label] += len(images)
    for labels in (trained.parts.data.labels, trained.parts.data.held_out):
        if labels is not None:
            counts.update(dict(zip(labels.classes, labels.counts.tolist())))
    typical = median(counts.values())
    if counts[label] >= typical / 2:
        return None
    return (
        f"{label} has {counts[label]} labelled images, and half of the classes have {typical:g} or more: every image "
        "has a vote, so a class with few is predicted too rarely. Add more."
    )
