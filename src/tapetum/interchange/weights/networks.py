"""Recognises the network of a file by the names and shapes of its tensors.

A family of networks proposes a config from a few shapes. The config's network is then built without memory for its
weights, and recognised if all its tensors are in the file, in their shapes, and no other layer is among them.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from tapetum.interchange.weights.layouts import prefixes
from tapetum.nn.backbones import (
    BackboneConfig,
    ResNetConfig,
    SmallNetConfig,
    TimmConfig,
    WideResNetConfig,
    build_backbone,
)

_COUNTER = "num_batches_tracked"
_VIT_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
_VIT_DEPTHS = {"tiny": 12, "small": 12, "base": 12, "large": 24, "huge": 32}
_VIT_PATCHES = {"small": (8, 16), "base": (8, 16), "tiny": (16,), "large": (14, 16), "huge": (14,)}
"""Patch sizes for which timm has a name."""
_VIT_IMAGE, _DINOV2_IMAGE = 224, 518


def network_of(tensors: Mapping[str, Tensor]) -> tuple[BackboneConfig, int]:
    """The network that a file's tensors belong to.

    What leaves no trace in tensors keeps its default: dropout, and the activation and pooling of a SmallNet.

    Args:
        tensors: as `read_weights` returns them; the backbone may stand below any prefix, and heads beside it.

    Returns:
        The config, and the number of channels of its images.

    Raises:
        ValueError: no network that Tapetum knows; names the first tensors. Or it is one of timm, which is missing.

    Example:
        >>> network_of(build_backbone(WideResNetConfig(depth=10, width=1)).state_dict())[0].depth
        10
    """
    for first, propose in _FAMILIES.items():
        for prefix in prefixes(tensors, first):
            below = {name.removeprefix(prefix): t.shape for name, t in tensors.items() if name.startswith(prefix)}
            try:
                config, channels = propose(below)
            except (LookupError, ValueError):
                continue
            try:
                own = _shapes(config, channels)
            except (ArithmeticError, AssertionError, RuntimeError, TypeError):  # of sizes that no network has
                continue
            if _is_of(own, below):
                return config, channels
    shown = ", ".join(list(tensors)[:3]) or "nothing"
    raise ValueError(
        f"no network that is recognised has these tensors ({shown}, ...): known are ResNet, the wide ResNets of PAWS "
        f"and PAWS-TF, SmallNet and the vision transformers of DINO and timm; choose another by backbone.kind=NAME."
    )


def _shapes(config: BackboneConfig, channels: int) -> dict[str, torch.Size]:
    """The shapes of a network's tensors; none is allocated."""
    with torch.device("meta"):
        network = build_backbone(config, channels, published=False)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _is_of(own: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> bool:
    """Whether a file holds all tensors of a network, and no others in the network's parts."""
    parts = {name.partition(".")[0] for name in own}
    foreign = (name for name in found.keys() - own.keys() if name.partition(".")[0] in parts)
    complete = all(found.get(name) == shape or name.endswith(_COUNTER) for name, shape in own.items())
    return complete and not any(foreign)


def _count(found: Mapping[str, torch.Size], pattern: str) -> int:
    """How many of the names `pattern` with 0, 1, 2, ... in it there are, up to the first that is missing."""
    return next(number for number in range(len(found) + 1) if pattern.format(number) not in found)


def _with_stages(found: Mapping[str, torch.Size]) -> tuple[BackboneConfig, int]:
    """A ResNet or a wide ResNet: both begin with conv1 and have stages layer1, layer2, ..."""
    channels, in_channels, kernel, _ = found["conv1.weight"]
    if any(name.startswith("layer2.0.shortcut") for name in found):
        layers = 6 * _count(found, "layer1.{}.conv1.weight") + 4
        variant: Literal["paws", "keras"] = "paws" if "conv1.bias" in found else "keras"
        return WideResNetConfig(depth=layers, width=found["bn1.weight"][0] // 64, variant=variant), in_channels
    blocks = sum(_count(found, f"layer{stage}.{{}}.conv1.weight") for stage in (1, 2, 3, 4))
    # The name of a ResNet counts the convolutions of its blocks, the stem and a classifier.
    depth: Any = blocks * (3 if "layer1.0.conv3.weight" in found else 2) + 2
    stem: Literal["small", "imagenet"] = "small" if kernel == 3 else "imagenet"
    return ResNetConfig(depth=depth, width=channels // (16 if depth == 20 else 64), stem=stem), in_channels


def _small_net(found: Mapping[str, torch.Size]) -> tuple[BackboneConfig, int]:
    stem, in_channels, _, _ = found["stem.weight"]
    groups = _count(found, "groups.{}.conv1.weight")
    widths = tuple(found[f"groups.{group}.conv1.weight"][0] for group in range(groups))
    return SmallNetConfig(stem=stem, widths=widths), in_channels


def _vision_transformer(found: Mapping[str, torch.Size]) -> tuple[BackboneConfig, int]:
    """A ViT with a class token, whose position embedding is that of a square image and can be resized."""
    width, in_channels, patch, _ = found["patch_embed.proj.weight"]
    size = _VIT_SIZES[width]
    is_dinov2 = "blocks.0.ls1.gamma" in found
    usual_patch = 14 if is_dinov2 else patch if patch in _VIT_PATCHES[size] else max(_VIT_PATCHES[size])
    name = f"vit_{size}_patch{usual_patch}_{'dinov2' if is_dinov2 else _VIT_IMAGE}"
    image = math.isqrt(found["pos_embed"][1] - 1) * patch
    depth = _count(found, "blocks.{}.attn.qkv.weight")
    options: dict[str, bool | int | float | str] = {"dynamic_img_size": True}
    usual = {"patch_size": usual_patch, "img_size": _DINOV2_IMAGE if is_dinov2 else _VIT_IMAGE}
    usual["depth"] = _VIT_DEPTHS[size]
    given = {"patch_size": patch, "img_size": image, "depth": depth}
    options |= {option: value for option, value in given.items() if value != usual[option]}
    return TimmConfig(name=name, options=options), in_channels


_FAMILIES: dict[str, Callable[[Mapping[str, torch.Size]], tuple[BackboneConfig, int]]] = {
    "layer1.0.conv1.weight": _with_stages,
    "groups.0.conv1.weight": _small_net,
    "patch_embed.proj.weight": _vision_transformer,
}
"""A name that all networks of a family have -> what proposes a config."""
