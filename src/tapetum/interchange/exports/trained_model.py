"""A trained model with all that its users elsewhere need: what every export starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from tapetum.data.views.draw import ViewsConfig
from tapetum.evaluation.prediction import Supports
from tapetum.methods.base import Method
from tapetum.nn.backbones import BackboneConfig


@dataclass(frozen=True)
class TrainedModel:
    """A trained method on the CPU, in evaluation mode, in float32."""

    name: str
    """What the model is called: the name of its run's folder."""
    description: str
    """One line about the training, for people."""
    method: Method
    backbone: BackboneConfig
    """Config of `method.backbone`."""
    views: ViewsConfig
    """Only the evaluation view, the mean and the standard deviation are used."""
    classes: tuple[str, ...]
    """Empty for a model that was trained without labels."""
    supports: Supports | None
    """All labelled images, embedded; None without labels, and for formats that do not hold them."""
    support_names: tuple[str, ...] = ()
    """Their names, in the same order."""
    accuracies: Mapping[str, float] = field(default_factory=dict)
    """Measured top-1 accuracies in percent on images that training has not seen, by what measured them."""

    @property
    def channels(self) -> int:
        return len(self.views.mean)

    @property
    def classifier(self) -> nn.Linear | None:
        """The linear layer that classifies the backbone's features; None if the method has none."""
        layer = getattr(self.method, "classifier", None)
        return layer if isinstance(layer, nn.Linear) and layer.in_features == self.num_features else None

    @property
    def num_features(self) -> int:
        return int(self.method.backbone.num_features)  # type: ignore[union-attr, arg-type]
