"""No training: the features of given weights, unchanged, evaluated by soft nearest neighbours.

With a good pretrained backbone and very few labels this is hard to beat, and it takes only one pass over the images.
It is also the baseline that a warm start has to beat.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.methods.base import Method, Progress, StepOutput


@dataclass(frozen=True, kw_only=True)
class FrozenConfig:
    """Trains nothing: set trainer.steps to 0, and give weights with `init` or `backbone.pretrained`."""

    kind: Literal["frozen"] = "frozen"
    """Selects this method."""


class Frozen(Method):
    """A backbone that is not trained."""

    Config = FrozenConfig
    uses_views = False
    uses_support = True

    def __init__(self, config: FrozenConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Refuse to train: this method has no steps.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"trainer.steps is {progress.total_steps}, but frozen trains nothing: set it to 0.")

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) backbone features."""
        return self.backbone(images)
