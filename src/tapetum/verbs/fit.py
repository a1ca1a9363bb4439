"""`tapetum fit`: train on your own images, with a recipe chosen to suit them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tapetum.data.batches.data_config import DataConfig
from tapetum.data.health.unreadable import readable
from tapetum.data.labels.labels import Labels
from tapetum.data.labels.subsets import LEAST_TO_SPARE, drawn_labels, fold_of, held_out
from tapetum.data.sources.open_source import Source, open_source
from tapetum.data.sources.save_source import is_path, save_source
from tapetum.interchange.weights.networks import network_of
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.methods.registry import load_plugins
from tapetum.recipe.files import read_recipe
from tapetum.recipe.from_data import FEW_LABELS, Choice, choose, describe
from tapetum.recipe.from_weights import Network, says_its_network, start_from
from tapetum.recipe.glance import glance
from tapetum.recipe.recipe import Recipe, load_recipe, parse_recipe
from tapetum.recipe.yaml_with_lines import write_yaml
from tapetum.runs.places import GIVEN
from tapetum.runs.run_folder import new_run_folder
from tapetum.runs.test_set import check_unseen, find_test
from tapetum.system.launcher import launched, process_rank
from tapetum.system.notices import progress_notices
from tapetum.system.started import command_began
from tapetum.verbs.train import train_since

_MINUTES = 10.0
"""Length of a run if none is given."""
_HELD_OUT = 0.2
"""Share of the labels kept out of training to measure accuracy."""
_MANY = 30
"""With this many held-out labels or more, the notice does not suggest folds."""
_OFFERED = 5
"""Number of folds that the notice suggests."""
_EVALUATIONS = 10
"""Number of points on the curve of held-out accuracy."""
_EMBEDDED = 50_000
"""Most labelled images to embed for all points of the curve together: more would take too much of a short run. One
that is seen in several sizes counts for as many as its pixels."""
_OF_TRAINING = {"length", "learning rate", "optimizer", "batch", "supports", "support views", "crops", "mirroring"}
"""What is chosen for a training alone."""
_SET_BY = {
    "length": ("trainer.minutes", "trainer.epochs", "trainer.steps"),
    "held out": ("data.held_out_per_class", "data.held_out_share", "data.folds"),
    "batch": ("data.batch_size",),
    "supports": ("support.images_per_class", "support.classes_per_batch"),
    "optimizer": ("optimizer.kind",),
    "learning rate": ("optimizer.lr.peak",),
    "network": ("backbone.kind",),
    "method": ("method.kind",),
    "reading": ("data.shrink_to",),
}
"""The settings that take the place of what was chosen."""


def fit(
    images: Any,
    labels: Any,
    output: str | Path,
    test: Any = None,
    labels_per_class: int | None = None,
    labels_percent: float | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    folds: int | None = None,
    init: str | Path | None = None,
    frozen: str | Path | None = None,
    strict: bool = False,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Choose a recipe that suits the images and labels, print why, and train it as `train` does.

    Args:
        images: all images, labelled or not: a folder, or any other source (`tapetum.data.sources.open_source`).
            Images in memory are written into the run folder, so that the run can be resumed.
        labels: a CSV of path,label lines; or a folder with one folder of images per class, which may be `images`
            itself, a folder in it, or one elsewhere, whose images then join the pool; or any other form that
            `open_source` takes. None for the labels that come with the images.
        output: the run folder, new or empty.
        test: labelled images to measure accuracy on after the last step. They don't affect training: with or without
            them, a fifth of the labels of each class that has three or more is held out and measured.
        labels_per_class: use this many labels of each class; the other images stay in the pool, unlabelled.
        labels_percent: instead of `labels_per_class`, use this share of the labels of each class, at least one.
        minutes, epochs, steps: length of the run; give at most one. 10 minutes if all are None.
        folds: measure accuracy by this many short runs, each with a different part of the labels held out, and train
            the model itself with all labels. The short runs take half of the length.
        init: weights to start from: `timm:NAME`, the folder of a run, or a file of tensors, whose network is recognised
            unless overrides hold `backbone.kind=...`.
        frozen: weights, in the same forms, to evaluate as they are instead of training.
        strict: refuse images that cannot be read; otherwise they are skipped and listed in the run's unreadable.csv.
        overrides: `key.path=value` each; they take precedence over chosen values.
        plugins: modules to import first; they register methods.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        ValueError: faulty images, labels or settings; test images among the labelled ones; a folder that is not empty.

    Example:
        >>> import tapetum
        >>> summary = tapetum.fit("photos", "labels.csv", "runs/first", minutes=30)  # doctest: +SKIP
    """
    began = command_began()
    load_plugins(plugins)
    if frozen is not None and not (init is minutes is epochs is steps is None):
        raise ValueError(f"frozen is {frozen}, so nothing is trained: leave out init, minutes, epochs and steps.")
    length, remark = _length(minutes, epochs, steps)
    with new_run_folder(output) as folder:
        source = open_source(images, labels)
        if source.labels is None:
            raise ValueError(
                f"{_shown(images if labels is None else labels)} labels no image: give a CSV of path,label lines or a "
                "folder of class folders as labels."
            )
        kept, _ = readable(source, strict, progress_notices("read"))
        assert kept.labels is not None
        own = _set_data(overrides)
        if own.labels_per_class or own.labels_percent:  # settings count as arguments: how many labels decides much
            labels_per_class, labels_percent = own.labels_per_class, own.labels_percent
        used = drawn_labels(kept.labels, labels_per_class, labels_percent, seed=0)
        tests = None if test is None else find_test(test, used.classes)
        if tests is not None:
            check_unseen(kept.store, used, tests, _shown(test))
        share, trained, spared = _held_out(used) if folds is None else _dealt_out(used, folds)
        is_spared = own.held_out_per_class is not None  # of all labels, before those used are drawn
        trained = used if is_spared else trained
        if folds is not None:
            length, remark = _shared_with_folds(length, remark, folds)
        weights = init if frozen is None else frozen
        shrink = weights is None and not torch.cuda.is_available()
        method = _named("method", overrides) if weights is None else "paws"
        sections, choices = choose(glance(kept.store, trained), shrink=shrink, method=method)
        drawn = {"labels_per_class": labels_per_class, "labels_percent": labels_percent, "label_seed": 0}
        drawn |= {"held_out_share": None if is_spared else share, "folds": folds}
        sections["data"] |= {**_on_disk(images, labels, source, test, tests, folder), **drawn, "strict": strict}
        sections["trainer"] = sections.get("trainer", {}) | length
        choices += [spared, Choice("length", _in_words(length), remark)]
        if weights is not None:
            network, measured = _network(weights, overrides), sections["views"]["mean"]
            sections, taken = start_from(weights, sections, frozen=frozen is not None, network=network)
            replaced = {choice.what for choice in taken}
            replaced |= set() if sections["views"]["mean"] == measured else {"colours"}
            replaced |= _OF_TRAINING if frozen is not None else set()
            choices = [*taken, *(choice for choice in choices if choice.what not in replaced)]
        recipe = _recipe(sections, kept, overrides)
        if share is not None:
            sections["trainer"]["evaluations"] = _points(recipe, used)
            recipe = _recipe(sections, kept, overrides)
        if process_rank() == 0:
            print(f"Found {kept.description}. Chosen settings (change any with KEY=VALUE):")
            print(describe(_as_set(choices, overrides)), flush=True)
        return train_since(began, recipe, folder)


def _shown(thing: Any) -> str:
    return os.fspath(thing) if is_path(thing) else f"the {type(thing).__name__} in memory"


def _on_disk(
    images: Any, labels: Any, source: Source, test: Any, tests: Source | None, folder: Path
) -> dict[str, str | None]:
    """Return the data fields of the recipe; data in memory is first written into the run folder."""
    found: dict[str, str | None] = {}
    if launched() is not None and not all(thing is None or is_path(thing) for thing in (images, labels, test)):
        raise ValueError("images, labels or test are in memory, but several processes train: give files or folders.")
    if is_path(images) and (labels is None or is_path(labels)):
        found |= {"images": os.fspath(images), "labels": None if labels is None else os.fspath(labels)}
    else:
        found |= {"images": save_source(source, folder / GIVEN / "pool"), "labels": None}
    if tests is None or is_path(test):
        return found | {"test": None if test is None else os.fspath(test)}
    return found | {"test": save_source(tests, folder / GIVEN / "test")}


def _length(minutes: float | None, epochs: float | None, steps: int | None) -> tuple[dict[str, float], str]:
    """Return the length, as in a recipe's trainer section, and where it comes from."""
    given = {"minutes": minutes, "epochs": epochs, "steps": steps}
    length = {name: value for name, value in given.items() if value is not None}
    if len(length) > 1:
        both = " and ".join(f"{name} ({value:g})" for name, value in length.items())
        raise ValueError(f"{both} are given: give one of minutes, epochs and steps.")
    for name, value in length.items():
        if not value > 0:
            raise ValueError(f"{name} is {value:g}: use more than 0.")
    if not length:
        return {"minutes": _MINUTES}, "none was given: set minutes, epochs or steps"
    return length, "as you set it"


def _shared_with_folds(length: dict[str, float], remark: str, folds: int) -> tuple[dict[str, float], str]:
    """Return the recipe's length if short runs take half of it, and the remark; minutes count the whole command."""
    if "minutes" in length:
        return length, f"{remark}; the {folds} short runs together take half of it"
    halves = {name: value / 2 if name != "steps" else max(1, int(value / 2)) for name, value in length.items()}
    return halves, f"{remark}; the {folds} short runs together take as long again"


def _points(recipe: Recipe, labels: Labels) -> int:
    """Return how often to measure accuracy during training."""
    seen = len(labels.labelled) * sum(scale**2 for scale in recipe.views.evaluation.scales)
    return max(1, min(_EVALUATIONS, int(_EMBEDDED / seen)))


def _in_words(length: dict[str, float]) -> str:
    return " ".join(f"{value:g} {name}" for name, value in length.items())


def _held_out(labels: Labels) -> tuple[float | None, Labels, Choice]:
    """Return the share of labels to hold out, the labels left to train with, and a line that explains it."""
    if labels.counts.max() < LEAST_TO_SPARE:
        reason = f"no class has the {LEAST_TO_SPARE} labels needed to hold one out; measuring accuracy needs --test"
        if labels.counts.max() > 1:
            reason += " or --folds 2"
        return None, labels, Choice("held out", "no label", reason)
    trained, out = held_out(labels, fraction=_HELD_OUT, seed=0)
    count, unmeasured = len(out.labelled), int((out.counts == 0).sum())
    reason = f"{_HELD_OUT:.0%} of each class with {LEAST_TO_SPARE} or more; kept out of training to measure accuracy"
    if unmeasured:
        reason += f", but not that of the {unmeasured} with fewer"
    elif count < _MANY:
        reason += f"; --folds {_OFFERED} measures with all labels, but takes twice the time for an equally good model"
    return _HELD_OUT, trained, Choice("held out", f"{count} label{'s' * (count > 1)}", reason)


def _dealt_out(labels: Labels, folds: int) -> tuple[None, Labels, Choice]:
    """Like `_held_out`, for a run whose accuracy is measured by short runs."""
    if folds < 2:
        raise ValueError(f"folds is {folds}: use 2 or more.")
    sizes = [len(fold_of(labels, folds, fold, seed=0)[1].labelled) for fold in range(folds)]
    reason = (
        f"{folds} short runs measure accuracy on {sum(sizes)} labels together; each holds out {max(sizes)} or fewer"
    )
    return None, labels, Choice("held out", "no label", reason)


def _named(section: str, overrides: Sequence[str]) -> str | None:
    """Return the `kind` of a section that the user names, if any."""
    settings = read_recipe("{}", "the settings", lambda *_: True, overrides).plain().get(section)
    return settings.get("kind") if isinstance(settings, dict) else None


def _set_data(overrides: Sequence[str]) -> DataConfig:
    """Return the `data` section that the user's settings make by themselves, checked as in a recipe."""
    settings = [text for text in overrides if text.startswith("data")]
    return load_recipe(FEW_LABELS, ["data.labels_per_class=null", *settings]).data


def _as_set(choices: list[Choice], overrides: Sequence[str]) -> list[Choice]:
    """Put what the user has set in the place of what was chosen."""
    last = {text.partition("=")[0]: text for text in overrides}
    found = []
    for choice in choices:
        own = [last[key] for key in _SET_BY.get(choice.what, ()) if key in last]
        found.append(Choice(choice.what, " ".join(own), "as you set it") if own else choice)
    return found


def _network(weights: str | Path, overrides: Sequence[str]) -> Network | None:
    """Return the network of a file of tensors; None if the weights or the user say it."""
    if says_its_network(weights) or _named("backbone", overrides):
        return None
    tensors = read_weights(weights)
    try:
        return network_of(tensors)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from error


def _recipe(sections: dict[str, Any], source: Source, overrides: Sequence[str]) -> Recipe:
    described = {"description": f"Chosen by tapetum fit for {source.description}"}
    return parse_recipe(write_yaml(described | sections), "the settings that fit chose", overrides)
