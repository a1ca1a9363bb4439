"""From a recipe to the parts of a run: the one place where data, method, optimizer and engine meet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tapetum.data.batch import Batch
from tapetum.data.cache import decoded
from tapetum.data.labels import Labels, drawn_labels, held_out
from tapetum.data.pipeline import DataConfig, Pipeline
from tapetum.data.readable import Unreadable
from tapetum.data.sources import Source, open_source
from tapetum.data.stores import Store
from tapetum.data.views import ViewsConfig
from tapetum.engine.budget import measure_steps, resolve_steps
from tapetum.engine.callbacks import Callback, ProgressBar, notify
from tapetum.engine.loggers import tensorboard_logger
from tapetum.engine.runtime import Runtime
from tapetum.engine.state import fingerprint
from tapetum.engine.trainer import Trainer
from tapetum.evaluation.embedding import run_method
from tapetum.evaluation.nearest_neighbours import NEIGHBOURS
from tapetum.evaluation.soft_neighbours import Evaluation, evaluate_method
from tapetum.initial_weights import load_initial_weights
from tapetum.methods import method_class
from tapetum.methods.base import Method
from tapetum.nn.backbones import build_backbone, check_sizes
from tapetum.nn.batch_norm import convert_batch_norm
from tapetum.opening import open_test_part, report_decoding, skip_unreadable
from tapetum.ops.randomness import torch_seed
from tapetum.optim import build_optimizer, set_schedules
from tapetum.recipe import Recipe, deciding_values


@dataclass(frozen=True)
class PoolData:
    """The images and labels of a run."""

    store: Store
    labels: Labels
    """Labels that training uses; -1 for all other images."""
    held_out: Labels | None
    """Labels kept out of everything but the accuracy while training."""
    pool: npt.NDArray[np.int64]
    """Images that may be drawn unlabelled."""
    description: str
    unreadable: tuple[Unreadable, ...] = ()
    """Image files that were skipped."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """How many there are of each part and a hash of them: a refusal to resume names the parts that differ."""
        pool = hashlib.blake2b(np.ascontiguousarray(self.pool).tobytes()).hexdigest()
        parts = {
            "data": (len(self.store), self.store.fingerprint),
            "pool": (len(self.pool), pool),
            "labels": (len(self.labels.labelled), self.labels.fingerprint),
        }
        if self.held_out is not None:
            parts["held_out"] = (len(self.held_out.labelled), self.held_out.fingerprint)
        return {name: f"{count} images ({digest[:12]})" for name, (count, digest) in parts.items()}


def open_pool(config: DataConfig, decode: bool = True) -> PoolData:
    """Open, decode and check the pool of a recipe (unless few of its images will be read), and choose its labels.

    Raises:
        ValueError: no images, no labels, an unreadable image, too few labels; names the file or field.
    """
    if config.images is None:
        raise ValueError("data.images is not set: name the folder of images, for example data.images=photos.")
    source = open_source(config.images, config.labels)
    if source.labels is None:
        raise ValueError(
            f"{config.images} has no labels: give a CSV of path,label lines as data.labels, or one folder a class."
        )
    source, unreadable = skip_unreadable(source, config.strict)
    store = decoded(source.store, report=report_decoding) if decode else source.store
    labels, kept_out = source.labels, None
    assert labels is not None
    if config.held_out_per_class is not None:
        with _blamed_on("data.held_out_per_class"):
            labels, kept_out = held_out(labels, per_class=config.held_out_per_class, seed=config.label_seed)
    with _blamed_on("data.labels_per_class" if config.labels_percent is None else "data.labels_percent"):
        labels = drawn_labels(labels, config.labels_per_class, config.labels_percent, config.label_seed)
    if config.held_out_share is not None:
        with _blamed_on("data.held_out_share"):
            labels, kept_out = held_out(labels, fraction=config.held_out_share, seed=config.label_seed)
    pool = np.arange(len(store)) if config.pool else labels.labelled
    if kept_out is not None:
        pool = np.setdiff1d(pool, kept_out.labelled)
    return PoolData(store, labels, kept_out, pool, source.description, tuple(unreadable))


def find_test(path: str | Path, classes: tuple[str, ...]) -> Source:
    """Labelled test images, their labels in the class order of training; nothing is decoded yet."""
    source = open_test_part(path)
    if source.labels is None:
        raise ValueError(f"{path} has no labels to judge by: give one folder a class.")
    return replace(source, labels=source.labels.in_order_of(classes))


@contextmanager
def _blamed_on(field: str) -> Iterator[None]:
    """Puts the field of a recipe before what a function says that knows of no recipe."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def open_test(path: str | Path, classes: tuple[str, ...], strict: bool = False) -> tuple[Store, Labels]:
    """Labelled test images, their labels in the class order of training.

    A source with a test part of its own gives that part; any other is taken whole. Images that cannot be read are
    skipped, with a notice, or refused where `strict`.

    Raises:
        ValueError: nothing there, a damaged test part, no labels, or a class that training did not know.
    """
    source, _ = skip_unreadable(find_test(path, classes), strict)
    assert source.labels is not None
    return decoded(source.store, report=report_decoding), source.labels


def check_evaluation(store: Store, views: ViewsConfig, trained_on: Store | None = None) -> None:
    """Whether images can be judged, asked before training and not after it.

    Raises:
        ValueError: images smaller than the evaluation's crop, of other channels, or the very images trained on.
    """
    if trained_on is not None and store.fingerprint == trained_on.fingerprint:
        raise ValueError(
            "the test images are the images trained on, whose accuracy says nothing about new ones: name others, or "
            "keep some out of training with data.held_out_per_class."
        )
    if store.channels != len(views.mean):
        raise ValueError(
            f"the images to judge have {store.channels} channels but views.mean has {len(views.mean)} numbers: "
            "train and judge with images of one kind."
        )
    crop, smallest = views.evaluation.crop, int(store.sizes.min())
    if views.evaluation.resize is None and smallest < crop:
        raise ValueError(
            f"views.evaluation.crop is {crop} but an image is {smallest} pixels wide or high: "
            f"set views.evaluation.resize to {crop} or more."
        )


@dataclass
class Run:
    """The parts of a run, built but not started."""

    recipe: Recipe
    runtime: Runtime
    data: PoolData
    method: Method
    optimizer: torch.optim.Optimizer
    pipeline: Pipeline

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.pipeline.batches_per_epoch // self.recipe.trainer.accumulate)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of steps start..stop-1, `accumulate` for each."""
        factor = self.recipe.trainer.accumulate
        return self.pipeline.batches(
            start * factor,
            stop * factor,
            workers=self.recipe.data.workers,
            device=self.runtime.device,
            channels_last=self.runtime.channels_last,
        )

    def resolve(self) -> None:
        """Turn epochs or minutes into steps, and every automatic choice into what was chosen."""
        trainer = resolve_steps(self.recipe.trainer, self.steps_per_epoch, self._measure)
        self.recipe = replace(self.recipe, trainer=trainer, runtime=self.runtime.resolved())

    def _measure(self, minutes: float) -> int:
        notify("timing some steps to turn minutes into steps")
        return measure_steps(
            self.method,
            self.optimizer,
            self.batches,
            minutes=minutes,
            steps_per_epoch=self.steps_per_epoch,
            config=self.recipe.trainer,
            runtime=self.runtime,
            seed=self.recipe.seed,
            embed_all=self._embed_all,
        )

    def _embed_all(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices and embeddings of the pool, without images held out."""
        pool = self.data.pool
        outputs = run_method(self.method, self.data.store, pool, self.recipe.views, self.runtime)
        return torch.from_numpy(pool), outputs.embeddings

    def _callbacks(self, folder: Path | None) -> list[Callback]:
        logger = None
        if folder is not None and self.recipe.trainer.tensorboard:
            logger = tensorboard_logger(folder / "tensorboard")
        return [ProgressBar()] if logger is None else [ProgressBar(), logger]

    def trainer(self, folder: Path | None, callbacks: list[Callback] | None = None, inexact: bool = False) -> Trainer:
        """The trainer of a resolved run; it resumes from checkpoints that `folder` holds."""
        recipe, steps, data = self.recipe, self.recipe.trainer.steps, self.data.fingerprint
        assert steps is not None, "resolve() comes first"

        def schedule(step: int) -> None:
            set_schedules(self.optimizer, recipe.optimizer, step, self.steps_per_epoch, steps)

        return Trainer(
            self.method,
            self.optimizer,
            schedule,
            self.batches,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=steps,
            config=recipe.trainer,
            runtime=self.runtime,
            folder=folder,
            callbacks=self._callbacks(folder) if callbacks is None else callbacks,
            seed=recipe.seed,
            fingerprint={**fingerprint(self.runtime, data=data["data"]), **data, **deciding_values(recipe)},
            evaluate=self._evaluate_held_out if self.data.held_out is not None else None,
            embed_all=self._embed_all,
            inexact=inexact,
        )

    def _evaluate_held_out(self) -> Mapping[str, float]:
        assert self.data.held_out is not None
        evaluation = self.evaluate(self.data.store, self.data.held_out)
        nearest = evaluation.nearest_neighbours[NEIGHBOURS[0]]
        judges = {"soft_nn_top1": evaluation.soft_neighbours, "knn_top1": nearest}
        judges |= {"classifier_top1": evaluation.classifier} if evaluation.classifier is not None else {}
        return {name: judge.top1 for name, judge in judges.items()}

    def evaluate(self, store: Store, labels: Labels) -> Evaluation:
        """Judge the method on labelled images, with the training labels as supports."""
        return evaluate_method(
            self.method,
            self.recipe.views,
            self.runtime,
            pool=self.data.store,
            pool_labels=self.data.labels,
            test=store,
            test_labels=labels,
        )


def assemble(recipe: Recipe, *, weights: bool = True, decode: bool = True) -> Run:
    """Build every part of a run.

    Initial weights are a function of the recipe's seed, or those that it starts from.

    Args:
        weights: False where a checkpoint will replace them: weights to start from are then neither looked for nor read.
        decode: False leaves image files in the pool as they are, where few of them will be read.

    Raises:
        ValueError: whatever does not fit: names the field and the fix.
    """
    runtime = Runtime(recipe.runtime)
    runtime.launch()
    data = open_pool(recipe.data, decode)
    kind = method_class(recipe.method.kind)
    if kind.num_large_views not in (None, recipe.views.large.count):
        raise ValueError(
            f"views.large.count is {recipe.views.large.count} but {recipe.method.kind} compares "
            f"{kind.num_large_views} large views of each image: set it to {kind.num_large_views}."
        )
    pipeline = Pipeline(
        data.store,
        data.labels,
        recipe.views,
        recipe.support if kind.uses_support else None,
        batch_size=recipe.data.batch_size if kind.uses_views else None,
        seed=recipe.seed,
        pool=data.pool,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    check_evaluation(data.store, recipe.views)
    runtime.seed(torch_seed(recipe.seed, "weights"))
    backbone = build_backbone(recipe.backbone, in_channels=data.store.channels, published=weights)
    sizes = {"views.large.size": recipe.views.large.size, "views.evaluation.crop": recipe.views.evaluation.crop}
    if recipe.views.small is not None:
        sizes["views.small.size"] = recipe.views.small.size
    check_sizes(backbone, sizes, channels=data.store.channels)
    method = kind(recipe.method, backbone, num_classes=data.labels.num_classes, num_images=len(data.store))
    if weights and recipe.init is not None:
        report = load_initial_weights(method, recipe.init)
        if runtime.rank == 0:
            notify(report)
    if runtime.world_size > 1:
        convert_batch_norm(method)
    return Run(recipe, runtime, data, method, build_optimizer(recipe.optimizer, method), pipeline)
