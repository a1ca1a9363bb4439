"""Builds the parts of a run from a recipe: the only place where data, method, optimizer and engine meet."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tapetum.data.batch import Batch
from tapetum.data.batches.pipeline import Pipeline
from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.data.views.evaluation_views import evaluation_sizes
from tapetum.diagnosis.collapse_doctor import CollapseDoctor
from tapetum.diagnosis.history import Setting
from tapetum.engine.budget import Budget, LateNotice, Plan, resolve_steps
from tapetum.engine.callbacks import Callback, ProgressBar
from tapetum.engine.loggers import METRICS, tensorboard_logger
from tapetum.engine.runtime import Runtime, RuntimeConfig
from tapetum.engine.state import differences, fingerprint
from tapetum.engine.trainer import Trainer
from tapetum.evaluation.accuracy import Evaluation, embed_supports, evaluate_by
from tapetum.evaluation.embedding import Embedder
from tapetum.evaluation.nearest_neighbours import NEIGHBOURS
from tapetum.interchange.weights.initial_weights import load_initial_weights
from tapetum.methods.base import Method
from tapetum.methods.registry import method_class
from tapetum.nn.backbones import build_backbone, check_sizes
from tapetum.nn.batch_norm import convert_batch_norm
from tapetum.nn.recompute import recompute_blocks
from tapetum.ops.collectives import gather_on_all
from tapetum.ops.precision import narrow_buffers
from tapetum.ops.randomness import torch_seed
from tapetum.optim.optimizers import build_optimizer, set_schedules
from tapetum.recipe.recipe import Recipe, deciding_values
from tapetum.runs.best_checkpoint import best_weights, check_choosable
from tapetum.runs.pool import PoolData, open_pool
from tapetum.runs.test_set import check_evaluation
from tapetum.runs.timing import plan_of
from tapetum.system.launcher import launched
from tapetum.system.notices import notify


@dataclass
class Run:
    """The parts of a run, built but not started."""

    recipe: Recipe
    runtime: Runtime
    data: PoolData
    method: Method
    optimizer: torch.optim.Optimizer
    pipeline: Pipeline
    planned: tuple[Budget, Plan] | None = None
    """If this process has turned minutes into steps: what it counted with."""
    shared: bool = False
    """Whether processes share out the images that are embedded (`Embedder.shared`)."""
    classifies: bool = True
    """Whether the classes of the method's classifier, if it has one, are those of the labels."""

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.pipeline.batches_per_epoch // self.recipe.trainer.accumulate)

    @property
    def embedder(self) -> Embedder:
        """Runs the method over images in the recipe's evaluation view."""
        return Embedder(self.method, self.recipe.views, self.runtime, shared=self.shared, classifies=self.classifies)

    def embedder_for(self, store: Store) -> Embedder:
        """Return the embedder for a store's images; if their size differs from the pool's, they are resized to it."""
        own, pool = self.embedder, self.data.store
        if own.views.evaluation.resize is not None or store is pool or pool.image_size is None:
            return own
        evaluation = replace(own.views.evaluation, resize=min(pool.image_size))
        return replace(own, views=replace(own.views, evaluation=evaluation))

    @property
    def first_with_views(self) -> int:
        """The first step that sees unlabelled images; 0 before the number of steps is known."""
        return self.method.first_with_views(self.recipe.trainer.steps or 0)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of steps start..stop-1, `accumulate` batches per step."""
        return self.batches_of(start, stop, self.first_with_views)

    def batches_of(self, start: int, stop: int, views_from: int) -> Iterator[Batch]:
        """Like `batches`, with views of unlabelled images from a given step on."""
        factor = self.recipe.trainer.accumulate
        return self.pipeline.batches(
            start * factor,
            stop * factor,
            views_from=views_from * factor,
            workers=self.recipe.data.workers,
            device=self.runtime.device,
            channels_last=self.runtime.channels_last,
        )

    def resolve(self, began: float | None = None, folder: Path | None = None, num_test: int = 0) -> None:
        """Turn epochs or minutes into steps, and replace every automatic choice by the value chosen.

        Args:
            began: when the minutes began to run, by `time.perf_counter`; None for now.
            folder: where checkpoints will be written; None if nowhere.
            num_test: number of test images that will be evaluated after the last step.
        """
        began = time.perf_counter() if began is None else began

        def measure(minutes: float) -> int:
            budget = Budget(minutes=minutes, began=began)
            self.planned = budget, plan_of(self, budget, folder, num_test)
            return self.runtime.broadcast(budget.steps(self.planned[1]))

        trainer = resolve_steps(self.recipe.trainer, self.steps_per_epoch, measure)
        batches, accumulate = self.pipeline.batches_per_epoch, trainer.accumulate
        if self.recipe.trainer.epochs is not None and batches % accumulate:
            notify(
                f"trainer.accumulate is {accumulate}, which does not divide the {batches} batches of a pass over the "
                f"images: an epoch is {self.steps_per_epoch * accumulate} batches here."
            )
        self.recipe = replace(self.recipe, trainer=trainer, runtime=self.runtime.resolved())

    def embed_all(self, then: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the pool's indices, without held-out images, and `then` of this process's embeddings."""
        pool = self.data.pool
        rows = self.embedder.own_share(self.data.store, pool, then)
        return torch.from_numpy(pool), rows

    def _callbacks(self, folder: Path | None) -> list[Callback]:
        setting = setting_of(self.recipe, self.data.labels.num_classes)
        doctor = CollapseDoctor(setting, None if folder is None else folder / METRICS)
        logger = None
        if folder is not None and self.recipe.trainer.tensorboard:
            logger = tensorboard_logger(folder / "tensorboard")
        late = None if folder is None or self.planned is None else LateNotice(*self.planned, folder)
        return [
            ProgressBar(work=self._work),
            doctor,
            *(callback for callback in (logger, late) if callback is not None),
        ]

    def _work(self, step: int) -> float:
        """Time until so many steps are finished, in full steps: those without views take less."""
        early = min(step, self.first_with_views)
        if not early:
            return float(step)
        if self.planned is not None:
            costs = self.planned[1].costs
            share = costs.early_step / costs.step
        else:
            share = self.pipeline.share_of_supports
        return early * share + step - early

    def trainer(
        self,
        folder: Path | None,
        callbacks: list[Callback] | None = None,
        inexact: bool = False,
        part_of: Path | None = None,
    ) -> Trainer:
        """Make the trainer of a resolved run; it resumes from the checkpoints in `folder`, if any."""
        recipe, steps, data = self.recipe, self.recipe.trainer.steps, self.data.fingerprint
        assert steps is not None, "call resolve() first"

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
            embed_all=self.embed_all,
            inexact=inexact,
            part_of=part_of,
        )

    def _evaluate_held_out(self) -> Mapping[str, float]:
        assert self.data.held_out is not None
        evaluation = self.evaluate(self.data.store, self.data.held_out)
        nearest = evaluation.nearest_neighbours[NEIGHBOURS[0]]
        judges = {"soft_nn_top1": evaluation.soft_neighbours, "knn_top1": nearest}
        judges |= {"classifier_top1": evaluation.classifier} if evaluation.classifier is not None else {}
        return {name: judge.top1 for name, judge in judges.items()}

    def evaluate(self, store: Store, labels: Labels) -> Evaluation:
        """Evaluate the method on labelled images, with the training labels as supports."""
        supports = embed_supports(self.embedder, self.data.store, self.data.labels)
        known = self.embedder_for(store), supports, self.data.labels.classes
        return evaluate_by(*known, test=store, test_labels=labels)


def assemble(recipe: Recipe, *, weights: bool = True, decode: bool = True, trains: bool = True) -> Run:
    """Build every part of a run.

    Initial weights depend only on the recipe's seed, or are the weights that the recipe starts from.

    Args:
        weights: False if a checkpoint will replace the weights: those to start from are then not looked up or read.
        decode: False does not decode the pool's image files in advance, for callers that read few of them.
        trains: False for a run that will only be used: on one device, or in each process that a launcher started.

    Raises:
        ValueError: something does not fit; names the field and the fix.
    """
    recipe = recipe if trains else replace(recipe, runtime=_to_use(recipe.runtime))
    runtime = Runtime(recipe.runtime)
    runtime.launch()
    rank, world_size = (runtime.rank, runtime.world_size) if trains else (0, 1)  # its share of a batch
    kind = method_class(recipe.method.kind)
    data = open_pool(recipe.data, decode, needs_labels=kind.uses_support)
    if world_size > 1:
        _check_all_see(data)
    if recipe.trainer.keep_best:
        check_choosable(data.held_out)
    if kind.num_large_views not in (None, recipe.views.large.count):
        raise ValueError(
            f"views.large.count is {recipe.views.large.count} but {recipe.method.kind} compares "
            f"{kind.num_large_views} large views of each image: set it to {kind.num_large_views}."
        )
    if kind.needs_small_views and recipe.views.small is None:
        raise ValueError(
            f"views.small is null, but {recipe.method.kind} learns from small views, which are its strong ones: give "
            "views.small a size and strong augmentation, as fixmatch_cifar10_cpu does."
        )
    pipeline = Pipeline(
        data.store,
        data.labels,
        recipe.views,
        recipe.support if kind.uses_support else None,
        batch_size=recipe.data.batch_size if kind.uses_views else None,
        seed=recipe.seed,
        pool=data.pool,
        rank=rank,
        world_size=world_size,
    )
    check_evaluation(data.store, recipe.views)
    runtime.seed(torch_seed(recipe.seed, "weights"))
    backbone = build_backbone(recipe.backbone, in_channels=data.store.channels, published=weights)
    sizes = {"views.large.size": recipe.views.large.size, "views.evaluation.crop": recipe.views.evaluation.crop}
    resized = zip(recipe.views.evaluation.scales, evaluation_sizes(recipe.views.evaluation), strict=True)
    sizes |= {f"views.evaluation.scales: {scale:g} of crop": size for scale, size in resized if scale != 1}
    if recipe.views.small is not None:
        sizes["views.small.size"] = recipe.views.small.size
    check_sizes(backbone, sizes, channels=data.store.channels)
    if recipe.runtime.recompute == "blocks":
        recompute_blocks(backbone)
    method = kind(recipe.method, backbone, num_classes=data.labels.num_classes, num_images=len(data.store))
    narrow_buffers(method, runtime.device)
    method.support_chunk = None if recipe.support is None else recipe.support.chunk_here(world_size)
    if weights and recipe.init is not None:
        taken = load_initial_weights(method, recipe.init, best_weights(recipe.init))
        notify(f"started from {recipe.init}: {taken.describe()}")
    if world_size > 1:
        convert_batch_norm(method)
    return Run(recipe, runtime, data, method, build_optimizer(recipe.optimizer, method), pipeline)


def _check_all_see(data: PoolData) -> None:
    """Raise ValueError in all processes if one of them could not read an image that another could."""
    first, *others = gather_on_all(data.fingerprint)
    for rank, other in enumerate(others, start=1):
        if found := differences(first, other):
            raise ValueError(
                f"process {rank} sees other images or labels than the first ({'; '.join(found)}): make all of them "
                "readable from every machine, and start again."
            )


def _to_use(config: RuntimeConfig) -> RuntimeConfig:
    place, config = launched(), config.to_use()
    if place is None:
        return replace(config, devices=1)
    # Those of the training would be too many for several processes on one machine.
    return replace(config, devices=place.world_size, threads=None)


def setting_of(recipe: Recipe, num_classes: int | None) -> Setting:
    """Collect what the collapse doctor's rules need to know of a resolved recipe."""
    return Setting(
        method=recipe.method,
        batch_size=recipe.data.batch_size,
        total_steps=recipe.trainer.steps or 0,
        num_classes=num_classes or None,
        uses_labels=recipe.support is not None,
        processes=recipe.runtime.devices,
        starts_trained=recipe.init is not None or getattr(recipe.backbone, "pretrained", False),
    )
