"""Adapts a recipe to the weights that a run starts from: network, image size and colours."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tapetum.recipe.files import RECIPE
from tapetum.recipe.from_data import Choice
from tapetum.recipe.recipe import load_recipe

TIMM = "timm:"
BACKBONE_LR = 0.1
"""Learning rate of a backbone that is already trained, as a multiple of that of new layers."""


def start_from(
    weights: str | Path, sections: Mapping[str, Any], *, frozen: bool
) -> tuple[dict[str, Any], list[Choice]]:
    """Adapt settings that were chosen for images to the weights to start from.

    Args:
        weights: `timm:NAME`, the folder of a run, or a file of tensors, which says nothing about network or images.
        sections: as `choose` returns them; not modified.
        frozen: True trains nothing.

    Returns:
        Sections of a recipe, and what was chosen and why.

    Raises:
        ValueError: timm is not installed, or has no such network or no weights for it.
    """
    changed = {name: dict(value) if isinstance(value, Mapping) else value for name, value in sections.items()}
    if str(weights).startswith(TIMM):
        choices = _from_timm(str(weights).removeprefix(TIMM), changed)
    else:
        changed["init"] = str(weights)
        choices = _from_run(Path(weights), changed) if (Path(weights) / RECIPE).is_file() else []
    if frozen:
        changed["method"] = {"kind": "frozen"}
        changed["trainer"] = {"steps": 0}
        return changed, [*choices, Choice("training", "none", "the weights stay as they are")]
    changed["optimizer"] = {**changed["optimizer"], "backbone_lr": BACKBONE_LR}
    slower = Choice("backbone", f"{BACKBONE_LR:g} of the learning rate", "it is already trained, the heads are not")
    return changed, [*choices, slower]


def _from_timm(name: str, sections: dict[str, Any]) -> list[Choice]:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"{TIMM}{name} needs timm, which is not installed: pip install 'tapetum[timm]'.") from error
    tagged = timm.list_pretrained()
    if name not in {*tagged, *(known.partition(".")[0] for known in tagged)}:
        near = difflib.get_close_matches(name, tagged, n=3, cutoff=0.5)
        hint = f"the nearest names are {', '.join(near)}" if near else "`timm.list_pretrained()` prints all names"
        raise ValueError(f"timm {timm.__version__} has no weights for {name!r}: {hint}.")
    found: Any = timm.get_pretrained_cfg(name)
    size = int(found.input_size[-1])
    shown = round(size / found.crop_pct)
    sections["backbone"] = {"kind": "timm", "name": name, "pretrained": True}
    sections["views"] = _sized(sections["views"], size) | {"evaluation": {"crop": size, "resize": shown}}
    _colours(sections["views"], found.mean, found.std)
    return [
        Choice("network", name, "training starts from its published weights"),
        Choice("views", f"{size} pixels", "size and colour statistics are those that these weights were trained on"),
    ]


def _from_run(folder: Path, sections: dict[str, Any]) -> list[Choice]:
    recipe = load_recipe(folder / RECIPE)
    views = recipe.views
    sections["backbone"] = asdict(recipe.backbone)
    sections["views"] = _sized(sections["views"], views.large.size) | {"evaluation": asdict(views.evaluation)}
    _colours(sections["views"], views.mean, views.std)
    size = f"{views.large.size} pixels, {views.evaluation.crop} for evaluation"
    return [
        Choice("network", recipe.backbone.kind, f"that of the run {folder}"),
        Choice("views", size, "sizes and colour statistics are those that this run was trained on"),
    ]


def _sized(views: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Set views to one size and leave out small views, because some networks take only one size."""
    kinds = {kind: {**views[kind], "size": size} for kind in ("large", "support") if views.get(kind)}
    return {**views, **kinds, "small": None}


def _colours(views: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Set the weights' normalisation; for grey images, average it over its channels."""
    channels = len(views["mean"])
    for key, values in (("mean", mean), ("std", std)):
        views[key] = list(values) if len(values) == channels else [round(sum(values) / len(values), 4)] * channels
