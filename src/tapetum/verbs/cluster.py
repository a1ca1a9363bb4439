"""`tapetum cluster`: which images belong together, as a table and a contact sheet for each cluster."""

from __future__ import annotations

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
from tapetum.evaluation.clustering import Clustered, by_kmeans, by_prototypes
from tapetum.evaluation.embedding import BATCH_SIZE
from tapetum.methods.base import Method
from tapetum.reporting.pictures import SHEET_IMAGES, contact_sheet
from tapetum.reporting.predictions_table import csv_text
from tapetum.runs.new_images import open_new_images
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.system.growing_file import GrowingFile

TABLE, SHEETS = "clusters.csv", "sheets"
_COLUMNS = ("path", "cluster", "confidence", "problem")


def cluster(
    run: str | Path,
    images: Any,
    output: str | Path,
    clusters: int | None = None,
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Put each image of a folder of any size into a cluster.

    The clusters are the prototypes that the run has learned; with `clusters`, or where its method has none, they are
    found by k-means over the images' embeddings. The table is written as images are read; when it is interrupted, the
    same call goes on with it.

    Args:
        run: a run's folder; its last checkpoint decides.
        images: as for `predict`.
        output: a folder for `clusters.csv` (path, cluster, confidence, problem) and `sheets`, a picture for each
            cluster of the 24 images that belong to it most surely.
        clusters: K of k-means; None: the prototypes.
        plugins: modules to import first, which register methods.

    Returns:
        `images`, `unreadable`, `by` ("prototypes" or "k-means"), `clusters` (images of each that has some).

    Raises:
        ValueError: no run folder, no images, no prototypes and no K, or a folder that cannot be written to.
        Interrupted: Ctrl-C; it has been printed how to go on.

    Example:
        >>> import tapetum
        >>> counts = tapetum.cluster("runs/swav", "photos", "clusters")["clusters"]  # doctest: +SKIP
    """
    if clusters is not None and clusters < 2:
        raise ValueError(f"clusters is {clusters}: ask for 2 or more.")
    folder = Path(output)
    if (folder / SHEETS).exists() and not (folder / f"{TABLE}.partial").exists():
        raise ValueError(f"{folder} holds clusters already ({SHEETS}): give another --output.")
    trained = open_trained_run(run, plugins, needs_labels=False)
    _check_kind(trained, clusters)
    store = open_new_images(images, trained.parts.recipe.data.shrink_to)
    key = hashlib.blake2b(f"clusters {trained.digest} {store.fingerprint} {clusters}".encode()).hexdigest()
    with GrowingFile(folder / TABLE, key, csv_text([_COLUMNS])) as table:
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
        raise ValueError(f"{method} has no prototypes: give --clusters K, for example 20, and k-means finds them.")


def _rows(trained: TrainedRun, store: Store, begin: int, clusters: int | None) -> Iterator[list[tuple[str, ...]]]:
    embedder = trained.embedder_for(store)
    found: Iterator[Clustered]
    if clusters is None:
        wanted = np.arange(begin, len(store))
        found = by_prototypes(embedder, store, wanted, BATCH_SIZE)
    else:  # all images decide what the clusters are, those written earlier among them
        every, seed = np.arange(len(store)), trained.parts.recipe.seed
        found = by_kmeans(embedder, store, every, BATCH_SIZE, clusters, seed)
    for chunk, shares in found:
        rows: dict[int, tuple[str, ...]] = {
            i: (store.names[i], "", "", problem) for i, problem in chunk.unreadable.items()
        }
        if len(shares):
            for i, sure, which in zip(chunk.indices.tolist(), *(part.tolist() for part in shares.max(dim=1))):
                rows[i] = (store.names[i], str(which), f"{sure:.6g}", "")
        if new := [row for i, row in sorted(rows.items()) if i >= begin]:
            yield new


def _write_sheets(folder: Path, table: Path, store: Store) -> None:
    """A picture for each cluster of the images that belong to it most surely, by a table that holds all images."""
    surest: dict[int, list[tuple[float, int]]] = {}
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for index, row in enumerate(csv.DictReader(file)):
            if row["cluster"]:
                heap = surest.setdefault(int(row["cluster"]), [])
                keep = heapq.heappush if len(heap) < SHEET_IMAGES else heapq.heappushpop
                keep(heap, (float(row["confidence"]), -index))  # of equally sure ones, the first
    partial = folder / f"{SHEETS}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for number, heap in surest.items():
            sheet = contact_sheet(store, [-index for _, index in sorted(heap, reverse=True)])
            sheet.save(partial / f"{number:04}.jpg", quality=85)
        shutil.rmtree(folder / SHEETS, ignore_errors=True)  # of the same table, which was not finished
        os.replace(partial, folder / SHEETS)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"{folder / SHEETS} cannot be written ({reason}): make room, or allow it.") from error


def _tell(result: dict[str, Any], trained: TrainedRun, folder: Path) -> None:
    sizes = sorted(result["clusters"].values())
    print(f"{result['images'] - result['unreadable']} images in {len(sizes)} clusters, by {result['by']}.")
    if result["unreadable"]:
        print(f"{result['unreadable']} images could not be read: their lines have no cluster but say why.")
    if sizes:
        print(f"Clusters have {sizes[0]} to {sizes[-1]} images; half of them {sizes[len(sizes) // 2]} or more.")
    print(f"The table is {folder / TABLE}; {folder / SHEETS} shows each cluster's surest images.")
    print(f"Next: tapetum embed {trained.folder} DIR --output embeddings.npz")
