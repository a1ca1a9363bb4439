"""`tapetum fit`: train on images that nobody has written a recipe for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tapetum.data.health.unreadable import readable
from tapetum.data.labels.labels import Labels
from tapetum.data.labels.subsets import LEAST_TO_SPARE, drawn_labels, fold_of, held_out
from tapetum.data.sources.open_source import Source, open_source
from tapetum.data.sources.save_source import is_path, save_source
from tapetum.recipe.from_data import Choice, choose, describe, glance
from tapetum.recipe.from_weights import start_from
from tapetum.recipe.recipe import Recipe, parse_recipe
from tapetum.recipe.yaml_with_lines import write_yaml
from tapetum.runs.run_folder import GIVEN, new_run_folder
from tapetum.runs.test_set import check_unseen, find_test
from tapetum.system.launcher import launched, process_rank
from tapetum.system.notices import progress_notices
from tapetum.verbs.train import train

_MINUTES = 10.0
"""Length of a run when none is given."""
_HELD_OUT = 0.2
"""Share of the labels that measures and does not train."""
_MANY = 30
"""Held-out labels from which on folds are not offered."""
_OFFERED = 5
"""Folds that are offered."""
_EVALUATIONS = 10
"""Points of the curve of held-out accuracy."""
_EMBEDDED = 200_000
"""Labelled images that all points of the curve may embed together: more would cost a short run its training."""


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
) -> dict[str, Any]:
    """Choose a recipe that suits the images and labels, say why, and train it as `train` does.

    Args:
        images: all images, labelled and not: a folder, or any other source (`tapetum.data.sources.open_source`).
            What lies in memory is written into the run folder, so that the run can be resumed.
        labels: a CSV of path,label lines; or a folder with one folder of images per class, which may be `images`
            itself, lie in it, or lie elsewhere: its images then join the pool; or any other form that `open_source`
            takes. None: those that come with the images.
        output: the run folder, new or empty.
        test: labelled images to measure on after the last step. They change nothing in the training: with or without
            them a fifth of the labels of each class that has three is kept out of it, and measured.
        labels_per_class: use this many labels of each class; the other images stay, unlabelled.
        labels_percent: use this share of the labels of each class, at least one; instead of `labels_per_class`.
        minutes, epochs, steps: how long; at most one of them. None: 10 minutes.
        folds: measure by this many short runs, each with another part of the labels held out, and train the model
            itself with all of them. Half the length is theirs.
        init: weights to start from: `timm:NAME`, the folder of a run, or a file of tensors.
        frozen: weights to judge as they are, in place of training; the same forms.
        strict: refuse images that cannot be read; else they are skipped and listed in the run's unreadable.csv.
        overrides: `key.path=value` each; they win over everything chosen.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        ValueError: faulty images, labels or settings; test images among the labelled ones; a folder not empty.

    Example:
        >>> import tapetum
        >>> summary = tapetum.fit("photos", "labels.csv", "runs/first", minutes=30)  # doctest: +SKIP
    """
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
        used = drawn_labels(kept.labels, labels_per_class, labels_percent, seed=0)
        tests = None if test is None else find_test(test, used.classes)
        if tests is not None:
            check_unseen(kept.store, used, tests, _shown(test))
        share, trained, spared = _held_out(used) if folds is None else _dealt_out(used, folds)
        if folds is not None:
            length = {name: value / 2 if name != "steps" else max(1, int(value / 2)) for name, value in length.items()}
            remark = f"{remark}; as long again for the {folds} short runs together"
        weights = init if frozen is None else frozen
        shrink = weights is None and not torch.cuda.is_available()
        sections, choices = choose(glance(kept.store, trained), shrink=shrink)
        drawn = {"labels_per_class": labels_per_class, "labels_percent": labels_percent, "label_seed": 0}
        drawn |= {"held_out_share": share, "folds": folds}
        sections["data"] |= {**_on_disk(images, labels, source, test, tests, folder), **drawn, "strict": strict}
        sections["trainer"] = sections.get("trainer", {}) | length | _curve(share, used)
        choices += [spared, Choice("length", _in_words(length), remark)]
        if weights is not None:
            sections, taken = start_from(weights, sections, frozen=frozen is not None)
            replaced = {choice.what for choice in taken}
            replaced |= {"length", "learning rate"} if frozen is not None else set()
            choices = [*taken, *(choice for choice in choices if choice.what not in replaced)]
        recipe = _recipe(sections, kept, overrides)
        if process_rank() == 0:
            print(f"Found {kept.description}. Settings that suit them, changed by KEY=VALUE:")
            print(describe(choices), flush=True)
        return train(recipe, folder)


def _shown(thing: Any) -> str:
    return os.fspath(thing) if is_path(thing) else f"the {type(thing).__name__} in memory"


def _on_disk(
    images: Any, labels: Any, source: Source, test: Any, tests: Source | None, folder: Path
) -> dict[str, str | None]:
    """What a recipe says of the data, after writing into the run folder what is no file yet."""
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
    """The length as in a recipe's trainer section, and where it comes from."""
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
    return length, "as asked for"


def _curve(share: float | None, labels: Labels) -> dict[str, int]:
    """How often accuracy is measured during training, where there are labels held out to measure it on."""
    return {} if share is None else {"evaluations": max(1, min(_EVALUATIONS, _EMBEDDED // len(labels.labelled)))}


def _in_words(length: dict[str, float]) -> str:
    return " ".join(f"{value:g} {name}" for name, value in length.items())


def _held_out(labels: Labels) -> tuple[float | None, Labels, Choice]:
    """The share of labels to hold out, those left to train with, and why."""
    if labels.counts.max() < LEAST_TO_SPARE:
        reason = f"no class has {LEAST_TO_SPARE} labels to spare one, so no accuracy can be measured without --test"
        if labels.counts.max() > 1:
            reason += " or --folds 2"
        return None, labels, Choice("held out", "no label", reason)
    trained, out = held_out(labels, fraction=_HELD_OUT, seed=0)
    count, unmeasured = len(out.labelled), int((out.counts == 0).sum())
    reason = f"{_HELD_OUT:.0%} of each class with {LEAST_TO_SPARE} or more; they train nothing and measure accuracy"
    if unmeasured:
        reason += f", but not that of the {unmeasured} with fewer"
    elif count < _MANY:
        reason += f"; --folds {_OFFERED} measures with all labels, but needs twice the time for as good a model"
    return _HELD_OUT, trained, Choice("held out", f"{count} label{'s' * (count > 1)}", reason)


def _dealt_out(labels: Labels, folds: int) -> tuple[None, Labels, Choice]:
    """As `_held_out`, for a run that is measured by others."""
    if folds < 2:
        raise ValueError(f"folds is {folds}: use 2 or more.")
    sizes = [len(fold_of(labels, folds, fold, seed=0)[1].labelled) for fold in range(folds)]
    reason = (
        f"{folds} short runs measure with {sum(sizes)} labels in turn, each run with {max(sizes)} or fewer held out"
    )
    return None, labels, Choice("held out", "no label", reason)


def _recipe(sections: dict[str, Any], source: Source, overrides: Sequence[str]) -> Recipe:
    described = {"description": f"Chosen by tapetum fit for {source.description}"}
    return parse_recipe(write_yaml(described | sections), "the settings that fit chose", overrides)
