"""Heads between backbone and loss: the projector and, for PAWS on ImageNet, the predictor.

Layer names match the published PAWS checkpoints (`fc.*` and `pred.*` there).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import normalize

from tapetum.ops.precision import full_precision


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Projector and predictor; the defaults are those of PAWS on CIFAR-10."""

    hidden: int | None = None
    """Width of the projector's hidden layers; None: the backbone's number of features, as in PAWS."""
    output: int = 128
    """Dimension of the projection (PAWS: 128 on CIFAR-10, 2048 on ImageNet). Ignored with 0 layers."""
    layers: int = 3
    """Linear layers of the projector, 0 to 3, with BatchNorm and ReLU between them (3 in PAWS, 2 in SwAV);
    0: the projection is the backbone's embedding."""
    predictor: bool = False
    """Put a prediction head after the projector (PAWS: on for ImageNet, off for CIFAR-10)."""

    def __post_init__(self) -> None:
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"hidden is {self.hidden}: use 1 or more, or null for the backbone's number of features.")
        if self.output < 1:
            raise ValueError(f"output is {self.output}: use 1 or more.")
        if not 0 <= self.layers <= 3:
            raise ValueError(f"layers is {self.layers}: use 0, 1, 2 or 3.")


def check_no_predictor(head: HeadConfig, method: str) -> None:
    """Raises ValueError where a prediction head is asked of a method that has none."""
    if head.predictor:
        raise ValueError(f"head.predictor is true, but {method} has no prediction head: set it to false.")


class ProjectionHead(nn.Sequential):
    """fc1 bn1 relu1 fc2 bn2 relu2 fc3: maps embeddings (B, in_features) to projections (B, out_features).

    Args:
        in_features: dimension of the backbone's embedding.
        hidden: width of the hidden layers.
        output: dimension of the projection.
        layers: number of linear layers, 0 to 3; 0 is the identity, whose out_features is in_features.

    Example:
        >>> [name for name, _ in ProjectionHead(128, 128, 64, layers=2).named_children()]
        ['fc1', 'bn1', 'relu1', 'fc2']
    """

    def __init__(self, in_features: int, hidden: int, output: int, layers: int = 3) -> None:
        if not 0 <= layers <= 3:
            raise ValueError(f"layers is {layers}: use 0, 1, 2 or 3.")
        super().__init__()
        self.out_features = in_features
        for name, layer in hidden_layers(in_features, hidden, layers - 1).named_children():
            self.add_module(name, layer)
            self.out_features = hidden
        if layers:
            self.add_module(f"fc{layers}", nn.Linear(self.out_features, output))
            self.out_features = output


def hidden_layers(in_features: int, hidden: int, count: int) -> nn.Sequential:
    """The first `count` layers of a projector, fc1 bn1 relu1 and so on: maps (B, in_features) to (B, hidden).

    Example:
        >>> [name for name, _ in hidden_layers(128, 64, 1).named_children()]
        ['fc1', 'bn1', 'relu1']
    """
    layers = nn.Sequential()
    for i in range(1, count + 1):
        layers.add_module(f"fc{i}", nn.Linear(in_features if i == 1 else hidden, hidden))
        layers.add_module(f"bn{i}", nn.BatchNorm1d(hidden))
        layers.add_module(f"relu{i}", nn.ReLU(inplace=True))
    return layers


class PredictionHead(nn.Module):
    """bn1 fc1 bn2 relu fc2, with a bottleneck of features / 4: maps projections (B, features) to (B, features).

    Example:
        >>> PredictionHead(128).fc1.out_features
        32
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        hidden = max(1, features // 4)
        self.bn1 = nn.BatchNorm1d(features)
        self.fc1 = nn.Linear(features, hidden)
        self.bn2 = nn.BatchNorm1d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(hidden, features)
        self.out_features = features

    def forward(self, projection: Tensor) -> Tensor:
        return self.fc2(self.relu(self.bn2(self.fc1(self.bn1(projection)))))


def build_heads(config: HeadConfig, in_features: int) -> tuple[ProjectionHead, PredictionHead | None]:
    """Build the projector and, if the config has one, the predictor for a backbone of `in_features` features.

    Example:
        >>> projector, predictor = build_heads(HeadConfig(output=64), 128)
        >>> projector.out_features, predictor
        (64, None)
    """
    hidden = in_features if config.hidden is None else config.hidden
    projector = ProjectionHead(in_features, hidden, config.output, config.layers)
    return projector, PredictionHead(projector.out_features) if config.predictor else None


@full_precision
def unit_length(projections: Tensor) -> Tensor:
    """Scale the rows of (B, D) to length 1, in float32 or better even inside autocast."""
    return normalize(projections, dim=1)
