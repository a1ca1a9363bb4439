"""Fine-tuning: a linear classifier on a backbone that starts from given weights, trained with labels by cross-entropy.

With the recipe's `init` this is how published representations are judged, and how one becomes an ordinary classifier:

- PAWS (https://arxiv.org/abs/2104.13963): one layer of the projector stays below the classifier, which starts from
  zero; everything is trained with one learning rate and no decay (`projector_layers` 1);
- SwAV with 1% or 10% of the labels (https://arxiv.org/abs/2006.09882): a classifier on the backbone, which learns more
  slowly than the classifier (`optimizer.backbone_lr`);
- SwAV's linear evaluation: the classifier alone is trained, on crops of the images (`freeze_backbone`).

Labelled images come in shuffled passes (`support.batch_size`), one random crop each.

Where this differs from the published code, on purpose:
- the classifier has as many classes as the labels, not always 1,000;
- every pass has whole batches: what is left over begins the next pass, where the published code draws a smaller batch;
- several processes share their batch statistics; PAWS's published fine-tuning keeps them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tapetum.data.batch import Batch
from tapetum.losses.classification import classification_loss
from tapetum.methods.base import Method, Progress, StepOutput, check_label_smoothing, check_support_rows
from tapetum.nn.heads import hidden_layers
from tapetum.nn.recompute import embed_in_chunks
from tapetum.ops.spread import spread


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Cross-entropy on the labelled images, from given weights (`init`)."""

    kind: Literal["finetune"] = "finetune"
    """Selects this method."""
    freeze_backbone: bool = False
    """Whether the backbone stays as it is and only what follows it is trained: without `projector_layers` that is the
    classifier alone (linear evaluation)."""
    freeze_statistics: bool = False
    """Whether BatchNorm normalises by its running statistics and leaves them unchanged."""
    projector_layers: int = 0
    """Layers of the projector, each with BatchNorm and ReLU, that stay between backbone and classifier: 1 in PAWS,
    0 in SwAV. They are taken from the weights to start from if their shapes agree."""
    projector_hidden: int | None = None
    """Width of these layers; null: the backbone's number of features, as in PAWS."""
    classifier_start: Literal["zero", "normal", "uniform"] = "zero"
    """Where the classifier starts: all zeros (PAWS), weights from N(0, 0.01) and no biases (SwAV's linear evaluation),
    or torch's default (SwAV's fine-tuning)."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes, in [0, 1); 0 in all published evaluations."""

    def __post_init__(self) -> None:
        check_label_smoothing(self.label_smoothing)
        if not 0 <= self.projector_layers <= 2:
            raise ValueError(f"projector_layers is {self.projector_layers}: use 0, 1 or 2.")
        if self.projector_hidden is not None and self.projector_hidden < 1:
            raise ValueError(f"projector_hidden is {self.projector_hidden}: use 1 or more, or null.")


class Finetune(Method):
    """A backbone, perhaps some layers of its projector, and a linear classifier."""

    Config = FinetuneConfig
    uses_views = False
    uses_support = True
    predicts_by = "classifier"
    starts_anew = ("classifier",)

    def __init__(self, config: FinetuneConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        num_features: Any = backbone.num_features
        hidden = config.projector_hidden or num_features
        self.projector = hidden_layers(num_features, hidden, config.projector_layers)
        self.classifier = nn.Linear(hidden if config.projector_layers else num_features, num_classes)
        if config.classifier_start != "uniform":
            std = 0.01 if config.classifier_start == "normal" else 0.0
            nn.init.normal_(self.classifier.weight, std=std)
            nn.init.zeros_(self.classifier.bias)
        if config.freeze_backbone:
            backbone.requires_grad_(False)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the cross-entropy of the labelled images."""
        assert batch.support is not None
        assert batch.support_labels is not None
        labels = batch.support_labels.repeat(batch.support.counts[0])
        check_support_rows(len(labels), self.projector)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_backbone):
            features = embed_in_chunks(self.backbone, batch.support.groups[0], self.support_chunk)
        logits = self.classifier(self.projector(features))
        loss = classification_loss(logits, labels, self.config.label_smoothing)
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return StepOutput(loss, {"loss": loss.detach(), "accuracy": accuracy, **spread(features)})

    def train(self, mode: bool = True) -> Finetune:
        """Set training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.backbone.eval()
        for module in self.modules() if self.config.freeze_statistics else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) what the classifier sees: backbone features, or those of the projector's layers above them."""
        return self.projector(self.backbone(images))

    def classify(self, images: Tensor) -> Tensor | None:
        """(B, num_classes) logits."""
        return self.classifier(self.embed(images))

    def embed_and_classify(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both from one pass of the backbone."""
        features = self.embed(images)
        return features, self.classifier(features)
