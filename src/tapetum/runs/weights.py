"""Weights on images without training: a recipe for them, opened as a trained run is."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tapetum.data.batches.data_config import DataConfig
from tapetum.data.health.unreadable import readable
from tapetum.data.labels.subsets import LEAST_TO_SPARE, drawn_labels
from tapetum.data.sources.open_source import Source, open_source
from tapetum.engine.checkpoint import CHECKPOINTS, Checkpoint, capture, latest_checkpoint
from tapetum.interchange.weights.networks import network_of
from tapetum.interchange.weights.projectors import projector_of
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.recipe.files import RECIPE
from tapetum.recipe.from_data import choose
from tapetum.recipe.from_weights import TIMM, says_its_network, start_from, start_of
from tapetum.recipe.glance import glance
from tapetum.recipe.recipe import Recipe, parse_recipe
from tapetum.recipe.yaml_with_lines import write_yaml
from tapetum.runs.places import located
from tapetum.runs.pool import PoolData, has_labels_of, open_pool
from tapetum.runs.run import assemble
from tapetum.runs.run_folder import open_run_folder
from tapetum.runs.test_set import check_unseen, shared_images
from tapetum.runs.trained_run import NONE_HELD_OUT, TrainedRun
from tapetum.system.notices import notify, progress_notices

_HELD_OUT = 0.2
"""Share of the labels kept apart to measure accuracy on, if there are no test images."""
_PLACES = {"images", "labels", "test"}
"""Fields of `data` that tell where it is; a run's own may have moved."""


def is_run(weights: str | Path) -> bool:
    """Whether weights are those of a run, by its folder."""
    return (Path(weights) / RECIPE).is_file()


def changed_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out fields that are None; of two ways to say how many labels are used, one replaces the other."""
    given = {name: value for name, value in data.items() if value is not None}
    if {"labels_per_class", "labels_percent"} & given.keys():
        return {"labels_per_class": None, "labels_percent": None} | given
    return given


def recipe_for_weights(weights: str | Path, data: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe by which weights are judged as they are, on a run's own images or on others.

    Args:
        weights: a run, whose recipe this starts from; a file of tensors, whose network is recognised; or `timm:NAME`.
        data: fields of the recipe's `data` to set; `images` is needed unless the weights are a run's. Without `test`, a
            fifth of the labels is held out to judge by; of a run, those that it held out, if the labels are its own.
        overrides: `key.path=value` each.

    Raises:
        ValueError: images or labels are missing, the network is not recognised, or a value is wrong.
    """
    given = dict(data)
    if is_run(weights):
        folder, recipe = open_run_folder(weights)
        recipe = located(folder, recipe, {name: given[name] for name in ("images", "labels") if given.get(name)})
        own = replace(recipe.data, **given)
        spares = any(getattr(own, name) is not None for name in NONE_HELD_OUT)
        if spares and given.keys() - {"test"} and not (given.keys() <= _PLACES and _is_of_training(folder, own)):
            own = replace(own, **NONE_HELD_OUT)
        return replace(recipe, data=own)
    if given.get("images") is None:
        if not (Path(weights).is_file() or str(weights).startswith(TIMM)):
            open_run_folder(weights)  # says what it lacks
        raise ValueError(f"{weights} is no run, which would know its images: give images, and labels for them.")
    source = open_source(given["images"], given.get("labels"))
    if source.labels is None:
        raise ValueError(
            f"{given['images']} has no labels: give a CSV of path,label lines as labels, or class folders."
        )
    kept, _ = readable(source, False, progress_notices("read"))
    assert kept.labels is not None
    used = drawn_labels(kept.labels, given.get("labels_per_class"), given.get("labels_percent"), seed=0)
    sections, _ = choose(glance(kept.store, used), shrink=False, method="frozen")
    tensors = {} if says_its_network(weights) else read_weights(weights)
    network = network_of(tensors) if tensors else None
    sections, _ = start_from(weights, sections, frozen=True, network=network)
    head = projector_of(tensors)
    sections["method"]["head"] = None if head is None else asdict(head)
    if "test" not in given and used.counts.max() >= LEAST_TO_SPARE:
        sections["data"]["held_out_share"] = _HELD_OUT
    sections["data"] |= {"labels_per_class": None, "label_seed": 0, **given}
    sections["description"] = f"{weights} as it is"
    return parse_recipe(write_yaml(sections), f"the settings for {weights}", overrides)


def _is_of_training(folder: Path, data: DataConfig) -> bool:
    """Whether images and labels are those that trained a run, perhaps moved: then those held out are the same ones."""
    try:
        now = open_pool(data, decode=False, needs_labels=False).fingerprint
    except ValueError:  # such as labels that are too few to hold out as many
        return False
    saved = _saved_fingerprint(folder)
    return all(saved.get(part) == now.get(part) for part in ("data", "labels", "held_out"))


def _has_labels_of_training(folder: Path, pool: PoolData) -> bool:
    """Whether a run's pool has the labels that it was trained with, as far as its checkpoint says."""
    saved = _saved_fingerprint(folder)
    return not saved or has_labels_of(saved, pool.fingerprint)


def _saved_fingerprint(folder: Path) -> dict[str, Any]:
    checkpoint = latest_checkpoint(folder / CHECKPOINTS, notify)
    return {} if checkpoint is None else dict(checkpoint.scalars.get("fingerprint", {}))


def check_still_held_out(folder: Path, data: PoolData) -> None:
    """Refuse to go on with a run where other labels than before would be held out.

    Raises:
        ValueError: labels that trained it may be held out now.
    """
    saved = _saved_fingerprint(folder)
    part = "judged" if "judged" in saved else "held_out"  # older checkpoints do not tell labels by names
    if data.held_out is not None and saved and saved.get(part) != data.fingerprint.get(part):
        raise ValueError(
            f"since {folder} began, labels have changed, so that some which trained it may be held out now and would "
            f"measure too well: undo that, or begin a new run with its weights: tapetum fit --init {folder}."
        )


def check_unseen_by_run(weights: str | Path, data: DataConfig, tests: Source, test: str | Path) -> None:
    """Refuse test images whose labels trained the run that weights come from, where `data` now uses other labels.

    Raises:
        ValueError: some test images are labelled training images of the run.
    """
    if not is_run(weights):
        return
    folder, recipe = open_run_folder(weights)
    own = recipe.data
    try:
        located(folder, recipe, {})
    except ValueError as error:
        notify(f"{test} was not compared with what {weights} was trained on, as {error}")
        return
    trained_on = open_pool(own, decode=False, needs_labels=False)
    as_trained = _has_labels_of_training(folder, trained_on)
    if not as_trained or replace(own, test=None) != replace(data, test=None):
        check_unseen(trained_on.opened, trained_on.labels, tests, test, as_trained)


def count_known(recipe: Recipe, data: PoolData) -> int:
    """Count the labels that accuracy will be measured on although they trained the run that a recipe starts from.

    Those of the run that this one started from count, too. What is gone cannot be compared, and a notice says so.
    """
    is_folded = recipe.data.folds is not None and recipe.data.fold is None
    judged = data.labels if is_folded else data.held_out
    rows = [] if judged is None else judged.labelled.tolist()
    known: set[int] = set()
    seen: set[str] = set()  # a new run may have taken the place of the one that it started from
    while rows and recipe.init is not None and is_run(recipe.init) and os.path.realpath(recipe.init) not in seen:
        start = recipe.init
        seen.add(os.path.realpath(start))
        try:
            recipe = located(*open_run_folder(start), {})
            trained_on = open_pool(recipe.data, decode=False, needs_labels=False)
        except (ValueError, OSError) as error:
            notify(f"labels to measure accuracy on were not compared with those of earlier runs, as {error}")
            break
        if not _has_labels_of_training(Path(start), trained_on):
            notify(
                f"the labels of {start}, which this run starts from, have changed since its training, so labels to "
                "measure accuracy on may have trained it: expect less on new images, and give some as --test DIR."
            )
        known |= set(shared_images(data.opened, trained_on.opened, trained_on.labels, rows))
    return len(known)


def open_weights(recipe: Recipe, shared: bool = False) -> TrainedRun:
    """Open the weights of a recipe that trains nothing, as `open_trained_run` opens a run."""
    parts = assemble(recipe, trains=False)
    parts.shared = shared
    parts.runtime.equip(parts.method)
    scalars = {"step": 0, "fingerprint": parts.data.fingerprint}
    checkpoint: Checkpoint = capture(parts.method, parts.optimizer, [parts.method.local_state()], scalars)
    return TrainedRun(Path(str(start_of(recipe))), parts, checkpoint, is_finished=False)
