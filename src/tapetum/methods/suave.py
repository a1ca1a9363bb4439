"""Suave: SwAV whose prototypes are the classes (Fini, Astolfi et al., CVPR 2023).

https://arxiv.org/abs/2306.07483

There is one prototype for each class; it serves as the class's weight in a classifier. Unlabelled images are trained
as in SwAV (`methods/swav.py`): each view predicts the balanced code of the other views. Labelled images determine
which prototype belongs to which class:

    loss = w_u swapped(unlabelled) + w_l H(y, softmax(z_l . C^T / tau))

with each term weighted by its share of all views in the step. Codes are balanced over the classes, so the method
assumes that all classes are equally frequent among the unlabelled images.

Where this differs from the published code, on purpose:
- labelled images are not mixed with each other (mixup): they are drawn and augmented as in every method here;
- the prototypes are the only classifier; no second one is trained alongside for evaluation;
- and the differences listed in `methods/swav.py`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.losses.classification import classification_loss
from tapetum.methods.base import Progress, StepOutput, check_label_smoothing
from tapetum.methods.swav import SwAV, SwAVConfig
from tapetum.nn.heads import HeadConfig, unit_length
from tapetum.nn.recompute import embed_with_supports


@dataclass(frozen=True, kw_only=True)
class SuaveConfig:
    """Suave; defaults are the published ones for ImageNet, where the backbone comes from SwAV."""

    kind: Literal["suave"] = "suave"
    """Selects this method."""
    temperature: float = 0.1
    """tau of both terms; 0.1 in the paper."""
    epsilon: float = 0.05
    """Smoothness of the codes; 0.05 in the paper."""
    iterations: int = 3
    """Rounds of Sinkhorn-Knopp; 3 in the paper."""
    label_smoothing: float = 0.01
    """Share of each label that is spread evenly over all classes, in [0, 1); 0.01 in the published code."""
    assigning_views: tuple[int, ...] = (0, 1)
    """The views whose codes are predicted, numbered from 0, large ones first."""
    queue_length: int = 0
    """Projections of earlier unlabelled images that take part in balancing, as in SwAV. 0: none."""
    queue_start_epoch: int = 0
    """Epoch, counted from 0, in which the queue starts to fill."""
    head: HeadConfig = field(default_factory=lambda: HeadConfig(hidden=2048, output=128, layers=2))
    """Projector."""

    def __post_init__(self) -> None:
        self.shared(num_classes=2)
        check_label_smoothing(self.label_smoothing)

    def shared(self, num_classes: int) -> SwAVConfig:
        """Return the settings that Suave shares with SwAV."""
        return SwAVConfig(
            num_prototypes=(num_classes,),
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            assigning_views=self.assigning_views,
            freeze_steps=0,
            queue_length=self.queue_length,
            queue_start_epoch=self.queue_start_epoch,
            head=self.head,
        )


class Suave(SwAV):
    """Trains backbone, projector and one prototype for each class."""

    Config: ClassVar[type] = SuaveConfig
    uses_support = True
    predicts_by = "classifier"

    def __init__(self, config: SuaveConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__(config.shared(num_classes), backbone, num_classes=num_classes, num_images=num_images)
        self.label_smoothing = config.label_smoothing

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the loss of one step; supports and large views share one backbone call, unless there are chunks."""
        assert batch.views is not None
        assert batch.support is not None
        assert batch.support_labels is not None
        supports = batch.support.groups[0]
        embeddings = embed_with_supports(self.backbone, supports, batch.views.groups, self.support_chunk)
        labelled, views = unit_length(self.projector(embeddings)).tensor_split([len(supports)])

        swapped = self.predict_swapped(views.unflatten(0, (sum(batch.views.counts), -1)), progress)
        labels = batch.support_labels.repeat(batch.support.counts[0])
        logits = self.prototypes(labelled)[0] / self.config.temperature
        supervised = classification_loss(logits, labels, self.label_smoothing)
        share = len(labelled) / len(embeddings)
        loss = (1 - share) * swapped.loss + share * supervised
        metrics = {**swapped.metrics, "swapped": swapped.loss.detach(), "supervised": supervised.detach()}
        return StepOutput(loss, metrics | {"loss": loss.detach()}, carry=swapped.carry)

    def classify(self, images: Tensor) -> Tensor:
        """(B, num_classes) logits: scores against the prototypes of the classes."""
        return self.cluster(images)

    def embed_and_classify(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both from one pass of the backbone."""
        features = self.embed(images)
        return features, self.prototypes(unit_length(self.projector(features)))[0] / self.config.temperature
