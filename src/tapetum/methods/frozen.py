"""No training: the features of given weights, unchanged, evaluated by soft nearest neighbours.

With a good pretrained backbone and very few labels this is hard to beat, and it takes only one pass over the images.
It is also the baseline that a warm start has to beat.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.methods.base import Method, Progress, StepOutput
from tapetum.nn.heads import HeadConfig, build_heads


@dataclass(frozen=True, kw_only=True)
class FrozenConfig:
    """Trains nothing: set trainer.steps to 0, and give weights with `init` or `backbone.pretrained`."""

    kind: Literal["frozen"] = "frozen"
    """Selects this method."""
    head: HeadConfig | None = None
    """Projector above the backbone, whose outputs are judged, as published for PAWS; null judges the backbone's."""


class Frozen(Method):
    """A backbone, perhaps with heads, that is not trained."""

    Config = FrozenConfig
    uses_views = False
    uses_support = True

    def __init__(self, config: FrozenConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        num_features: Any = backbone.num_features
        head = config.head or HeadConfig(layers=0)
        self.projector, self.predictor = build_heads(head, num_features)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Refuse to train: this method has no steps.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"trainer.steps is {progress.total_steps}, but frozen trains nothing: set it to 0.")

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) backbone features, or those of the projector."""
        return self.projector(self.backbone(images))
