"""Opens labelled test images, and refuses any on which accuracy would look better than on new images."""

import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tapetum.data.health.unreadable import skip_unreadable
from tapetum.data.images.cache import decoded
from tapetum.data.images.stores import FileStore, Store, shrunk
from tapetum.data.labels.labels import Labels
from tapetum.data.sources.open_source import Source, open_test_part
from tapetum.data.views.draw import ViewsConfig
from tapetum.system.notices import notify, progress_notices


def open_test(
    path: str | Path, classes: tuple[str, ...], strict: bool = False, shrink_to: int | None = None
) -> tuple[Store, Labels]:
    """Open labelled test images; their labels are in the class order of training.

    If the source has a test part, only that is used, else all of it. Images that cannot be read are skipped with a
    notice, or refused if `strict`. `shrink_to` is the pool's `data.shrink_to`.

    Raises:
        ValueError: the source does not exist, its test part is damaged, it has no labels, or training lacks a class.
    """
    source, _ = skip_unreadable(find_test(path, classes), strict)
    assert source.labels is not None
    return decoded(shrunk(source.store, shrink_to), report=progress_notices("decoded")), source.labels


def find_test(path: str | Path, classes: tuple[str, ...]) -> Source:
    """Find labelled test images without decoding them; their labels are in the class order of training."""
    source = open_test_part(path)
    if source.labels is None:
        raise ValueError(f"{path} has no labels to evaluate with: give one folder per class.")
    return replace(source, labels=source.labels.in_order_of(classes))


def check_evaluation(store: Store, views: ViewsConfig, trained_on: Store | None = None) -> None:
    """Check that images can be evaluated, before training rather than after it.

    Raises:
        ValueError: images are smaller than the evaluation crop, have other channels, or are the images trained on.
    """
    if trained_on is not None and store.fingerprint == trained_on.fingerprint:
        raise ValueError(
            "the test images are the images trained on, so their accuracy says nothing about new images: give others, "
            "or keep some out of training with data.held_out_per_class."
        )
    if store.channels != len(views.mean):
        raise ValueError(
            f"the images to evaluate have {store.channels} channels but views.mean has {len(views.mean)} numbers: "
            "train and evaluate on images with the same number of channels."
        )
    crop, smallest = views.evaluation.crop, int(store.sizes.min())
    if views.evaluation.resize is None and smallest < crop:
        raise ValueError(
            f"views.evaluation.crop is {crop} but an image is {smallest} pixels wide or high: "
            f"set views.evaluation.resize to {crop} or more."
        )


def check_unseen(opened: Store, used: Labels, tests: Source, test: str | Path, as_trained: bool = True) -> None:
    """Refuse test images whose labels train the model; report those that it sees without their labels.

    Args:
        opened: the pool's images, not decoded.
        used: the pool's labels that are used for training.
        tests: labelled test images, not decoded.
        test: what errors call the test images.
        as_trained: whether the labels are those of the training; if they have changed, nobody knows which trained.

    Raises:
        ValueError: some test images are labelled training images, or may have been.
    """
    assert tests.labels is not None
    shared = shared_images(opened, tests.store, tests.labels, range(len(opened)))
    labelled = [i for i in shared if used.values[i] >= 0]
    if labelled:
        raise ValueError(
            f"test is {test}, but {len(labelled)} of its images, such as {opened.names[labelled[0]]}, have labels that "
            f"train the model: give images whose labels are not used for training."
        )
    if shared and not as_trained:
        raise ValueError(
            f"test is {test}, but {len(shared)} of its images are in the pool, whose labels have changed since the "
            "training, so theirs may have trained the model: give images outside the pool, or restore the labels."
        )
    if shared:
        notify(f"{len(shared)} test images are in the pool too: the model sees them, though not their labels")


def shared_images(opened: Store, others: Store, labels: Labels, rows: Sequence[int]) -> list[int]:
    """Return those of the images at `rows` that are among the labelled ones of another store."""
    if isinstance(opened, FileStore) and isinstance(others, FileStore):
        labelled = {_real_path(str(others.file(i))) for i in labels.labelled.tolist()}
        return [i for i in rows if _real_path(str(opened.file(i))) in labelled]
    same = set(labels.labelled.tolist()) if opened.fingerprint == others.fingerprint else set()
    return [i for i in rows if i in same]


def _real_path(path: str) -> str:
    folder, name = os.path.split(path)
    whole = os.path.join(_real_folder(os.path.abspath(folder)), name)
    return os.path.realpath(whole) if os.path.islink(whole) else whole


@functools.lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
