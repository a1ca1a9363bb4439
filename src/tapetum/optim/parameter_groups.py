"""Chooses which parameters weight decay and LARS's adaptation apply to."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_NORMALISATION: tuple[type[nn.Module], ...] = (
    _NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def group_parameters(model: nn.Module, *, exclude: bool = True, backbone_lr: float = 1.0) -> list[dict[str, Any]]:
    """Split a model's trainable parameters into two groups for an optimizer: decayed and excluded.

    Excluded from weight decay and LARS's adaptation are the parameters of every normalisation layer, found by the
    layer's type, and every parameter of at most one dimension (biases, gains of other layers). The published PAWS
    looks for "bn" in names instead, so it decays and adapts the BatchNorm weights of ResNet's downsampling shortcuts;
    that is fixed here.

    Args:
        model: parameters with `requires_grad` off are left out; shared ones are listed once.
        exclude: False puts all parameters into one decayed group, as in SwAV.
        backbone_lr: if not 1, parameters under "backbone." form groups of their own, with this as "lr_factor".

    Returns:
        Groups {"params": [(name, parameter), ...] sorted by name, "decayed": bool}, the excluded one with
        "weight_decay": 0. An empty group is left out.

    Raises:
        ValueError: the model has no trainable parameter.

    Example:
        >>> [len(group["params"]) for group in group_parameters(nn.Linear(2, 2))]
        [1, 1]
    """
    layers = (module for module in model.modules() if isinstance(module, _NORMALISATION))
    normalisation = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    named = [(name, trainable[name]) for name in sorted(trainable)]
    if not named:
        raise ValueError("The model has no trainable parameter: set requires_grad on the ones to train.")
    excluded = [(name, p) for name, p in named if exclude and (p.ndim <= 1 or id(p) in normalisation)]
    names = {name for name, _ in excluded}
    decayed = [(name, p) for name, p in named if name not in names]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "decayed": True},
        {"params": excluded, "decayed": False, "weight_decay": 0.0},
    ]
    if backbone_lr != 1.0:
        groups = [part for group in groups for part in _split(group, backbone_lr)]
    return [group for group in groups if group["params"]]


def _split(group: dict[str, Any], backbone_lr: float) -> list[dict[str, Any]]:
    inside = [(name, p) for name, p in group["params"] if name.startswith("backbone.")]
    outside = [(name, p) for name, p in group["params"] if not name.startswith("backbone.")]
    return [{**group, "params": outside}, {**group, "params": inside, "lr_factor": backbone_lr}]
