"""Times the parts of a run before it trains, so that minutes can be turned into steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from tapetum.data.batch import Batch
from tapetum.engine.budget import Budget, Plan
from tapetum.engine.trial import measure_costs, timed
from tapetum.evaluation.accuracy import evaluate_by
from tapetum.evaluation.embedding import BATCH_SIZE
from tapetum.evaluation.prediction import Supports
from tapetum.methods.base import Method
from tapetum.system.notices import notify

if TYPE_CHECKING:
    from tapetum.runs.run import Run

_ANY_LENGTH = 1_000_000


def plan_of(run: Run, budget: Budget, folder: Path | None, num_test: int) -> Plan:
    """Measure what the parts of a run cost on this machine, as busy as it is now.

    Args:
        run: assembled, not resolved.
        budget: its length decides how long is measured.
        folder: where checkpoints will be written; None if nowhere.
        num_test: number of test images that will be evaluated after the last step.
    """
    notify("timing some steps to turn minutes into steps")
    data = run.recipe.data
    folds = (data.folds or 0) if data.fold is None else 0
    is_judged = bool(num_test or folds or run.data.held_out is not None)

    def evaluations(method: Method) -> tuple[float, float, float]:
        return _time_evaluations(replace(run, method=method), 0.01 * budget.seconds, num_test, folds)

    def with_views(start: int, stop: int) -> Iterator[Batch]:
        return run.batches_of(start, stop, views_from=0)

    def without_views(start: int, stop: int) -> Iterator[Batch]:
        return run.batches_of(start, stop, views_from=stop)

    costs = measure_costs(
        run.method,
        run.optimizer,
        with_views,
        seconds=budget.seconds,
        config=run.recipe.trainer,
        runtime=run.runtime,
        seed=run.recipe.seed,
        embed_all=lambda method: replace(run, method=method).embed_all,
        evaluations=evaluations if is_judged else None,
        early_batches=without_views if run.method.first_with_views(_ANY_LENGTH) else None,
        folder=folder,
    )
    return Plan(
        costs=costs,
        config=run.recipe.trainer,
        steps_per_epoch=run.steps_per_epoch,
        folds=folds,
        first_with_views=run.method.first_with_views,
    )


def _time_evaluations(run: Run, seconds: float, num_test: int, folds: int) -> tuple[float, float, float]:
    """Return the seconds of one evaluation on held-out labels, of those after the last step, and of the folds'."""
    labelled = len(run.data.labels.labelled)
    embed, judge = _time_images(run, seconds)
    held_out = test = folding = 0.0
    if run.data.held_out is not None:
        held_out = labelled * embed + len(run.data.held_out.labelled) * judge
    if num_test:
        test = labelled * embed + num_test * judge
    if folds:
        # Each short run is evaluated by its own training and once more after it; each label is judged by one run.
        folding = 2 * ((folds - 1) * labelled * embed + labelled * judge)
    return held_out, held_out + test, folding


def _time_images(run: Run, seconds: float) -> tuple[float, float]:
    """Return the seconds of embedding an image, and of judging one by all labelled images, embedding included.

    Only labelled images of the pool are looked at, about as long as `seconds`.
    """
    labels, store, embedder = run.data.labels, run.data.store, run.embedder
    rows = labels.labelled

    def some(count: int) -> npt.NDArray[np.int64]:
        return rows[np.arange(count) * len(rows) // count]

    few = some(min(len(rows), 16))
    embedder.outputs(store, few)  # the first call takes longer than all that follow
    _, first = timed(lambda: embedder.outputs(store, few))
    # Several batches, where images are many, so that some are read while others are embedded.
    most = min(len(rows), 4 * BATCH_SIZE, int(0.5 * seconds / first * len(few)))
    sample = some(max(len(few), most))
    outputs, embed = timed(lambda: embedder.outputs(store, sample))
    bank = outputs.embeddings[torch.arange(len(rows)) % len(sample)]
    supports = Supports(bank, torch.from_numpy(labels.values[rows].astype(np.int64)), labels.num_classes)
    judged = labels.only(sample)
    _, judge = timed(lambda: evaluate_by(embedder, supports, labels.classes, test=store, test_labels=judged))
    return embed / len(sample), judge / len(sample)
