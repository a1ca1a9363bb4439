"""`tapetum review`: labels that may be wrong, copies whose labels differ, and the predictions most in doubt."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tapetum.evaluation.second_look import SecondLook
from tapetum.reporting.predictions_table import (
    Columns,
    Neighbour,
    Row,
    csv_header,
    csv_lines,
    csv_text,
    safe_class,
    safe_path,
)
from tapetum.reporting.review_page import render
from tapetum.runs.places import moved_to
from tapetum.runs.second_look import look_again
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.system.files import sole_new, whole_folder

TABLES = {"errors": "label_errors.csv", "conflicts": "conflicts.csv", "predictions": "predictions.csv"}
_PAGE = "review.html"
_NEIGHBOURS = 5
_TOO_MANY = 0.25
"""Share of wrong labels above which the run is the likelier fault: few people mislabel every fourth image."""


def review(
    run: str | Path,
    output: str | Path,
    plugins: Sequence[str] = (),
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
) -> dict[str, Any]:
    """Find in a run's pool what somebody should look at again, and write it as tables and as one page with pictures.

    Args:
        run: the run's folder; its last checkpoint is used, or its best one with `trainer.keep_best`.
        output: a new folder for

            - label_errors.csv (path, label, suggested, doubt): labels that are probably wrong by confident learning
              (`tapetum.evaluation.label_errors`), most doubtful first; if the network was trained with the labels, the
              twentieth of them that is most in doubt, at least;
            - conflicts.csv (group, path, label): copies of one image with different labels;
            - predictions.csv: the unlabelled images of the pool, least certain first, with the columns of `predict`;
            - review.html: the first of each with pictures, beside the labelled images behind them.
        plugins: modules to import first; they register methods.
        images, labels: where the run's own images and labels are now, if they have been moved.

    Returns:
        `labels` (number of labels looked at), `label_errors` (that are probably wrong), `listed` (in label_errors.csv),
        `conflicts` (number of groups), `predictions`, `basis` (how the labels were predicted, in words).

    Raises:
        ValueError: there is no run folder, no checkpoint or no label, an image cannot be read, or the folder is not
            empty or cannot be written.

    Example:
        >>> import tapetum
        >>> found = tapetum.review("runs/first", "second-look")  # doctest: +SKIP
    """
    folder = Path(output)
    with sole_new(folder):
        trained = open_trained_run(run, plugins, moved=moved_to(images, labels))
        look = look_again(trained, _NEIGHBOURS)
        columns = Columns(min(_NEIGHBOURS, len(trained.supports.labels)), trained.calibration.is_calibrated)
        predictions = csv_header(columns) + csv_lines(_predictions(look), columns)
        # File names need not be valid text: bytes that cannot be shown are replaced.
        page = render(look, TABLES, trained.predicts_by).encode(errors="replace")
        with whole_folder(folder) as partial:
            (partial / TABLES["errors"]).write_bytes(
                csv_text([("path", "label", "suggested", "doubt"), *_errors(look)])
            )
            (partial / TABLES["conflicts"]).write_bytes(csv_text([("group", "path", "label"), *_conflicts(look)]))
            (partial / TABLES["predictions"]).write_bytes(predictions)
            (partial / _PAGE).write_bytes(page)
    result = {
        "labels": look.suspects.num_judged,
        "label_errors": look.suspects.num_errors,
        "listed": len(look.suspects.predicted),
        "conflicts": len(look.copies),
        "predictions": len(look.unlabelled),
        "basis": look.suspects.basis,
    }
    _tell(result, look, folder, trained)
    return result


def _errors(look: SecondLook) -> Iterator[tuple[str, ...]]:
    found, names = look.suspects.predicted, look.classes
    for row, given, suggested, doubt in zip(found.rows, found.truth, found.labels, look.suspects.doubt):
        classes = safe_class(names[given]), safe_class(names[suggested])
        yield (safe_path(found.store.names[row]), *classes, f"{doubt:.6g}")


def _conflicts(look: SecondLook) -> Iterator[tuple[str, ...]]:
    for number, group in enumerate(look.copies, start=1):
        for i in group:
            yield str(number), safe_path(look.pool.names[i]), safe_class(look.classes[look.pool_labels[i]])


def _predictions(look: SecondLook) -> Iterator[Row]:
    found, names, classes = look.unlabelled, (*look.pool.names, *look.added.names), look.classes
    labels = [*look.pool_labels.tolist(), *look.added_labels.tolist()]
    for i, row in enumerate(found.rows.tolist()):
        causes = zip(found.neighbours[i].tolist(), found.weights[i].tolist())
        neighbours = [Neighbour(names[n], classes[labels[n]], weight) for n, weight in causes]
        in_domain, confidence = float(look.in_domain[i]), float(found.confidence[i])
        yield Row(look.pool.names[row], classes[found.labels[i]], confidence, neighbours, in_domain=in_domain)


def _tell(result: dict[str, Any], look: SecondLook, folder: Path, trained: TrainedRun) -> None:
    print(f"{result['label_errors']} of {result['labels']} labels are probably wrong. {result['basis']}")
    if result["listed"] > result["label_errors"]:
        print(f"So {TABLES['errors']} goes on, to the {result['listed']} labels that are most in doubt.")
    if result["label_errors"] > _TOO_MANY * result["labels"]:
        print("So many speak against the run rather than the labels: train it longer before you trust this.")
    copies = "Copies" if look.finds_near_copies else "Copies (of the same pixels, as the images look too alike)"
    print(f"{copies} with different labels: {result['conflicts']} groups.")
    print(f"{result['predictions']} unlabelled images, least certain first. {trained.calibration.describe()}")
    print(f"Look at {folder / _PAGE}; {', '.join(TABLES.values())} beside it have all.")
    print("Next: correct the labels, and train again with `tapetum fit`.")
