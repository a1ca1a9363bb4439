"""`tapetum cluster`: group similar images, in a table and in a contact sheet for each cluster."""

import csv
import hashlib
import heapq
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.data.images.stores import Store
from tapetum.data.sources.folders import refuse_among
from tapetum.evaluation.clustering import Clustered, by_kmeans, by_prototypes
from tapetum.evaluation.embedding import BATCH_SIZE
from tapetum.methods.base import Method
from tapetum.reporting.pictures import SHEET_IMAGES, contact_sheet
from tapetum.reporting.predictions_table import csv_text, safe_path
from tapetum.runs.new_images import open_new_images
from tapetum.runs.places import moved_to
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.system.resumable_file import ResumableFile

TABLE, SHEETS = "clusters.csv", "sheets"
_COLUMNS = ("path", "cluster", "confidence", "problem")


def cluster(
    run: str | Path,
    images: Any,
    output: str | Path,
    clusters: int | None = None,
    plugins: Sequence[str] = (),
    *,
    run_images: str | Path | None = None,
    run_labels: str | Path | None = None,
) -> dict[str, Any]:
    """Assign each image of a folder, however large, to a cluster.

    The clusters are the prototypes that the run has learned; with `clusters`, which methods without prototypes need,
    k-means over the images' embeddings finds them instead. The table is written as images are read; after an
    interruption, the same call continues it.

    Args:
        run: the run's folder; its last checkpoint is used, or its best one with `trainer.keep_best`.
        images: as for `predict`.
        output: a folder for `clusters.csv` (path, cluster, confidence, problem) and `sheets`, which has a picture for
            each cluster: the 24 images with the highest confidence.
        clusters: K of k-means; None for the prototypes.
        plugins: modules to import first; they register methods.
        run_images, run_labels: where the run's own images and labels are now, if they have been moved.

    Returns:
        `images`, `unreadable`, `by` ("prototypes" or "k-means"), `clusters` (number of images in each that has any).

    Raises:
        ValueError: there is no run folder, no image, or neither prototypes nor K; or the folder cannot be written to.
        Interrupted: on Ctrl-C, after printing how to continue.

    Example:
        >>> import tapetum
        >>> counts = tapetum.cluster("runs/swav", "photos", "clusters")["clusters"]  # doctest: +SKIP
    """
    if clusters is not None and clusters < 2:
        raise ValueError(f"clusters is {clusters}: use 2 or more.")
    folder = Path(output)
    if (folder / SHEETS).exists():
        ResumableFile.settle(folder / TABLE)
        if not (folder / f"{TABLE}.partial").exists():
            raise ValueError(f"{folder / SHEETS} exists already: give another --output.")
    refuse_among(folder / SHEETS, images)
    trained = open_trained_run(run, plugins, needs_labels=False, moved=moved_to(run_images, run_labels))
    _check_kind(trained, clusters)
    store = open_new_images(images, trained.parts.recipe.data.shrink_to)
    key = hashlib.blake2b(f"k-means++ {trained.digest} {store.fingerprint} {clusters}".encode()).hexdigest()
    with ResumableFile(folder / TABLE, key, csv_text([_COLUMNS])) as table:
        with table.resumable(len(store)):
            for rows in _rows(trained, store, table.rows, clusters) if table.rows < len(store) else ():
                table.append(csv_text(rows), Counter(row[1] for row in rows))
            # Before the table is finished: until then, the same command continues here.
            _write_sheets(folder, table.written, store)
        table.finish()
    result = {
        "images": len(store),
        "unreadable": table.counts[""],
        "by": "prototypes" if clusters is None else "k-means",
        "clusters": {int(name): table.counts[name] for name in sorted(filter(None, table.counts), key=int)},
    }
    _tell(result, trained, folder)
    return result


def _check_kind(trained: TrainedRun, clusters: int | None) -> None:
    if clusters is None and type(trained.parts.method).cluster is Method.cluster:
        method = trained.parts.recipe.method.kind
        raise ValueError(f"{method} has no prototypes: give --clusters K, for example 20, to find clusters by k-means.")


def _rows(trained: TrainedRun, store: Store, begin: int, clusters: int | None) -> Iterator[list[tuple[str, ...]]]:
    embedder = trained.embedder_for(store)
    found: Iterator[Clustered]
    if clusters is None:
        wanted = np.arange(begin, len(store))
        found = by_prototypes(embedder, store, wanted, BATCH_SIZE)
    else:  # all images decide what the clusters are, also those written earlier
        every, seed = np.arange(len(store)), trained.parts.recipe.seed
        found = by_kmeans(embedder, store, every, BATCH_SIZE, clusters, seed)
    for chunk, shares in found:
        rows: dict[int, tuple[str, ...]] = {
            i: (safe_path(store.names[i]), "", "", problem) for i, problem in chunk.unreadable.items()
        }
        if len(shares):
            for i, sure, which in zip(chunk.indices.tolist(), *(part.tolist() for part in shares.max(dim=1))):
                rows[i] = (safe_path(store.names[i]), str(which), f"{sure:.6g}", "")
        if new := [row for i, row in sorted(rows.items()) if i >= begin]:
            yield new


def _write_sheets(folder: Path, table: Path, store: Store) -> None:
    """Draw for each cluster the images of highest confidence, from a table that holds all images."""
    surest: dict[int, list[tuple[float, int]]] = {}
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for index, row in enumerate(csv.DictReader(file)):
            if row["cluster"]:
                heap = surest.setdefault(int(row["cluster"]), [])
                keep = heapq.heappush if len(heap) < SHEET_IMAGES else heapq.heappushpop
                keep(heap, (float(row["confidence"]), -index))  # of equal confidences, the first
    partial = folder / f"{SHEETS}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for number, heap in surest.items():
            sheet = contact_sheet(store, [-index for _, index in sorted(heap, reverse=True)])
            sheet.save(partial / f"{number:04}.jpg", quality=85)
        shutil.rmtree(folder / SHEETS, ignore_errors=True)  # left by an earlier attempt at the same table
        os.replace(partial, folder / SHEETS)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"{folder / SHEETS} cannot be written ({reason}): make room, or allow writing.") from error


def _tell(result: dict[str, Any], trained: TrainedRun, folder: Path) -> None:
    sizes = sorted(result["clusters"].values())
    print(f"{result['images'] - result['unreadable']} images in {len(sizes)} clusters, found by {result['by']}.")
    if result["unreadable"]:
        print(f"{result['unreadable']} images could not be read: their rows have no cluster, and say why.")
    if sizes:
        print(f"Clusters have {sizes[0]} to {sizes[-1]} images; half of them have {sizes[len(sizes) // 2]} or more.")
    print(f"The table is {folder / TABLE}; {folder / SHEETS} shows the most certain images of each cluster.")
    print(f"Next: tapetum embed {trained.folder} DIR --output embeddings.npz")
