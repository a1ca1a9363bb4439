"""`tapetum embed`: write the embedding of every image of a folder, for use in other programs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tapetum.data.images.stores import Store
from tapetum.evaluation.embedding import BATCH_SIZE
from tapetum.ops.collectives import in_turn, rank
from tapetum.reporting.embeddings_table import is_embeddings, write_embeddings
from tapetum.runs.new_images import open_new_images
from tapetum.runs.places import moved_to
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.system.files import refuse_foreign
from tapetum.system.notices import notify


def embed(
    run: str | Path,
    images: Any,
    output: str | Path,
    plugins: Sequence[str] = (),
    *,
    run_images: str | Path | None = None,
    run_labels: str | Path | None = None,
) -> Path:
    """Write the embedding that a run's network computes for each image: the numbers by which it finds neighbours.

    Processes that torchrun or srun started share the images out, and the first of them writes the file.

    Args:
        run: the run's folder; its last checkpoint is used, or its best one with `trainer.keep_best`.
        images: as for `predict`.
        output: a .npz file with `paths` (N,) and `embeddings` (N, D) float32, or a .parquet file with the columns
            `path` and `embedding`. The row of an image that cannot be read is NaN, and a notice on stderr names it.
        plugins: modules to import first; they register methods.
        run_images, run_labels: where the run's own images and labels are now, if they have been moved.

    Returns:
        The path written.

    Raises:
        ValueError: there is no run folder, there are no images, or the file cannot be written.

    Example:
        >>> import tapetum
        >>> path = tapetum.embed("runs/first", "photos", "photos.npz")  # doctest: +SKIP
    """
    path = Path(output)
    refuse_foreign(path, is_embeddings)
    moved = moved_to(run_images, run_labels)
    trained = open_trained_run(run, plugins, needs_labels=False, shared=True, moved=moved)
    store = open_new_images(images, trained.parts.recipe.data.shrink_to)
    first = np.zeros(1, dtype=np.int64)
    size = trained.parts.embedder.outputs(trained.parts.data.store, first).embeddings.shape[1]
    parts = in_turn(_parts(trained, store, size), -(-len(store) // BATCH_SIZE))
    if rank() > 0:
        sum(1 for _ in parts)  # rank 0 gets them all
        return path
    write_embeddings(path, _told(parts), len(store))
    print(f"Embedded {len(store)} images as {size} numbers each; the file is {path}.")
    print(f"Next: tapetum {'plot' if trained.classes else 'doctor'} {trained.folder}")
    return path


class _Part(NamedTuple):
    names: Sequence[str]
    rows: npt.NDArray[np.float32]
    problems: Sequence[str]
    """Why the images whose rows are NaN could not be read."""


def _parts(trained: TrainedRun, store: Store, size: int) -> Iterator[_Part]:
    for chunk, outputs in trained.embedder_for(store).stream(store, np.arange(len(store)), BATCH_SIZE):
        indices = np.concatenate([chunk.indices, np.array(list(chunk.unreadable), dtype=np.int64)])
        rows = np.full((len(indices), size), np.nan, dtype=np.float32)
        rows[: len(chunk.indices)] = outputs.embeddings.numpy().reshape(-1, size)
        order = np.argsort(indices)
        yield _Part([store.names[i] for i in indices[order]], rows[order], list(chunk.unreadable.values()))


def _told(parts: Iterator[_Part]) -> Iterator[tuple[Sequence[str], npt.NDArray[np.float32]]]:
    for names, rows, problems in parts:
        for problem in problems:
            notify(f"row filled with NaN: {problem}")
        yield names, rows
