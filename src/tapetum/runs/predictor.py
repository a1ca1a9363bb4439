"""Predicts images by a trained run, for `tapetum predict`, and batch by batch for engines such as Ray Data."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.images.stores import Store
from tapetum.data.sources.tables import RowStore
from tapetum.evaluation.embedding import BATCH_SIZE, Outputs
from tapetum.evaluation.image_chunks import ImageChunk
from tapetum.evaluation.prediction import predict_from
from tapetum.methods.base import Method
from tapetum.reporting.predictions_table import Columns, Neighbour, Row, as_columns
from tapetum.runs.places import moved_to
from tapetum.runs.trained_run import open_trained_run

_NEIGHBOURS = 3
_IMAGES = ("bytes", "image", "path")
"""Columns that hold images; the first that a batch has is read."""


class Predictor:
    """Predicts the class of images as `predict` does, for engines that bring the images and keep the results.

    Such an engine makes one of these in each worker, and calls it with one batch after the other. With Ray Data:

        ray.data.read_binary_files("photos", include_paths=True).map_batches(
            tapetum.Predictor,
            fn_constructor_args=["runs/first"],
            batch_size=500,
            compute=ray.data.ActorPoolStrategy(size=2),
        ).write_parquet("predictions")

    Args:
        run: the run's folder, which all workers can read; its last checkpoint is used, or its best one with
            `trainer.keep_best`.
        neighbours: number of labelled images to list for each image; None for 3.
        reject: as for `predict`.
        plugins: modules to import first; they register methods.
        shared: whether processes that torchrun or srun started share the images of `rows` out.
        images, labels: where the run's own images and labels are now, if they have been moved.

    Raises:
        ValueError: there is no run folder, or `neighbours` or `reject` is out of range.

    Example:
        >>> import tapetum
        >>> predictor = tapetum.Predictor("runs/first")  # doctest: +SKIP
        >>> predictor({"path": ["photos/a.jpg"]})["label"]  # doctest: +SKIP
        array(['cat'], dtype=object)
    """

    def __init__(
        self,
        run: str | Path,
        neighbours: int | None = None,
        reject: float | None = None,
        plugins: Sequence[str] = (),
        shared: bool = False,
        *,
        images: str | Path | None = None,
        labels: str | Path | None = None,
    ) -> None:
        wanted = _NEIGHBOURS if neighbours is None else neighbours
        if wanted < 0:
            raise ValueError(f"neighbours is {wanted}: use 0 or more.")
        if reject is not None and not 0 < reject < 1:
            raise ValueError(f"reject is {reject:g}: use a share of the labelled images between 0 and 1, such as 0.05.")
        self._wanted, self._reject = wanted, reject
        self.trained = open_trained_run(run, plugins, shared=shared, moved=moved_to(images, labels))

    @cached_property
    def columns(self) -> Columns:
        """What all rows have in common."""
        return Columns(
            num_neighbours=min(self._wanted, len(self.trained.supports.labels)),
            is_calibrated=self.trained.calibration.is_calibrated,
            has_own_measure=type(self.trained.parts.method).in_domain is not Method.in_domain,
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """Predict a batch of n images.

        Args:
            batch: columns of n values. The images are in `bytes` (contents of image files), or else in `image` ((H, W)
                or (H, W, 3) uint8 arrays, or Hugging Face's {"bytes": ..., "path": ...}), or else in `path`.

        Returns:
            The batch without `bytes` and `image`, and the columns of the table that `predict` writes, but `path`: text,
            which is empty, and float64, which is NaN, where an image has none.

        Raises:
            ValueError: no column holds images.
        """
        images = next((batch[name] for name in _IMAGES if name in batch), None)
        if images is None:
            raise ValueError(f"the batch has the columns {', '.join(batch)}: name that of the images one of {_IMAGES}.")
        names = [str(name) for name in batch["path"]] if "path" in batch else None
        store = RowStore(images.__getitem__, len(images), names, self.trained.parts.recipe.data.shrink_to)
        rows = [row for part in self.rows(store) for row in part]
        kept = {name: np.asarray(values) for name, values in batch.items() if name not in ("bytes", "image")}
        return kept | as_columns(rows, self.columns)

    def rows(self, store: Store, begin: int = 0, batch_size: int = BATCH_SIZE) -> Iterator[list[Row]]:
        """Yield the rows of a store's images from number `begin` on, in order, a batch of them at a time."""
        embedder = self.trained.embedder_for(store)
        for chunk, outputs in embedder.stream(store, np.arange(begin, len(store)), batch_size):
            predicted = self._predicted(store, chunk, outputs) if len(chunk.indices) else {}
            failed = {i: Row(store.names[i], None, None, (), problem) for i, problem in chunk.unreadable.items()}
            yield [row for _, row in sorted((predicted | failed).items())]

    def _predicted(self, store: Store, chunk: ImageChunk, outputs: Outputs) -> dict[int, Row]:
        trained = self.trained
        predictions = predict_from(outputs, trained.supports, trained.predicts_by, self.columns.num_neighbours)
        confidence, labels = trained.calibration.probabilities(predictions.scores).max(dim=1)
        supports, names, classes = trained.supports.labels, trained.support_names, trained.classes
        in_domain = trained.domain.shares(outputs.embeddings)
        own = trained.parts.method.in_domain(predictions.nearest)
        columns = chunk.indices, labels, confidence, in_domain, predictions.neighbours, predictions.weights
        rows = {}
        for i, (index, label, sure, like, indices, weights) in enumerate(zip(*(column.tolist() for column in columns))):
            neighbours = [Neighbour(names[s], classes[supports[s]], w) for s, w in zip(indices, weights)]
            row = Row(store.names[index], classes[label], sure, neighbours, in_domain=like)
            row = row if own is None else row._replace(method_in_domain=float(own[i]))
            rows[index] = row if self._reject is None else row.rejected(self._reject)
        return rows
