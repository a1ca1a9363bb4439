"""SimCLR: recognising an image's other views among those of all other images (Chen et al., ICML 2020).

https://arxiv.org/abs/2002.05709

It uses no labels. The loss (NT-Xent) pulls the projections z (unit length) of an image's views together and pushes
them away from those of the batch's other images, here with V views of B images:

    loss = mean over views a and other views b of the image of
           -log( exp(a.b / tau) / (exp(a.b / tau) + sum over views c of other images of exp(a.c / tau)) )

In terms of Tapetum's one idea, the anchors are the images of the batch, and a view is assigned to its own image. All
images of all processes are each other's negatives.

Where this differs from the published code, on purpose:
- any number of large and small views, as in SwAV's appendix; the paper has two large ones;
- running BatchNorm statistics of the backbone come only from the large-view call.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.losses.simclr import nt_xent_loss
from tapetum.methods.base import Method, Progress, StepOutput, check_above_zero
from tapetum.nn.heads import HeadConfig, build_heads, check_no_predictor
from tapetum.nn.multi_crop import embed_views
from tapetum.ops.collectives import world_size
from tapetum.ops.spread import spread


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
    """SimCLR."""

    kind: Literal["simclr"] = "simclr"
    """Selects this method."""
    temperature: float = 0.1
    """tau; 0.1 in the paper on ImageNet, 0.5 on CIFAR-10."""
    key_gradient: bool = True
    """Whether the gradient also flows through the views that an anchor is compared with, as in the paper."""
    head: HeadConfig = field(default_factory=lambda: HeadConfig(hidden=2048, output=128, layers=2))
    """Projector; the paper's has two layers."""

    def __post_init__(self) -> None:
        check_above_zero(self, "temperature")
        check_no_predictor(self.head, "SimCLR")


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
        """Compute the loss of one step."""
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
    """Check that there are other views to recognise, and other images to tell them from.

    Raises:
        ValueError: there is only one view or only one image.
    """
    if num_views < 2:
        raise ValueError("views.large.count is 1, but views of an image are compared: set it to 2.")
    if num_images * world_size() < 2:
        raise ValueError("data.batch_size is 1, but the loss tells images apart: set it to 2 or more.")
