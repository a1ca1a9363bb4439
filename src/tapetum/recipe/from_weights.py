"""Adapts a recipe to the weights that a run starts from: network, image size and colours."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tapetum.nn.backbones import BackboneConfig, ResNetConfig, SmallNetConfig, TimmConfig
from tapetum.recipe.files import RECIPE
from tapetum.recipe.from_data import Choice
from tapetum.recipe.recipe import Recipe, load_recipe

TIMM = "timm:"
BACKBONE_LR = 0.1
"""Learning rate of a backbone that is already trained, as a multiple of that of new layers."""
_IMAGENET_SIZE, _IMAGENET_SHOWN = 224, 256
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Network = tuple[BackboneConfig, int]
"""A network and the number of channels of its images."""


def says_its_network(weights: str | Path) -> bool:
    """Whether weights name their network themselves: those of timm and of runs do, files of tensors do not."""
    return str(weights).startswith(TIMM) or (Path(weights) / RECIPE).is_file()


def start_of(recipe: Recipe) -> str | None:
    """Return the weights that a recipe starts from: a run, a file or `timm:NAME`; None for random ones."""
    if recipe.init is None and isinstance(recipe.backbone, TimmConfig) and recipe.backbone.pretrained:
        return f"{TIMM}{recipe.backbone.name}"
    return recipe.init


def start_from(
    weights: str | Path, sections: Mapping[str, Any], *, frozen: bool, network: Network | None = None
) -> tuple[dict[str, Any], list[Choice]]:
    """Adapt settings that were chosen for images to the weights to start from.

    Args:
        weights: `timm:NAME`, the folder of a run, or a file of tensors.
        sections: as `choose` returns them; not modified.
        frozen: True trains nothing.
        network: that of a file of tensors, and its images' channels; None keeps the network chosen for the images.

    Returns:
        Sections of a recipe, and what was chosen and why.

    Raises:
        ValueError: timm is not installed, or has no such network or no weights for it; or images have other channels
            than those of the network.
    """
    changed = {name: dict(value) if isinstance(value, Mapping) else value for name, value in sections.items()}
    if str(weights).startswith(TIMM):
        choices = _from_timm(str(weights).removeprefix(TIMM), changed)
    else:
        changed["init"] = str(weights)
        choices = []
        if says_its_network(weights):
            choices = _from_run(Path(weights), changed)
        elif network is not None:
            choices = _from_file(weights, network, changed)
    if frozen:
        changed["method"] = {"kind": "frozen", "head": None}  # not the head of the recipe that this one extends
        changed["trainer"] = {"steps": 0}
        return changed, [*choices, Choice("training", "none", "the weights stay as they are")]
    changed["optimizer"] = {**changed["optimizer"], "kind": "sgd", "backbone_lr": BACKBONE_LR}
    slower = Choice("backbone", f"{BACKBONE_LR:g} of the learning rate", "it is already trained, the heads are not")
    plain = Choice("optimizer", "sgd", "Muon would give the kernels that come with the weights another length")
    return changed, [*choices, slower, plain]


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
    choices = [
        Choice("network", recipe.backbone.kind, f"that of the run {folder}"),
        Choice("views", size, "sizes and colour statistics are those that this run was trained on"),
    ]
    shrink_to = recipe.data.shrink_to
    if shrink_to is None:
        return choices
    sections["data"]["shrink_to"] = shrink_to
    if not torch.cuda.is_available():
        sections["data"]["workers"] = 0  # once images are small, only cropping is left to do
    reason = "as this run reads them: images that are larger are shrunk once, and then read fast"
    return [*choices, Choice("reading", f"{shrink_to} pixels", reason)]


def _from_file(weights: str | Path, network: Network, sections: dict[str, Any]) -> list[Choice]:
    config, channels = network
    views = sections["views"]
    given = len(views["mean"])
    if given not in (channels, 1):
        raise ValueError(
            f"{weights} is of a network for images of {channels} channels, but these have {given}: "
            f"give images, or weights, with the same number of channels."
        )
    sections["backbone"] = asdict(config)
    choices = [Choice("network", network_title(config), "recognised by the tensors of the file")]
    size = _imagenet_size(config)
    if size is None:
        return choices
    shown = round(size * _IMAGENET_SHOWN / _IMAGENET_SIZE)
    sections["views"] = _sized(views, size) | {"evaluation": {"crop": size, "resize": shown}}
    _colours(sections["views"], _IMAGENET_MEAN, _IMAGENET_STD)
    reason = "size and colour statistics are those of ImageNet, on which such networks are trained"
    return [*choices, Choice("views", f"{size} pixels", reason)]


def _imagenet_size(config: BackboneConfig) -> int | None:
    """The side of the images that a recognised network for photographs is trained on; None for small images."""
    if isinstance(config, TimmConfig):
        return min(_IMAGENET_SIZE, int(config.options.get("img_size", _IMAGENET_SIZE)))
    return _IMAGENET_SIZE if isinstance(config, ResNetConfig) and config.stem == "imagenet" else None


def network_title(config: BackboneConfig) -> str:
    """What people call a network.

    Example:
        >>> network_title(ResNetConfig(depth=50, width=2))
        'resnet 50, 2 times as wide'
    """
    if isinstance(config, TimmConfig):
        return config.name
    if isinstance(config, SmallNetConfig):
        return config.kind
    return f"{config.kind} {config.depth}" + (f", {config.width} times as wide" if config.width > 1 else "")


def _sized(views: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Set views to one size and leave out small views, because some networks take only one size."""
    kinds = {kind: {**views[kind], "size": size} for kind in ("large", "support") if views.get(kind)}
    return {**views, **kinds, "small": None}


def _colours(views: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Set the weights' normalisation; for grey images, average it over its channels."""
    channels = len(views["mean"])
    for key, values in (("mean", mean), ("std", std)):
        views[key] = list(values) if len(values) == channels else [round(sum(values) / len(values), 4)] * channels
