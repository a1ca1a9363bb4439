"""Recipes that train given weights further with labels: the published ways to judge or to use a representation.

`finetune` trains backbone and a linear classifier; `linear_crops` the classifier alone, on random crops; `suncet` lets
each labelled image find its class among its neighbours, as PAWS was fine-tuned on CIFAR-10.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tapetum.data.batches.samplers import SupportConfig
from tapetum.data.views.draw import ViewConfig, ViewsConfig
from tapetum.engine.trainer_config import TrainerConfig
from tapetum.methods.finetune import FinetuneConfig
from tapetum.methods.fixmatch import FixMatchConfig
from tapetum.methods.suncet import SuNCEtConfig
from tapetum.nn.heads import HeadConfig
from tapetum.optim.optimizers import LARSConfig, ScheduleConfig, SGDConfig
from tapetum.recipe.from_weights import TIMM
from tapetum.recipe.recipe import Recipe, dump_recipe, parse_recipe
from tapetum.runs.added_classes import added_labels
from tapetum.runs.pool import PoolData, open_pool
from tapetum.runs.run_folder import open_run_folder
from tapetum.runs.test_set import find_test
from tapetum.runs.weights import check_unseen_by_run
from tapetum.system.notices import notify

TUNING = ("finetune", "suncet", "linear_crops")
"""The ways of this file."""
_BATCH = 256
_EPOCHS, _FEWEST_STEPS = 50, 200
_LINEAR_EPOCHS = 100
_SUNCET_STEPS, _SUNCET_IMAGES = 180, 64
"""As published for CIFAR-10."""
_SUNCET_POOL = 64  # unlabelled images are drawn and not used


def tuning_recipe(base: Recipe, way: str, weights: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe that trains weights further.

    Images, labels, network, evaluation view and seed stay those of `base`. Labelled images are cropped and flipped as
    there; their colours stay as they are, as in the published fine-tunings.

    Args:
        base: the recipe of the run that made the weights, or of `recipe_for_weights`.
        way: one of `TUNING`.
        weights: where to start: a run, a file of tensors, or `timm:NAME`.
        overrides: `key.path=value` each.

    Raises:
        ValueError: the images of `base` are gone or have no labels, labels of test images trained the weights, or an
            override is wrong.
    """
    if added := added_labels(Path(weights)):
        notify(
            f"images of {', '.join(added)} were added to {weights} after its training, and are not trained with: to do "
            "so, put them and their labels into the pool."
        )
    pool = open_pool(base.data, decode=False)
    num_labels = len(pool.labels.labelled)
    batch = _shared(min(_BATCH, num_labels), base)
    changes: dict[str, Any]
    if way == "suncet":
        changes = _suncet(base, pool)
    else:
        frozen = way == "linear_crops"
        epochs = _LINEAR_EPOCHS if frozen else _EPOCHS
        steps = max(_FEWEST_STEPS, epochs * num_labels // batch)
        changes = {
            "method": FinetuneConfig(freeze_backbone=frozen, classifier_start="normal" if frozen else "zero"),
            "support": SupportConfig(batch_size=batch),
            "optimizer": _linear_optimizer() if frozen else _finetune_optimizer(),
            "views": _cropped(base.views),
            "trainer": TrainerConfig(steps=steps),
        }
    name = base.description.rstrip(".")
    changes = {"data": replace(base.data, folds=None, fold=None)} | changes
    start = None if str(weights).startswith(TIMM) else str(weights)
    recipe = replace(base, init=start, description=f"{way} after: {name}", **changes)
    recipe = parse_recipe(dump_recipe(recipe), f"the settings for {way}", overrides)
    if recipe.data.test is not None:
        tests = find_test(recipe.data.test, pool.labels.classes)
        check_unseen_by_run(weights, recipe.data, tests, recipe.data.test)
    return recipe


def _finetune_optimizer() -> SGDConfig:
    return SGDConfig(lr=ScheduleConfig(peak=0.1), nesterov=True, weight_decay=0.0, backbone_lr=0.1)


def _linear_optimizer() -> SGDConfig:
    lr = ScheduleConfig(peak=0.3, per_epoch=True)
    return SGDConfig(lr=lr, nesterov=False, weight_decay=1e-6, exclude=False)


def refuse_other(folder: Path, data: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise ValueError if an evaluation in a folder, which would go on, was of other images, labels or settings."""
    _, stored = open_run_folder(folder)
    text = dump_recipe(stored)
    other = [name for name, value in data.items() if value is not None and not _same(getattr(stored.data, name), value)]
    # What a recipe holds once it has run: minutes as steps, and what the machine decided.
    told = [setting for setting in overrides if not setting.startswith(("runtime.", "trainer.minutes="))]
    other += [setting for setting in told if parse_recipe(text, str(folder), [setting]) != stored]
    if other:
        raise ValueError(
            f"{folder} holds an evaluation with other settings than {', '.join(other)}: give --output RUN for this "
            "one, or remove that folder."
        )


def _same(stored: Any, given: Any) -> bool:
    """Whether two values of a field of `data` are equal, or paths to the same file."""
    if isinstance(stored, str) and isinstance(given, str):
        return stored == given or os.path.realpath(stored) == os.path.realpath(given)
    return bool(stored == given)


def _suncet(base: Recipe, pool: PoolData) -> dict[str, Any]:
    has_projector = not isinstance(base.method, FixMatchConfig) or base.method.suncet_weight
    head = (getattr(base.method, "head", None) if has_projector else None) or HeadConfig(layers=0)
    per_class = len(pool.labels.labelled) // pool.labels.num_classes
    images = _shared(min(_SUNCET_IMAGES, max(2, per_class)), base)
    batch = _shared(min(_SUNCET_POOL, len(pool.pool)), base)
    lr = ScheduleConfig(start=0.1, peak=0.1, final=0.01)
    return {
        "method": SuNCEtConfig(simclr_weight=0.0, freeze_statistics=True, head=replace(head, predictor=False)),
        "support": SupportConfig(images_per_class=images),
        "optimizer": LARSConfig(lr=lr, weight_decay=0.0),
        "views": _cropped(base.views, support_views=2),
        "data": replace(base.data, batch_size=batch, folds=None, fold=None),
        "trainer": TrainerConfig(steps=_SUNCET_STEPS),
    }


def _cropped(views: ViewsConfig, support_views: int = 1) -> ViewsConfig:
    """Crops and flips of the labelled images, without colour distortion."""
    own = views.support or views.large
    crop = ViewConfig(size=own.size, scale=own.scale, ratio=own.ratio, flip=own.flip, jitter=0.0)
    return replace(views, large=crop, small=None, support=None, support_views=support_views)


def _shared(size: int, base: Recipe) -> int:
    """The largest size up to this one that divides among the processes."""
    return max(base.runtime.devices, size - size % base.runtime.devices)
