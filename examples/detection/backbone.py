"""The residual network below a detector: its weights, and which of them are not trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from recipe import BackboneConfig, DataConfig
from tapetum.interchange.weights.initial_weights import load_initial_weights
from tapetum.methods.frozen import Frozen, FrozenConfig
from tapetum.nn.resnet import ResNet, ResNetConfig
from tapetum.recipe.files import RECIPE
from tapetum.recipe.recipe import load_recipe

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels."""
Three = tuple[float, float, float]


def build_network(config: BackboneConfig) -> tuple[ResNet, str]:
    """Build the network with its weights.

    Returns:
        The network, and one line that accounts for every tensor of the weights.

    Raises:
        ValueError: there is no such network, the weights are missing, or they are of another network.
    """
    network = ResNet(ResNetConfig(depth=config.depth, width=config.width, stem=config.stem))
    if config.weights is None:
        return network, "random weights"
    method = Frozen(FrozenConfig(), network, num_classes=0, num_images=0)
    try:
        taken = load_initial_weights(method, config.weights)
    except ValueError as error:
        raise ValueError(f"backbone.weights: {str(error).removeprefix('init: ')}") from error
    return network, taken.describe()


def normalisation(backbone: BackboneConfig, data: DataConfig) -> tuple[Three, Three]:
    """Mean and standard deviation of each channel: the recipe's, else those that the weights were trained with."""
    mean, std = IMAGENET
    if backbone.weights is not None and (Path(backbone.weights) / RECIPE).is_file():
        views = load_recipe(Path(backbone.weights) / RECIPE).views
        mean, std = _three(views.mean), _three(views.std)
    return data.mean or mean, data.std or std


def freeze(network: nn.Module, config: BackboneConfig, stage_of: Callable[[str], int]) -> None:
    """Exclude from training what the recipe says: the lower stages, and BatchNorm.

    Args:
        network: modified in place.
        config: what to freeze.
        stage_of: the stage that a tensor's or module's name belongs to; 0 is the stem.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(stage_of(name) >= config.frozen_stages)
    for name, module in list(network.named_modules()):
        is_frozen = config.batch_norm == "frozen" or stage_of(name) < config.frozen_stages
        if isinstance(module, nn.BatchNorm2d) and is_frozen:
            network.set_submodule(name, _frozen(module))


def stage_of(name: str) -> int:
    """The stage of a torchvision name, e.g. 3 for "layer3.0.conv1.weight" and 0 for "conv1.weight"."""
    return int(name[5]) if name.startswith("layer") else 0


def _frozen(module: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    frozen = FrozenBatchNorm2d(module.num_features, module.eps)
    frozen.load_state_dict(module.state_dict())
    return frozen


def _three(values: Any) -> Three:
    """A run on grey images has one value for all channels."""
    first, *others = values
    return (first, *others) if others else (first, first, first)
