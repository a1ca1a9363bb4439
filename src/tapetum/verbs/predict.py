"""`tapetum predict`: the class of every image, the confidence, and the labelled images behind each prediction."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.evaluation.calibration import MIN_LABELS
from tapetum.evaluation.embedding import BATCH_SIZE, Outputs
from tapetum.evaluation.image_chunks import ImageChunk
from tapetum.evaluation.prediction import predict_from
from tapetum.methods.base import Method
from tapetum.reporting.predictions_table import Columns, Neighbour, Row, csv_header, csv_lines, json_lines
from tapetum.runs.new_images import open_new_images
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.system.notices import notify
from tapetum.system.resumable_file import ResumableFile

_NEIGHBOURS = 3
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
) -> dict[str, Any]:
    """Predict the class of each image of a folder, however large, and write a table.

    A row has the image's path, its predicted label, the confidence, how much it resembles labelled images (in_domain),
    and the nearest of these with their weights. An image that cannot be read has an empty label, and its row says why.
    The table is written as images are read; after an interruption, the same call continues it.

    Args:
        run: the run's folder; its last checkpoint is used.
        images: a folder, including its subfolders, or one file, with images of any size and mode; or any other source
            that `open_source` takes, of which the test part is used if there is one.
        output: the table; the file gets this name once it is complete.
        neighbours: number of labelled images to list for each image; None for 3.
        json: write a JSON object per line instead of CSV.
        reject: share of the labelled images, such as 0.05. Images that resemble them less than this share of them
            resemble each other (`in_domain` is below it) are labelled "none of these"; None gives every image a class.
        plugins: modules to import first; they register methods.

    Returns:
        `images`, `unreadable`, `labels` (number of images of each predicted class), `none_of_these` (number of images
        of no class), `calibrated`, `temperature`, `held_out` (number of labels that the temperature was chosen on).

    Raises:
        ValueError: there is no run folder, there are no images, or the table cannot be written.
        Interrupted: on Ctrl-C, after printing how to continue.

    Example:
        >>> import tapetum
        >>> counts = tapetum.predict("runs/first", "photos", "predictions.csv")  # doctest: +SKIP
    """
    wanted = _NEIGHBOURS if neighbours is None else neighbours
    if wanted < 0:
        raise ValueError(f"neighbours is {wanted}: use 0 or more.")
    if reject is not None and not 0 < reject < 1:
        raise ValueError(f"reject is {reject:g}: use a share of the labelled images between 0 and 1, such as 0.05.")
    trained = open_trained_run(run, plugins)
    store = open_new_images(images, trained.parts.recipe.data.shrink_to)
    num_neighbours = min(wanted, len(trained.supports.labels))
    has_own_measure = type(trained.parts.method).in_domain is not Method.in_domain
    columns = Columns(num_neighbours, trained.calibration.is_calibrated, has_own_measure)
    header = b"" if json else csv_header(columns)
    options = f"{trained.digest} {store.fingerprint} {columns} {json} {reject}"
    key = hashlib.blake2b(options.encode()).hexdigest()
    with ResumableFile(Path(output), key, header) as table:
        with table.resumable(len(store)):
            for rows in _rows(trained, store, table.rows, num_neighbours, reject):
                lines = json_lines(rows, columns) if json else csv_lines(rows, columns)
                table.append(lines, Counter(row.label or "" for row in rows))
                _tell_progress(table.rows, len(rows), len(store))
        table.finish()
    result = {
        "images": len(store),
        "unreadable": table.counts[""],
        "labels": {name: table.counts[name] for name in trained.classes if table.counts[name]},
        "none_of_these": table.counts[NONE_OF_THESE],
        "calibrated": columns.is_calibrated,
        "temperature": trained.calibration.temperature,
        "held_out": trained.calibration.num_labels,
    }
    _tell(result, trained, output, reject)
    return result


def _rows(
    trained: TrainedRun, store: Store, begin: int, num_neighbours: int, reject: float | None
) -> Iterator[list[Row]]:
    wanted = np.arange(begin, len(store))
    for chunk, outputs in trained.embedder_for(store).stream(store, wanted, BATCH_SIZE):
        predicted = _predicted(trained, store, chunk, outputs, num_neighbours) if len(chunk.indices) else {}
        if reject is not None:
            predicted = {i: row.rejected(reject) for i, row in predicted.items()}
        failed = {i: Row(store.names[i], None, None, (), problem) for i, problem in chunk.unreadable.items()}
        yield [row for _, row in sorted((predicted | failed).items())]


def _predicted(
    trained: TrainedRun, store: Store, chunk: ImageChunk, outputs: Outputs, num_neighbours: int
) -> dict[int, Row]:
    predictions = predict_from(outputs, trained.supports, trained.predicts_by, num_neighbours)
    confidence, labels = trained.calibration.probabilities(predictions.scores).max(dim=1)
    supports, names, classes = trained.supports.labels, trained.support_names, trained.classes
    in_domain = trained.domain.shares(outputs.embeddings)
    own = trained.parts.method.in_domain(predictions.nearest)
    columns = chunk.indices, labels, confidence, in_domain, predictions.neighbours, predictions.weights
    rows = {}
    for i, (index, label, sure, like, indices, weights) in enumerate(zip(*(column.tolist() for column in columns))):
        neighbours = [Neighbour(names[s], classes[supports[s]], w) for s, w in zip(indices, weights)]
        row = Row(store.names[index], classes[label], sure, neighbours, in_domain=like)
        rows[index] = row if own is None else row._replace(method_in_domain=float(own[i]))
    return rows


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
