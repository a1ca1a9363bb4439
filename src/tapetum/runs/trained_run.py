"""Loads a trained run from its folder: its network and its labelled images, which together predict other images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.engine.checkpoint import CHECKPOINTS, Checkpoint, latest_checkpoint
from tapetum.evaluation.calibration import Calibration, calibrate
from tapetum.evaluation.embedding import Embedder, Outputs
from tapetum.evaluation.prediction import Supports, predict_from
from tapetum.methods.registry import load_plugins
from tapetum.recipe.files import RECIPE
from tapetum.runs.best_checkpoint import best_checkpoint
from tapetum.runs.run import Run, assemble
from tapetum.runs.run_folder import open_run_folder
from tapetum.system.notices import notify

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainedRun:
    """A run's checkpoint with everything needed to use it."""

    folder: Path
    parts: Run
    """The parts of the run; the method has the trained weights."""
    checkpoint: Checkpoint
    """The last one, or the best one of a finished run with `trainer.keep_best`."""
    is_finished: bool

    @property
    def classes(self) -> tuple[str, ...]:
        return self.parts.data.labels.classes

    @property
    def predicts_by(self) -> str:
        return self.parts.method.predicts_by

    @cached_property
    def held_out(self) -> Labels | None:
        """Labels that were kept out of training; None if there are none or if labels have changed since."""
        saved, now = self.checkpoint.scalars.get("fingerprint", {}), self.parts.data.fingerprint
        if any(saved.get(part) != now.get(part) for part in ("labels", "held_out")):
            notify("the labels have changed since training, so none of them counts as held out")
            return None
        return self.parts.data.held_out

    @cached_property
    def all_labels(self) -> Labels:
        """Training and held-out labels: after training, held-out ones support predictions, too."""
        labels, held_out = self.parts.data.labels, self.parts.data.held_out
        if held_out is None:
            return labels
        return Labels(labels.classes, labels.names, np.maximum(labels.values, held_out.values))

    @cached_property
    def supports(self) -> Supports:
        """All labelled images, in the order of `all_labels.labelled`."""
        return self._supports(self.all_labels)

    @cached_property
    def training_supports(self) -> Supports:
        """Images with training labels, in the order of their `labelled`; used to evaluate on held-out labels."""
        return self._supports(self.parts.data.labels)

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration of confidences on the held-out labels, with the training labels as supports."""
        if self.held_out is None:
            return calibrate(torch.empty(0, len(self.classes)), torch.empty(0, dtype=torch.int64))
        outputs, labels = self._outputs_of(self.held_out)
        predictions = predict_from(outputs, self.training_supports, self.predicts_by, 0)
        return calibrate(predictions.scores, labels)

    @cached_property
    def digest(self) -> str:
        """Hash of the weights and labels that predictions depend on."""
        digest = hashlib.blake2b(self.all_labels.fingerprint.encode(), digest_size=16)
        for name, tensor in sorted(self.checkpoint.part("method").items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def embedder_for(self, store: Store) -> Embedder:
        """Return the embedder for a store's images; if their size differs from the pool's, they are resized to it."""
        own, pool = self.parts.embedder, self.parts.data.store
        if own.views.evaluation.resize is not None or store is pool or pool.image_size is None:
            return own
        evaluation = replace(own.views.evaluation, resize=min(pool.image_size))
        return replace(own, views=replace(own.views, evaluation=evaluation))

    def _supports(self, labels: Labels) -> Supports:
        outputs, classes = self._outputs_of(labels)
        return Supports(outputs.embeddings, classes, labels.num_classes)

    def _outputs_of(self, labels: Labels) -> tuple[Outputs, Tensor]:
        """Return the method's outputs for labelled images of the pool, and their classes."""
        rows = labels.labelled
        among = torch.from_numpy(np.searchsorted(self.all_labels.labelled, rows))
        embeddings, logits = self._labelled_outputs
        chosen = Outputs(embeddings[among], None if logits is None else logits[among])
        return chosen, torch.from_numpy(labels.values[rows])

    @cached_property
    def _labelled_outputs(self) -> Outputs:
        """Outputs for all labelled images, kept so that each image is read only once."""
        return self.parts.embedder.outputs(self.parts.data.store, self.all_labels.labelled)


def open_trained_run(
    run: str | Path, plugins: Sequence[str] = (), decode: bool = False, needs_labels: bool = True
) -> TrainedRun:
    """Load the last checkpoint of a run, on one device.

    Args:
        run: the run folder.
        plugins: modules to import first, which register methods.
        decode: True decodes the pool into a cache, which pays off if all its images are about to be read.
        needs_labels: whether the caller predicts from labelled images.

    Raises:
        ValueError: it is not a run folder, it has no checkpoint that fits its recipe, its images are gone, or no
            image is labelled although labels are needed.
    """
    load_plugins(plugins)
    folder, recipe = open_run_folder(run)
    parts = assemble(replace(recipe, runtime=replace(recipe.runtime, devices=1)), weights=False, decode=decode)
    if needs_labels and not parts.data.labels.num_classes:
        raise ValueError(
            f"{folder} was trained without labels, so it has no classes to predict: see what it learned with "
            f"`tapetum cluster` or `tapetum embed`, or continue from it with labels by `tapetum fit DIR --labels "
            f"FILE --init {folder}`."
        )
    checkpoint = latest_checkpoint(folder / CHECKPOINTS, notify)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint yet: finish it with `tapetum resume {folder}`.")
    is_finished = checkpoint.step == recipe.trainer.steps
    if is_finished and recipe.trainer.keep_best:
        checkpoint = best_checkpoint(folder, parts.method.predicts_by)
    try:
        parts.method.load_state_dict(checkpoint.part("method"))
    except RuntimeError as error:
        raise ValueError(
            f"the checkpoint in {folder} is of another model than its {RECIPE} describes: restore the run's own recipe."
        ) from error
    parts.runtime.setup(parts.method, parts.optimizer)
    return TrainedRun(folder, parts, checkpoint, is_finished)
