"""`tapetum suggest`: which images to label next, best first, with the reason and a picture of them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tapetum.data.health.unreadable import skip_unreadable
from tapetum.data.sources.folders import refuse_among
from tapetum.data.sources.open_source import NO_LABELS, open_source
from tapetum.evaluation.suggestion import Suggestion, check_way, default_way, suggest_from
from tapetum.methods.registry import load_plugins
from tapetum.recipe.files import RECIPE
from tapetum.recipe.recipe import load_recipe
from tapetum.recipe.without_labels import recipe_without_labels
from tapetum.reporting.pictures import contact_sheet
from tapetum.reporting.predictions_table import csv_text, safe_path
from tapetum.runs.embedded_pool import PICTURES, EmbeddedPool, embed_images, embed_run_pool, labels_so_far
from tapetum.runs.run_folder import read_summary
from tapetum.runs.weights import is_run
from tapetum.system.files import begins_with, refuse_folder, refuse_taken, sole_writing, whole_file
from tapetum.verbs.resume import resume
from tapetum.verbs.train import train_since

SHOWN = 240
"""Greatest number of images on the contact sheet: the first ones of the table."""
_COLUMNS = ("path", "reason")


def suggest(
    pool: str | Path,
    count: int,
    output: str | Path,
    labels: str | Path | None = None,
    frozen: str | Path | None = None,
    minutes: float | None = None,
    by: str | None = None,
    seed: int | None = None,
    plugins: Sequence[str] = (),
    *,
    images: str | Path | None = None,
) -> dict[str, Any]:
    """Suggest which images of a pool to label next.

    Images are compared by an embedding: that of the run, of the weights `frozen`, or of a network that is trained
    without labels for some minutes first. Near copies of an image count once, and of labelled images never.

    Args:
        pool: the folder of a run, whose pool is meant; or images, labelled or not, as for `fit`.
        count: how many images to suggest; fewer are if fewer are left.
        output: the table, a CSV of path and reason, best first; it replaces an earlier one. Beside it, a JPEG with the
            same name shows the images.
        labels: labels given so far, in any form that `fit` takes; "none" for none. None for those of the run, or those
            that come with the images. A CSV may be empty yet.
        frozen: for images: weights that embed them, a run, a file of tensors, or `timm:NAME`.
        minutes: for images: train SimCLR on them for so long first. The run is kept beside the table, and used again.
        by: how to choose, one of `tapetum.evaluation.suggestion.WAYS`; None for coverage while labels are few, and for
            doubt among typical images later. Images of which nothing but their pixels is known are drawn at random.
        seed: decides what is drawn; None for 0.
        plugins: modules to import first; they register methods.
        images: for a run: where its own images are now, if they have been moved.

    Returns:
        `by`, `suggested`, `labelled` and `left_out` (near copies): numbers of images; `embedding`, in words.

    Raises:
        ValueError: there are no images, nothing is left to label, settings contradict each other, or the table cannot
            be written.

    Example:
        >>> import tapetum
        >>> found = tapetum.suggest("runs/swav", 40, "to_label.csv")  # doctest: +SKIP
    """
    table = Path(output)
    load_plugins(plugins)
    _check(pool, count, table, frozen, minutes, images)
    if by is not None:
        check_way(by)
    with sole_writing(table):
        if is_run(pool):
            embedded = embed_run_pool(pool, labels, seed or 0, plugins, images)
        else:
            labels_so_far(pool, labels)  # a mistake in them is told before a training, not after it
            weights = frozen if minutes is None else _trained(pool, table, minutes)
            embedded = embed_images(pool, labels, None if weights is None else str(weights), seed or 0)
        chosen, found = _chosen(embedded, pool, count, by)
        _write(embedded, found, table)
    result = {
        "by": chosen,
        "suggested": len(found),
        "labelled": len(embedded.images.labelled),
        "left_out": embedded.num_copies,
        "embedding": embedded.how,
    }
    _tell(result, count, pool, table)
    return result


def _check(pool: str | Path, count: int, table: Path, frozen: Any, minutes: float | None, images: Any) -> None:
    if count < 1:
        raise ValueError(f"count is {count}: suggest 1 image or more.")
    if table.suffix.lower() != ".csv":
        raise ValueError(f"{table} does not end in .csv: give --output such as {table.with_suffix('.csv')}.")
    refuse_folder(table)
    if not _is_suggestions(table):  # labels, or a photograph of the same name
        refuse_taken(table)
        refuse_taken(table.with_suffix(".jpg"))
    own = load_recipe(Path(pool) / RECIPE).data.images if is_run(pool) else pool
    refuse_among(table, images or own)  # the sheet is a picture, too
    if frozen is not None and minutes is not None:
        raise ValueError(f"frozen is {frozen} and minutes is {minutes:g}: train anew or use weights, and give one.")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes is {minutes:g}: use more than 0.")
    if images is not None and not is_run(pool):
        raise ValueError(f"images is {images}, but {pool} is no run, whose images could have been moved: leave it out.")
    if is_run(pool) and (frozen is not None or minutes is not None):
        given = f"frozen is {frozen}" if minutes is None else f"minutes is {minutes:g}"
        raise ValueError(f"{pool} is a run, which embeds its images itself, but {given}: leave it out, or give images.")


def _is_suggestions(table: Path) -> bool:
    """Whether there is a table of suggestions already, which another may replace."""
    return table.is_file() and begins_with(table, csv_text([_COLUMNS]))


def _trained(images: str | Path, table: Path, minutes: float) -> Path:
    """Train a network without labels in a folder beside the table, or go on with it; returns the folder."""
    began, folder = time.perf_counter(), table.with_name(f"{table.stem}_run")
    if not is_run(folder):
        source, _ = skip_unreadable(open_source(images, NO_LABELS), strict=False)
        train_since(began, recipe_without_labels(str(images), source.store, minutes), folder)
        return folder
    known = load_recipe(folder / RECIPE).data.images
    if known != str(images):
        raise ValueError(
            f"{folder} is a run on {known}, not on {images}: give another --output, or delete that folder."
        )
    if "steps" not in read_summary(folder):
        resume(folder)
    return folder


def _chosen(embedded: EmbeddedPool, pool: str | Path, count: int, by: str | None) -> tuple[str, list[Suggestion]]:
    """Return the way to choose, and what it chooses."""
    images = embedded.images
    if len(images.labelled) == len(images.rows):
        raise ValueError(
            f"every image of {pool} is labelled or a copy of one that is, so there is nothing left to label: give "
            f"more images, or --labels {NO_LABELS} to start as if there were no label."
        )
    way = by or ("random" if embedded.how == PICTURES else default_way(len(images.labelled), len(images.classes)))
    return way, suggest_from(images, count, way)


def _write(embedded: EmbeddedPool, found: Sequence[Suggestion], table: Path) -> None:
    """Write the sheet and then the table, each whole or not at all."""
    places = embedded.indices[[one.image for one in found]].tolist()
    with whole_file(table.with_suffix(".jpg")) as partial:
        contact_sheet(embedded.store, places[:SHOWN]).save(partial, format="jpeg", quality=85)
    rows = [(safe_path(embedded.store.names[i]), one.reason) for i, one in zip(places, found, strict=True)]
    with whole_file(table) as partial:
        partial.write_bytes(csv_text([_COLUMNS, *rows]))


def _tell(result: dict[str, Any], wanted: int, pool: str | Path, table: Path) -> None:
    left = "" if result["suggested"] == wanted else f" (of {wanted} asked for: no more are left)"
    copies = f", near copies left out: {result['left_out']}" if result["left_out"] else ""
    print(
        f"Suggested {result['suggested']} images{left} by {result['by']}, knowing {result['labelled']} labels, in "
        f"{result['embedding']}{copies}. The table is {table}, and {table.with_suffix('.jpg')} shows them."
    )
    images, following = ("DIR", "runs/next") if is_run(pool) else (pool, "runs/first")
    print(f"Next, once they are labelled: tapetum fit --images {images} --labels labels.csv --output {following}")
