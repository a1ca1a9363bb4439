"""Builds backbones from one union of configs; the only module here that uses timm.

A backbone is a module with an integer attribute `num_features` that maps images (B, C, H, W) to (B, num_features).
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from tapetum.nn.resnet import ResNet, ResNetConfig
from tapetum.nn.small_net import SmallNet, SmallNetConfig
from tapetum.nn.wide_resnet import WideResNet, WideResNetConfig

__all__ = [
    "BackboneConfig",
    "ResNetConfig",
    "SmallNetConfig",
    "TimmConfig",
    "WideResNetConfig",
    "build_backbone",
    "check_sizes",
]


_TAKEN = {"num_classes", "in_chans", "pretrained"}
_UNSAFE = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""Options of timm that name files, which its older releases unpickle."""


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """Any model of the timm library (https://github.com/huggingface/pytorch-image-models), without its classifier."""

    kind: Literal["timm"] = "timm"
    """Selects timm; needs `pip install 'tapetum[timm]'`."""
    name: str
    """timm's name of the model, e.g. "vit_small_patch16_224"; `timm.list_models()` prints them all."""
    pretrained: bool = False
    """Start from timm's published weights (downloaded by timm) rather than from random ones."""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Further arguments of the model's constructor. A vision transformer takes views of several sizes with
    `dynamic_img_size: true`, and small images with e.g. `img_size: 32` and `patch_size: 4`."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty: give the name of a timm model, e.g. 'resnet26d'.")
        if taken := _TAKEN & set(self.options):
            raise ValueError(f"options holds {sorted(taken)}, which Tapetum sets itself: remove them.")
        if unsafe := _UNSAFE & set(self.options):
            raise ValueError(
                f"options holds {sorted(unsafe)}, by which timm may run what a file holds: remove them, and start from "
                "a file of tensors with init."
            )


BackboneConfig = WideResNetConfig | ResNetConfig | SmallNetConfig | TimmConfig
"""The `backbone:` section of a recipe; `kind` selects the config."""


def build_backbone(config: BackboneConfig, in_channels: int = 3, *, published: bool = True) -> nn.Module:
    """Build a backbone, with random weights from torch's default generator (seed it first) or with published ones.

    Args:
        config: which network.
        in_channels: channels of the images, 1 for grey and 3 for colour.
        published: False skips the published weights that `config` requests, because others will replace them.

    Returns:
        A module with the attribute `num_features`; maps (B, in_channels, H, W) to (B, num_features).

    Raises:
        ValueError: in_channels is not positive; timm is missing, or does not know the model or an option.

    Example:
        >>> build_backbone(WideResNetConfig(depth=28, width=2)).num_features
        128
    """
    if in_channels < 1:
        raise ValueError(f"in_channels is {in_channels}, but images have 1 channel or more.")
    if isinstance(config, WideResNetConfig):
        return WideResNet(config, in_channels)
    if isinstance(config, ResNetConfig):
        return ResNet(config, in_channels)
    if isinstance(config, SmallNetConfig):
        return SmallNet(config, in_channels)
    return _build_timm(config, in_channels, config.pretrained and published)


def _build_timm(config: TimmConfig, in_channels: int, pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f"The backbone {config.name!r} comes from timm, which is not installed: pip install 'tapetum[timm]'."
        ) from error
    if not timm.is_model(config.name):
        nearest = difflib.get_close_matches(config.name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"the nearest names are {', '.join(nearest)}" if nearest else "`timm.list_models()` prints all names"
        raise ValueError(f"name is {config.name!r}, which timm {timm.__version__} does not know: {hint}.")
    arguments: dict[str, Any] = {**config.options, "in_chans": in_channels, "num_classes": 0}
    try:
        model: Any = timm.create_model(config.name, pretrained=pretrained, **arguments)
    except TypeError as error:
        raise ValueError(f"options is {config.options}, but timm's {config.name} refuses it: {error}.") from error
    # Some timm models (MobileNet-V3, VGG) keep a layer between pooling and classifier; their `num_features` is the
    # width before that layer, `head_hidden_size` the width that a model without classifier returns.
    model.num_features = int(getattr(model, "head_hidden_size", None) or model.num_features)
    return model


def check_sizes(backbone: nn.Module, sizes: Mapping[str, int], channels: int) -> None:
    """Pass one black image of each size through a network on the CPU; its weights and buffers do not change.

    Args:
        backbone: in training mode, as built.
        sizes: name of a recipe's field -> side of a square image in pixels.
        channels: number of channels of the images.

    Raises:
        ValueError: the network cannot take a size; the message names the field.
    """
    backbone.eval()
    for name, size in sizes.items():
        try:
            with torch.no_grad():
                backbone(torch.zeros(1, channels, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split()).removesuffix(".")
            raise ValueError(f"{name} is {size}, which the backbone cannot take ({reason}): set another.") from error
    backbone.train()
