"""`tapetum predict`: the class of every image, the confidence, and the labelled images behind each prediction."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.data.images.stores import Store
from tapetum.evaluation.embedding import BATCH_SIZE, Outputs
from tapetum.evaluation.image_chunks import ImageChunk
from tapetum.evaluation.prediction import predict_from
from tapetum.methods.base import Method
from tapetum.reporting.predictions_table import Neighbour, Row, csv_header, csv_lines, json_lines
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
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Predict the class of each image of a folder, however large, and write a table.

    A row has the image's path, its predicted label, the confidence, and the nearest labelled images with their weights.
    An image that cannot be read has an empty label, and its row says why. The table is written as images are read;
    after an interruption, the same call continues it.

    Args:
        run: the run's folder; its last checkpoint is used.
        images: a folder, including its subfolders, or one file, with images of any size and mode; or any other source
            that `open_source` takes, of which the test part is used if there is one.
        output: the table; the file gets this name once it is complete.
        neighbours: number of labelled images to list for each image; None for 3.
        json: write a JSON object per line instead of CSV.
        plugins: modules to import first; they register methods.

    Returns:
        `images`, `unreadable`, `labels` (number of images of each predicted class), `calibrated`, `temperature`,
        `held_out` (number of labels that the temperature was chosen on).

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
    trained = open_trained_run(run, plugins)
    store = open_new_images(images, trained.parts.recipe.data.shrink_to)
    num_neighbours = min(wanted, len(trained.supports.labels))
    has_domain = type(trained.parts.method).in_domain is not Method.in_domain
    header = b"" if json else csv_header(num_neighbours, has_domain)
    key = hashlib.blake2b(f"{trained.digest} {store.fingerprint} {num_neighbours} {json}".encode()).hexdigest()
    is_calibrated = trained.calibration.is_calibrated
    with ResumableFile(Path(output), key, header) as table:
        with table.resumable(len(store)):
            for rows in _rows(trained, store, table.rows, num_neighbours):
                told = is_calibrated, has_domain
                lines = json_lines(rows, *told) if json else csv_lines(rows, num_neighbours, *told)
                table.append(lines, Counter(row.label or "" for row in rows))
                _tell_progress(table.rows, len(rows), len(store))
        table.finish()
    result = {
        "images": len(store),
        "unreadable": table.counts[""],
        "labels": {name: table.counts[name] for name in trained.classes if table.counts[name]},
        "calibrated": is_calibrated,
        "temperature": trained.calibration.temperature,
        "held_out": trained.calibration.num_labels,
    }
    _tell(result, trained, output)
    return result


def _rows(trained: TrainedRun, store: Store, begin: int, num_neighbours: int) -> Iterator[list[Row]]:
    wanted = np.arange(begin, len(store))
    for chunk, outputs in trained.embedder_for(store).stream(store, wanted, BATCH_SIZE):
        predicted = _predicted(trained, store, chunk, outputs, num_neighbours) if len(chunk.indices) else {}
        failed = {i: Row(store.names[i], None, None, (), problem) for i, problem in chunk.unreadable.items()}
        yield [row for _, row in sorted((predicted | failed).items())]


def _predicted(
    trained: TrainedRun, store: Store, chunk: ImageChunk, outputs: Outputs, num_neighbours: int
) -> dict[int, Row]:
    predictions = predict_from(outputs, trained.supports, trained.predicts_by, num_neighbours)
    confidence, labels = trained.calibration.probabilities(predictions.scores).max(dim=1)
    supports, names, classes = trained.supports.labels, trained.support_names, trained.classes
    domain = trained.parts.method.in_domain(predictions.nearest)
    columns = chunk.indices, labels, confidence, predictions.neighbours, predictions.weights
    rows = {}
    for i, (index, label, sure, indices, weights) in enumerate(zip(*(column.tolist() for column in columns))):
        neighbours = [Neighbour(names[s], classes[supports[s]], w) for s, w in zip(indices, weights)]
        in_domain = None if domain is None else float(domain[i])
        rows[index] = Row(store.names[index], classes[label], sure, neighbours, in_domain=in_domain)
    return rows


def _tell_progress(done: int, new: int, total: int) -> None:
    if done == total or done // _TOLD_EVERY > (done - new) // _TOLD_EVERY:
        notify(f"predicted {done} of {total} images")


def _tell(result: dict[str, Any], trained: TrainedRun, output: str | Path) -> None:
    print(f"Predicted {result['images'] - result['unreadable']} images; the table is {output}.")
    if result["unreadable"]:
        print(f"{result['unreadable']} images could not be read: their rows have no label, and say why.")
    most = Counter(result["labels"]).most_common(_SHOWN_CLASSES)
    left = len(result["labels"]) - len(most)
    print("Labels: " + ", ".join(f"{name} {count}" for name, count in most) + (f", {left} more" if left else ""))
    print(trained.calibration.describe())
    if trained.predicts_by == "classifier":
        print("The classifier chose the labels; the neighbours only show labelled images that look similar.")
    print(f"Next: tapetum report {trained.folder}")
