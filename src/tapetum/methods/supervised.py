"""Supervised training on the labelled images alone: the simplest baseline, which every result is compared with.

It has the same backbone, labels, support sampler and support views as the methods it is compared with. Its loss is the
cross-entropy of a linear classifier with label smoothing. It sees no unlabelled images.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.losses.classification import classification_loss
from tapetum.methods.base import Method, Progress, StepOutput, check_label_smoothing
from tapetum.nn.recompute import embed_in_chunks
from tapetum.ops.spread import spread


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """Cross-entropy on the labelled images."""

    kind: Literal["supervised"] = "supervised"
    """Selects this method."""
    label_smoothing: float = 0.1
    """Share of each label that is spread evenly over all classes, in [0, 1)."""

    def __post_init__(self) -> None:
        check_label_smoothing(self.label_smoothing)


class Supervised(Method):
    """A backbone and a linear classifier."""

    Config = SupervisedConfig
    uses_views = False
    uses_support = True
    predicts_by = "classifier"

    def __init__(self, config: SupervisedConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        num_features: Any = backbone.num_features
        self.classifier = nn.Linear(num_features, num_classes)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the cross-entropy of the support views."""
        assert batch.support is not None
        assert batch.support_labels is not None
        labels = batch.support_labels.repeat(batch.support.counts[0])
        features = embed_in_chunks(self.backbone, batch.support.groups[0], self.support_chunk)
        logits = self.classifier(features)
        loss = classification_loss(logits, labels, self.config.label_smoothing)
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return StepOutput(loss, {"loss": loss.detach(), "accuracy": accuracy, **spread(features)})

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) backbone features."""
        return self.backbone(images)

    def classify(self, images: Tensor) -> Tensor | None:
        """(B, num_classes) logits."""
        return self.classifier(self.backbone(images))

    def embed_and_classify(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both from one pass of the backbone."""
        features = self.embed(images)
        return features, self.classifier(features)
