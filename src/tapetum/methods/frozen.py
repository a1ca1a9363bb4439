"""No training: the features of given weights as they are, judged by soft nearest neighbours.

With a good pretrained backbone and very few labels this is hard to beat, and it takes no longer than looking at every
image once. It is also what a warm start has to improve on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.methods.base import Method, Progress, StepOutput


@dataclass(frozen=True, kw_only=True)
class FrozenConfig:
    """Nothing is trained: set trainer.steps to 0, and give weights by `init` or `backbone.pretrained`."""

    kind: Literal["frozen"] = "frozen"
    """The method."""


class Frozen(Method):
    """A backbone that stays as it is."""

    Config = FrozenConfig
    uses_views = False
    uses_support = True

    def __init__(self, config: FrozenConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """There is no step.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"trainer.steps is {progress.total_steps}, but frozen trains nothing: set it to 0.")

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) backbone features."""
        return self.backbone(images)
