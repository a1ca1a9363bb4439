"""PAWS: predicting view assignments with support samples (Assran et al., ICCV 2021).

https://arxiv.org/abs/2104.13963

Every step sees B unlabelled images in two large views and M small ones, and a class-stratified *support set* of S
labelled images. A view's class probabilities come from its soft nearest neighbours among the supports,

    p = softmax(z . Z_S^T / tau) . Y_S          (z, Z_S of unit length; Y_S smoothed one-hot labels)

and each view learns to predict the sharpened probabilities of the other large view (small views: the mean of both):

    loss = mean_i H(q_i, p_i) - H(mean_i sharpen(p_i))          q = sharpen(p of the other view), no gradient

Sharpening keeps targets from collapsing to the uniform vector; maximising the entropy of the mean (me-max) keeps them
from collapsing to one class.

Where this differs from the published code, on purpose:
- label columns are explicitly the classes of the support set, the same on all ranks: there are no surplus columns when
  ranks share classes, and no shuffled labels when ranks hold different classes in more than one view;
- running BatchNorm statistics come only from the large-view call, not from whichever size ran last;
- the order of classes among the supports does not matter, so any labels work, even with uneven counts.
"""

import functools
import math
import operator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tapetum.data.batch import Batch, Views
from tapetum.losses.classification import classification_loss
from tapetum.losses.paws import paws_loss
from tapetum.losses.suncet import suncet_loss
from tapetum.methods.base import (
    Method,
    Progress,
    StepOutput,
    check_above_zero,
    check_label_smoothing,
    check_not_negative,
    check_start_and_ramp,
    check_support_rows,
)
from tapetum.nn.batch_norm import running_statistics_frozen
from tapetum.nn.heads import HeadConfig, build_heads
from tapetum.nn.recompute import embed_with_supports
from tapetum.ops.soft_neighbours import smooth_one_hot
from tapetum.ops.spread import spread

_LARGEST_LOG = 87.0  # of 1 / x, for the smallest x that float32 holds with all its digits


@dataclass(frozen=True, kw_only=True)
class PAWSConfig:
    """PAWS; defaults are the paper's for both CIFAR-10 and ImageNet."""

    kind: Literal["paws"] = "paws"
    """Selects this method."""
    temperature: float = 0.1
    """tau of the soft nearest neighbours; the paper's value, in training and evaluation."""
    sharpen: float = 0.25
    """T: targets are raised to the power 1 / T and rescaled; 1 leaves them as they are."""
    me_max: bool = True
    """Whether the entropy of the mean prediction is maximised. Without this, training may collapse to a few classes."""
    class_prior: tuple[float, ...] | None = None
    """Expected share of each class among the unlabelled images, in the order of the classes: any positive numbers,
    scaled to sum to one. The mean prediction is pulled to these shares; null: to even ones, as in the paper."""
    label_smoothing: float = 0.1
    """Share of each support label that is spread evenly over all classes, in [0, 1)."""
    supervised_weight: float = 0.0
    """Weight of an added supervised term, not part of the paper: cross-entropy of a linear classifier on the support
    images' features. 0: off. A weight around 1 helps in short runs."""
    suncet_weight: float = 0.0
    """Weight of another added supervised term, not part of the paper: SuNCEt on the support images' projections,
    which classifies each image by its soft nearest neighbours among the others. 0: off."""
    paws_weight: float = 1.0
    """Weight of the paper's two terms; 1 in the paper."""
    paws_start: float = 0.0
    """Share of training that sees labelled images alone, by the added supervised terms; 0 in the paper. A step without
    unlabelled images costs less than half, and the first pseudo-labels are then mostly right."""
    paws_ramp: float = 0.0
    """Share of training over which `paws_weight` then rises linearly from 0; 0: full from the first step, as in the
    paper. In short runs the first pseudo-labels are mostly wrong, so a supervised term does better alone at first."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Projector and predictor."""

    def __post_init__(self) -> None:
        check_above_zero(self, "temperature", "sharpen")
        check_not_negative(self, "supervised_weight", "suncet_weight", "paws_weight")
        check_start_and_ramp(self, "paws_start", "paws_ramp")
        if self.paws_start and not (self.supervised_weight or self.suncet_weight):
            raise ValueError(
                f"paws_start is {self.paws_start}, but nothing would be learned before it: set supervised_weight or "
                "suncet_weight above 0."
            )
        check_label_smoothing(self.label_smoothing)
        if self.class_prior is not None and not all(share > 0 for share in self.class_prior):
            raise ValueError(f"class_prior is {list(self.class_prior)}: give a number above 0 for each class.")


class PAWS(Method):
    """Trains backbone, projector and (optionally) predictor to assign both views of an image to the same classes."""

    Config: ClassVar[type] = PAWSConfig
    uses_views = True
    num_large_views = 2
    uses_support = True

    def __init__(self, config: PAWSConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        num_features: Any = backbone.num_features
        self.projector, self.predictor = build_heads(config.head, num_features)
        self.classifier = nn.Linear(num_features, num_classes) if config.supervised_weight else None
        least = math.log(num_classes) / _LARGEST_LOG
        if config.sharpen < least:
            raise ValueError(
                f"sharpen is {config.sharpen}, by which even rows of {num_classes} classes become 0: use {least:.2g} "
                "or more."
            )
        shares = config.class_prior
        if shares is not None and len(shares) != num_classes:
            raise ValueError(
                f"class_prior has {len(shares)} numbers, but there are {num_classes} classes: give one each."
            )
        self.class_prior: Tensor | None  # a buffer, so that it waits on the device; it is no part of checkpoints
        prior = None if shares is None else torch.tensor(shares, dtype=torch.float64)
        self.register_buffer("class_prior", prior, persistent=False)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the loss; anchors are predictor outputs z, targets projector outputs h (z = h without predictor).

        Without views, as before `paws_start`, it is that of the supervised terms.
        """
        assert batch.support is not None
        assert batch.support_labels is not None
        assert batch.support_classes is not None
        supports = batch.support.groups[0]
        num_supports = len(supports)
        large = [] if batch.views is None else [batch.views.groups[0]]
        if not large:
            check_support_rows(num_supports, self.projector, self.predictor)
        features = embed_with_supports(self.backbone, supports, large, self.support_chunk)
        h, z = self._heads(features)
        labels = batch.support_labels.repeat(batch.support.counts[0])
        smoothed = smooth_one_hot(labels, batch.support_classes, self.config.label_smoothing)
        terms: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        if batch.views is not None:
            loss, metrics = self._unsupervised_loss(batch.views, h, z, smoothed, batch.support_classes)
            terms.append(self._paws_weight(progress) * loss)
        if self.classifier is not None:
            metrics["supervised"] = self._classification_loss(features[:num_supports], labels)
            terms.append(self.config.supervised_weight * metrics["supervised"])
        if self.config.suncet_weight:
            metrics["suncet"] = suncet_loss(z[:num_supports], smoothed, self.config.temperature)
            terms.append(self.config.suncet_weight * metrics["suncet"])
        total = functools.reduce(operator.add, terms)
        metrics = {name: value.detach() for name, value in metrics.items()}
        shown = z if batch.views is None else z[num_supports : num_supports + len(large[0]) // 2]
        return StepOutput(total, metrics | {"loss": total.detach(), **spread(shown)})

    def _unsupervised_loss(
        self, views: Views, h: Tensor, z: Tensor, support_labels: Tensor, classes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the paper's loss, of heads' outputs for supports and large views, and its parts."""
        num_supports, num_images = len(support_labels), len(views.groups[0]) // 2
        anchors, num_small = z[num_supports:], 0
        if len(views.groups) > 1:
            num_small = views.counts[1]
            with running_statistics_frozen(self):
                _, z_small = self._heads(self.backbone(views.groups[1]))
            anchors = torch.cat([anchors, z_small])
        first, second = h[num_supports:].detach().split(num_images)
        match, mean_entropy, more_metrics = self.unsupervised_terms(
            anchor_views=anchors,
            anchor_supports=z[:num_supports],
            support_labels=support_labels,
            target_views=torch.cat([second, first]),
            target_supports=h[:num_supports].detach(),
            num_small_views=num_small,
            temperature=self.config.temperature,
            sharpen_temperature=self.config.sharpen,
            class_prior=self._class_prior(classes),
        )
        loss = match + mean_entropy if self.config.me_max else match
        return loss, {"cross_entropy": match, "mean_entropy": mean_entropy, **more_metrics}

    def unsupervised_terms(self, **inputs: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute the paper's two terms, and further metrics, from the arguments of `paws_loss`."""
        return *paws_loss(**inputs), {}

    def _class_prior(self, classes: Tensor) -> Tensor | None:
        """(C,) expected shares of the classes of a step; None without `class_prior`."""
        if self.class_prior is None:
            return None
        shares = self.class_prior[classes]
        return shares / shares.sum()

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        h = self.projector(features)
        return h, h if self.predictor is None else self.predictor(h)

    def first_with_views(self, total_steps: int) -> int:
        return int(self.config.paws_start * total_steps)

    def _paws_weight(self, progress: Progress) -> float:
        first = self.first_with_views(progress.total_steps)
        return self.config.paws_weight * progress.ramp(first, self.config.paws_ramp)

    def _classification_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        assert self.classifier is not None
        return classification_loss(self.classifier(features), labels, self.config.label_smoothing)

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) projector outputs, as in the published evaluation."""
        return self.projector(self.backbone(images))

    def classify(self, images: Tensor) -> Tensor | None:
        """(B, num_classes) logits of the linear classifier of the supervised term; None without that term."""
        return None if self.classifier is None else self.classifier(self.backbone(images))

    def embed_and_classify(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both from one pass of the backbone."""
        features = self.backbone(images)
        return self.projector(features), None if self.classifier is None else self.classifier(features)
