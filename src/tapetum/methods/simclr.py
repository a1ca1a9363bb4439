"""SimCLR: recognising the other views of an image among those of all others (Chen et al., ICML 2020).

https://arxiv.org/abs/2002.05709

No label is used. Projections z (unit length) of an image's views are drawn together, and away from those of the other
images of the batch (NT-Xent), here with V views of B images:

    loss = mean over views a and other views b of the image of
           -log( exp(a.b / tau) / (exp(a.b / tau) + sum over views c of other images of exp(a.c / tau)) )

In Tapetum's one idea the anchors are batch mates, and a view is assigned to its own image. All images of all
processes are each other's negatives.

Where this differs from the published code, on purpose:
- any number of views, large and small, as SwAV's appendix has it; two large ones are the paper;
- running BatchNorm statistics of the backbone come from the large-view call alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.losses.simclr import nt_xent_loss
from tapetum.methods.base import Method, Progress, StepOutput
from tapetum.nn.heads import HeadConfig, build_heads
from tapetum.nn.multi_crop import embed_views
from tapetum.ops.collectives import world_size
from tapetum.ops.spread import spread


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
    """SimCLR."""

    kind: Literal["simclr"] = "simclr"
    """The method."""
    temperature: float = 0.1
    """tau; 0.1 in the paper on ImageNet, 0.5 on CIFAR-10."""
    key_gradient: bool = True
    """Whether the gradient also passes through the views compared with, as in the paper."""
    head: HeadConfig = field(default_factory=lambda: HeadConfig(hidden=2048, output=128, layers=2))
    """Projector; the paper's has two layers."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}: use a number above 0, for example 0.1.")
        if self.head.predictor:
            raise ValueError("head.predictor is true, but SimCLR has no prediction head: set it to false.")


class SimCLR(Method):
    """Trains backbone and projector to tell images apart."""

    Config = SimCLRConfig

    def __init__(self, config: SimCLRConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        num_features: Any = backbone.num_features
        self.projector, _ = build_heads(config.head, num_features)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of one step."""
        assert batch.views is not None
        num_views, num_images = sum(batch.views.counts), len(batch.views.groups[0]) // batch.views.counts[0]
        check_negatives(num_views, num_images)
        projections = self.projector(embed_views(self.backbone, batch.views.groups))
        loss = nt_xent_loss(projections, num_views, self.config.temperature, self.config.key_gradient)
        return StepOutput(loss, {"loss": loss.detach(), **spread(projections[:num_images])})

    def embed(self, images: Tensor) -> Tensor:
        """(B, F) backbone output, as in the paper's evaluations."""
        return self.backbone(images)


def check_negatives(num_views: int, num_images: int) -> None:
    """Whether there is something to recognise and something to tell it from.

    Raises:
        ValueError: one view, or one image.
    """
    if num_views < 2:
        raise ValueError("views.large.count is 1, but views of an image are compared: set it to 2.")
    if num_images * world_size() < 2:
        raise ValueError("data.batch_size is 1, but images are told from each other: set it to 2 or more.")
