"""SimCLR+CT: SimCLR guided by labels in its first epochs, through SuNCEt (Assran et al., 2020).

https://arxiv.org/abs/2006.10803

In addition to the unlabelled images, a step sees S labelled ones. SuNCEt (supervised noise-contrastive estimation)
classifies each labelled image by its soft nearest neighbours among the other labelled ones:

    loss = NT-Xent(unlabelled) + mean_i -log( sum over j of i's class of p_ij )      while epoch < supervised_epochs
           p_i = softmax(z_i . Z_S^T / tau), without i itself

and NT-Xent alone afterwards: the labels shorten training, but the paper found that they cost accuracy if they stay.

SuNCEt alone, with BatchNorm's running statistics frozen, is how PAWS was fine-tuned on its labels (`simclr_weight` 0,
`freeze_statistics`, and the recipe's `init`).

Where this differs from the published code, on purpose:
- every image has its own label, any number per class, in any order; the published code uses the position in the batch;
- several views of labelled images may be drawn;
- labelled images are no longer processed once their term has ended;
- metrics report the two terms separately; in the published code the unlabelled one contains both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tapetum.data.batch import Batch
from tapetum.losses.simclr import nt_xent_loss
from tapetum.losses.suncet import suncet_loss
from tapetum.methods.base import (
    Method,
    Progress,
    StepOutput,
    check_above_zero,
    check_not_negative,
    check_support_rows,
)
from tapetum.methods.simclr import check_negatives
from tapetum.nn.heads import HeadConfig, build_heads, check_no_predictor
from tapetum.nn.recompute import embed_in_chunks, embed_with_supports
from tapetum.ops.soft_neighbours import smooth_one_hot
from tapetum.ops.spread import spread


@dataclass(frozen=True, kw_only=True)
class SuNCEtConfig:
    """SimCLR+CT; defaults are the published ones for ImageNet."""

    kind: Literal["suncet"] = "suncet"
    """Selects this method."""
    temperature: float = 0.1
    """tau of both terms; 0.1 in the published code."""
    supervised_epochs: float = 100.0
    """Number of epochs, from the start, in which SuNCEt is part of the loss; may be fractional."""
    supervised_weight: float = 1.0
    """Weight of SuNCEt; 1 in the paper."""
    simclr_weight: float = 1.0
    """Weight of NT-Xent; 1 in the paper. 0 trains on the labelled images alone, in all epochs."""
    freeze_statistics: bool = False
    """Whether BatchNorm normalises by its running statistics and leaves them unchanged, as in the published
    fine-tuning of PAWS; for runs that start from another run's weights (`init`)."""
    key_gradient: bool = False
    """Whether NT-Xent's gradient also flows through the views that an anchor is compared with; false in the published
    code."""
    head: HeadConfig = field(default_factory=lambda: HeadConfig(output=2048))
    """Projector."""

    def __post_init__(self) -> None:
        check_above_zero(self, "temperature")
        check_not_negative(self, "supervised_epochs", "supervised_weight", "simclr_weight")
        check_no_predictor(self.head, "SimCLR+CT")


class SuNCEt(Method):
    """Trains backbone and projector to tell images apart and, in the first epochs, classes too."""

    Config = SuNCEtConfig
    uses_support = True

    def __init__(self, config: SuNCEtConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        num_features: Any = backbone.num_features
        self.projector, _ = build_heads(config.head, num_features)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the loss of one step; supports and large views share one backbone call, unless there are chunks."""
        assert batch.views is not None
        assert batch.support is not None
        config = self.config
        if not config.simclr_weight:
            check_support_rows(len(batch.support.groups[0]), self.projector)
            supports = embed_in_chunks(self.backbone, batch.support.groups[0], self.support_chunk)
            projections = self.projector(supports)
            loss = config.supervised_weight * self._supervised(projections, batch)
            return StepOutput(loss, {"loss": loss.detach(), **spread(projections)})
        num_views, num_images = sum(batch.views.counts), len(batch.views.groups[0]) // batch.views.counts[0]
        check_negatives(num_views, num_images)
        is_supervised = progress.step < config.supervised_epochs * progress.steps_per_epoch
        supports = batch.support.groups[0] if is_supervised else batch.support.groups[0][:0]

        embeddings = embed_with_supports(self.backbone, supports, batch.views.groups, self.support_chunk)
        projections = self.projector(embeddings)
        unlabelled = projections[len(supports) :]
        metrics = {"nt_xent": nt_xent_loss(unlabelled, num_views, config.temperature, config.key_gradient)}
        loss = config.simclr_weight * metrics["nt_xent"]
        if is_supervised:
            metrics["suncet"] = self._supervised(projections[: len(supports)], batch)
            loss = loss + config.supervised_weight * metrics["suncet"]
        metrics |= {"loss": loss, **spread(unlabelled[:num_images])}
        return StepOutput(loss, {name: value.detach() for name, value in metrics.items()})

    def train(self, mode: bool = True) -> SuNCEt:
        """Set training or evaluation mode; BatchNorm stays in evaluation mode if its statistics are frozen."""
        super().train(mode)
        for module in self.modules() if self.config.freeze_statistics else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def _supervised(self, projections: Tensor, batch: Batch) -> Tensor:
        assert batch.support is not None
        assert batch.support_labels is not None
        assert batch.support_classes is not None
        labels = batch.support_labels.repeat(batch.support.counts[0])
        return suncet_loss(projections, smooth_one_hot(labels, batch.support_classes, 0.0), self.config.temperature)

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) projector outputs, whose neighbours SuNCEt trains."""
        return self.projector(self.backbone(images))
