"""Loads a trained run from its folder: its network and its labelled images, which together predict other images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels, sorted_classes
from tapetum.engine.checkpoint import CHECKPOINTS, Checkpoint, latest_checkpoint
from tapetum.evaluation.accuracy import Evaluation, Neighbourhood, evaluate_by
from tapetum.evaluation.calibration import MIN_LABELS, Calibration, calibrate
from tapetum.evaluation.embedding import Embedder, Outputs
from tapetum.evaluation.in_domain import Domain, learn_domain
from tapetum.evaluation.prediction import Supports, predict_from
from tapetum.methods.registry import load_plugins
from tapetum.recipe.files import RECIPE
from tapetum.runs.added_classes import AddedClass, read_added_classes, weights_digest
from tapetum.runs.best_checkpoint import best_checkpoint
from tapetum.runs.places import located
from tapetum.runs.pool import has_labels_of
from tapetum.runs.run import Run, assemble
from tapetum.runs.run_folder import open_run_folder
from tapetum.system.notices import notify

Indices = npt.NDArray[np.int64]
NONE_HELD_OUT: dict[str, Any] = {"held_out_per_class": None, "held_out_share": None}
"""Fields of `data` for other labels than a run's: another draw of what is held out would hold some that trained it."""


@dataclass(frozen=True)
class TrainedRun:
    """A run's checkpoint with everything needed to use it."""

    folder: Path
    parts: Run
    """The parts of the run; the method has the trained weights."""
    checkpoint: Checkpoint
    """The last one, or the best one of a finished run with `trainer.keep_best`."""
    is_finished: bool
    added: tuple[AddedClass, ...] = ()
    """Labelled images that were added after training."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of training and those that were added."""
        return sorted_classes([*self.parts.data.labels.classes, *(images.label for images in self.added)])

    @property
    def new_classes(self) -> tuple[str, ...]:
        """Classes that training did not have."""
        return tuple(name for name in self.classes if name not in self.parts.data.labels.classes)

    @cached_property
    def labels(self) -> Labels:
        """Training labels, as indices into `classes`."""
        return self.parts.data.labels.in_order_of(self.classes)

    @property
    def predicts_by(self) -> str:
        return self.parts.method.predicts_by

    def has_own(self, *parts: str) -> bool:
        """Whether parts of the data, "data", "pool", "labels" or "held_out", are those of the training."""
        saved, now = self.checkpoint.scalars.get("fingerprint", {}), self.parts.data.fingerprint
        return all(saved.get(part) == now.get(part) for part in parts)

    @property
    def has_own_labels(self) -> bool:
        """Whether the labels, also those held out, are those of the training, whatever unlabelled images there are."""
        return has_labels_of(self.checkpoint.scalars.get("fingerprint", {}), self.parts.data.fingerprint)

    @cached_property
    def held_out(self) -> Labels | None:
        """Labels that were kept out of training; None if there are none or if labels have changed since."""
        if not self.has_own_labels:
            notify("the labels have changed since training, so none of them counts as held out")
            return None
        held_out = self.parts.data.held_out
        return None if held_out is None else held_out.in_order_of(self.classes)

    @cached_property
    def all_labels(self) -> Labels:
        """Training and held-out labels: after training, held-out ones support predictions, too."""
        labels, held_out = self.labels, self.parts.data.held_out
        if held_out is None:
            return labels
        values = np.maximum(labels.values, held_out.in_order_of(self.classes).values)
        return replace(labels, values=values)

    @cached_property
    def supports(self) -> Supports:
        """All labelled images, in the order of `all_labels.labelled`, and after them those that were added."""
        return self._supports(self.all_labels)

    @cached_property
    def support_names(self) -> tuple[str, ...]:
        """Names of the images of `supports`."""
        names = [self.all_labels.names[i] for i in self.all_labels.labelled]
        return (*names, *(name for images in self.added for name in images.names))

    @cached_property
    def training_supports(self) -> Supports:
        """As `supports`, but without held-out labels; used to evaluate on these."""
        return self._supports(self.labels)

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration of confidences on the held-out labels, with the training labels and added images as supports."""
        if self.held_out is None:
            return calibrate(torch.empty(0, len(self.classes)), torch.empty(0, dtype=torch.int64))
        outputs, labels = self._outputs_of(self.held_out)
        predictions = predict_from(outputs, self.training_supports, self.predicts_by, 0)
        return replace(calibrate(predictions.scores, labels), unseen=self.new_classes)

    @cached_property
    def domain(self) -> Domain:
        """What images of the classes look like, and those that were labelled as none of them.

        Resemblance is measured by the held-out labels if there are enough: the network has moved the others together.
        """
        known, held_out = self.supports.embeddings, self.held_out
        others, judged = known[:0], None
        if len(self.labels.none):
            others = self.parts.embedder.outputs(self.parts.data.store, self.labels.none).embeddings
        if held_out is not None and len(held_out.labelled) >= MIN_LABELS:
            judged = torch.from_numpy(np.searchsorted(self.all_labels.labelled, held_out.labelled))
        return learn_domain(known, others, judged)

    @cached_property
    def digest(self) -> str:
        """Hash of the weights and labels that predictions depend on."""
        parts = [weights_digest(self.checkpoint), self.parts.data.labels.fingerprint]
        parts += [] if self.parts.data.held_out is None else [self.parts.data.held_out.fingerprint]
        parts += [self.labels.names[i] for i in self.labels.none]
        parts += [text for images in self.added for text in (images.label, *images.hashes)]
        return hashlib.blake2b("\0".join(parts).encode(errors="surrogateescape"), digest_size=16).hexdigest()

    def embedder_for(self, store: Store) -> Embedder:
        """Return the embedder for a store's images (`Run.embedder_for`)."""
        return self.parts.embedder_for(store)

    def check_names(self, all_parts: bool = False) -> None:
        """Raise ValueError if a classifier that predicts, or any with `all_parts`, would get other classes' names."""
        has_classifier = getattr(self.parts.method, "classifier", None) is not None
        if not self.parts.classifies and (self.predicts_by == "classifier" or (all_parts and has_classifier)):
            then, now = self.checkpoint.scalars["fingerprint"]["classes"], self.parts.data.told_classes
            raise ValueError(
                f"{self.folder} has a classifier for the classes {then}, but the labels now name {now}: name "
                f"them as they were, or train with the new ones, for example by `tapetum fit --init {self.folder}`."
            )

    def evaluate(self, store: Store, labels: Labels, neighbourhood: Neighbourhood | None = None) -> Evaluation:
        """Evaluate on labelled images, with the training labels and added images as supports."""
        known = self.embedder_for(store), self.training_supports, self.classes
        return evaluate_by(*known, test=store, test_labels=labels, neighbourhood=neighbourhood)

    def _supports(self, labels: Labels) -> Supports:
        parts = [(images.embeddings, self._class_of(images)) for images in self.added]
        if len(labels.labelled):
            outputs, classes = self._outputs_of(labels)
            parts.insert(0, (outputs.embeddings, classes))
        embeddings, of_classes = zip(*parts)
        return Supports(torch.cat(embeddings), torch.cat(of_classes), len(self.classes))

    def _class_of(self, images: AddedClass) -> Tensor:
        """(n,) class of each image."""
        return torch.full((len(images),), self.classes.index(images.label))

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
    run: str | Path,
    plugins: Sequence[str] = (),
    decode: bool = False,
    needs_labels: bool = True,
    data: Mapping[str, Any] | None = None,
    shared: bool = False,
    moved: Mapping[str, str] | None = None,
) -> TrainedRun:
    """Load what a run predicts by, on one device, or in each of the processes that a launcher started.

    That is its last checkpoint or, of a finished run with `trainer.keep_best`, its best one.

    Args:
        run: the run folder.
        plugins: modules to import first, which register methods.
        decode: True decodes the pool into a cache, which pays off if all its images are about to be read.
        needs_labels: whether the caller predicts from labelled images.
        data: fields of the recipe's `data` to change, for example to other labels; none of these counts as held out.
        shared: whether these processes share out the images that are embedded; all of them must then call alike.
        moved: where the run's images and labels are now, from `tapetum.runs.places.moved_to`.

    Raises:
        ValueError: it is not a run folder, it has no checkpoint that fits its recipe, its images are gone or `moved`
            says that they are where other images are, or no image is labelled although labels are needed.
    """
    load_plugins(plugins)
    folder, recipe = open_run_folder(run)
    data, moved = data or {}, moved or {}
    recipe = located(folder, recipe, {name: data[name] for name in ("images", "labels") if data.get(name)} | {**moved})
    if data:  # nothing will be trained, so the other images may be fewer than a batch
        others = {} if data.keys() <= {"images", "labels"} else NONE_HELD_OUT
        recipe = replace(recipe, data=replace(recipe.data, **{"batch_size": 1, **others, **data}))
    parts = assemble(recipe, weights=False, decode=decode, trains=False)
    parts.shared = shared
    checkpoint = latest_checkpoint(folder / CHECKPOINTS, notify)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint yet: finish it with `tapetum resume {folder}`.")
    is_finished = checkpoint.step == recipe.trainer.steps
    if is_finished and recipe.trainer.keep_best:
        checkpoint = best_checkpoint(folder, parts.method.predicts_by)
    state, names = checkpoint.part("method"), parts.data.told_classes
    parts.classifies = checkpoint.scalars.get("fingerprint", {}).get("classes", names) == names
    if not parts.classifies:
        state = _without_classes(state, parts)
    try:
        parts.method.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the checkpoint in {folder} is of another model than its {RECIPE} describes: restore the run's own recipe."
        ) from error
    parts.runtime.equip(parts.method)
    trained = TrainedRun(folder, parts, checkpoint, is_finished, read_added_classes(folder, checkpoint))
    if "images" in moved and not trained.has_own("data"):
        then, now = checkpoint.scalars["fingerprint"].get("data"), parts.data.fingerprint["data"]
        raise ValueError(
            f"{moved['images']} does not hold the images that {folder} was trained on (then {then}, now {now}): give "
            "the folder that they were moved to."
        )
    spares = any(getattr(recipe.data, name) is not None for name in NONE_HELD_OUT)
    if data and spares and not trained.has_own("data", "labels"):
        # Not where the run's own images are now, but others: all their labels are meant.
        return open_trained_run(run, plugins, decode, needs_labels, {**data, **NONE_HELD_OUT}, shared)
    if needs_labels:
        trained.check_names()
        _check_classes(trained)
    return trained


def _without_classes(state: Mapping[str, Tensor], parts: Run) -> dict[str, Tensor]:
    """Replace what a checkpoint holds for another number of classes by random values, which nothing will ask for."""
    own, count = parts.method.state_dict(), parts.data.labels.num_classes

    def is_of_classes(name: str, tensor: Tensor) -> bool:
        ours = own[name].shape if name in own else tensor.shape
        return ours != tensor.shape and ours[:1] == (count,) and ours[1:] == tensor.shape[1:]

    return {name: own[name] if is_of_classes(name, tensor) else tensor for name, tensor in state.items()}


def _check_classes(trained: TrainedRun) -> None:
    """Raise ValueError if there are no two classes to predict."""
    folder = trained.folder
    if not trained.classes:
        raise ValueError(
            f"{folder} was trained without labels, so it has no classes to predict: see what it learned with "
            f"`tapetum cluster` or `tapetum embed`, give it classes with `tapetum add-class`, or continue from it with "
            f"labels by `tapetum fit --images DIR --labels FILE --init {folder}`."
        )
    if len(trained.classes) == 1:
        raise ValueError(
            f"{folder} has one class, {trained.classes[0]}, and there is nothing to choose between: add another with "
            f"`tapetum add-class {folder} DIR`."
        )
