"""`tapetum predict`: the class of every image, the confidence, and the labelled images behind each prediction."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.evaluation.calibration import MIN_LABELS
from tapetum.evaluation.embedding import BATCH_SIZE
from tapetum.ops.collectives import gather_on_all, in_turn, rank
from tapetum.reporting.predictions_table import csv_header, csv_lines, is_predictions, json_lines
from tapetum.runs.new_images import open_new_images
from tapetum.runs.predictor import Predictor
from tapetum.runs.trained_run import TrainedRun
from tapetum.system.files import refuse_foreign
from tapetum.system.notices import notify
from tapetum.system.resumable_file import ResumableFile

_SHOWN_CLASSES = 20
_TOLD_EVERY = 10_000  # images


def predict(
    run: str | Path,
    images: Any,
    output: str | Path,
    neighbours: int | None = None,
    json: bool = False,
    reject: float | None = None,
    plugins: Sequence[str] = (),
    *,
    run_images: str | Path | None = None,
    run_labels: str | Path | None = None,
) -> dict[str, Any]:
    """Predict the class of each image of a folder, however large, and write a table.

    A row has the image's path, its predicted label, the confidence, how much it resembles labelled images (in_domain),
    and the nearest of these with their weights. An image that cannot be read has an empty label, and its row says why.
    The table is written as images are read; after an interruption, the same call continues it.
    Processes that torchrun or srun started share the images out, and the first of them writes the table.

    Args:
        run: the run's folder; its last checkpoint is used, or its best one with `trainer.keep_best`.
        images: a folder, including its subfolders, or one file, with images of any size and mode; or any other source
            that `open_source` takes, of which the test part is used if there is one.
        output: the table; the file gets this name once it is complete, and replaces an older table of predictions.
        neighbours: number of labelled images to list for each image; None for 3.
        json: write a JSON object per line instead of CSV.
        reject: share of the labelled images, such as 0.05. Images that resemble them less than this share of them
            resemble each other (`in_domain` is below it) are labelled "none of these"; None gives every image a class.
        plugins: modules to import first; they register methods.
        run_images, run_labels: where the run's own images and labels are now, if they have been moved.

    Returns:
        `images`, `unreadable`, `labels` (number of images of each predicted class), `none_of_these` (number of images
        of no class), `calibrated`, `temperature`, `held_out` (number of labels that the temperature was chosen on).

    Raises:
        ValueError: there is no run folder, there are no images, the table cannot be written, or another file has its
            name.
        Interrupted: on Ctrl-C, after printing how to continue.

    Example:
        >>> import tapetum
        >>> counts = tapetum.predict("runs/first", "photos", "predictions.csv")  # doctest: +SKIP
    """
    refuse_foreign(Path(output), is_predictions)
    predictor = Predictor(run, neighbours, reject, plugins, shared=True, images=run_images, labels=run_labels)
    trained = predictor.trained
    store = open_new_images(images, trained.parts.recipe.data.shrink_to)
    header = b"" if json else csv_header(predictor.columns)
    options = f"{trained.digest} {store.fingerprint} {predictor.columns} {json} {reject}"
    key = hashlib.blake2b(options.encode()).hexdigest()
    with ResumableFile(Path(output), key, header) if rank() == 0 else nullcontext() as table:
        begin = gather_on_all(0 if table is None else table.rows)[0]
        parts = in_turn(_parts(predictor, store, begin, json), -(-(len(store) - begin) // BATCH_SIZE))
        if table is None:
            sum(1 for _ in parts)  # rank 0 gets them all
        else:
            _write(table, parts, len(store))
        counts = gather_on_all(Counter[str]() if table is None else table.counts)[0]
    result = {
        "images": len(store),
        "unreadable": counts[""],
        "labels": {name: counts[name] for name in trained.classes if counts[name]},
        "none_of_these": counts[NONE_OF_THESE],
        "calibrated": predictor.columns.is_calibrated,
        "temperature": trained.calibration.temperature,
        "held_out": trained.calibration.num_labels,
    }
    if rank() == 0:
        _tell(result, trained, output, reject)
    return result


def _parts(predictor: Predictor, store: Store, begin: int, json: bool) -> Iterator[tuple[bytes, Counter[str]]]:
    """Yield lines of the table, and how many images of each label they hold."""
    for rows in predictor.rows(store, begin, BATCH_SIZE):
        lines = json_lines(rows, predictor.columns) if json else csv_lines(rows, predictor.columns)
        yield lines, Counter(row.label or "" for row in rows)


def _write(table: ResumableFile, parts: Iterator[tuple[bytes, Counter[str]]], total: int) -> None:
    with table.resumable(total):
        for lines, counts in parts:
            table.append(lines, counts)
            _tell_progress(table.rows, counts.total(), total)
    table.finish()


def _tell_progress(done: int, new: int, total: int) -> None:
    if done == total or done // _TOLD_EVERY > (done - new) // _TOLD_EVERY:
        notify(f"predicted {done} of {total} images")


def _tell(result: dict[str, Any], trained: TrainedRun, output: str | Path, reject: float | None) -> None:
    print(f"Predicted {result['images'] - result['unreadable']} images; the table is {output}.")
    if result["unreadable"]:
        print(f"{result['unreadable']} images could not be read: their rows have no label, and say why.")
    if result["none_of_these"]:
        print(f"{result['none_of_these']} images are too unlike the labelled ones: their label is {NONE_OF_THESE!r}.")
    if reject is not None and result["held_out"] < MIN_LABELS and trained.parts.method.uses_support:
        print(
            f"Many images of your classes may be among them: the scale is made by labels that trained the network, and "
            f"{MIN_LABELS} held-out ones are needed."
        )
    most = Counter(result["labels"]).most_common(_SHOWN_CLASSES)
    left = len(result["labels"]) - len(most)
    print("Labels: " + ", ".join(f"{name} {count}" for name, count in most) + (f", {left} more" if left else ""))
    print(trained.calibration.describe())
    if trained.predicts_by == "classifier":
        print("The classifier chose the labels; the neighbours only show labelled images that look similar.")
    print(f"Next: tapetum report {trained.folder}")
