"""FixMatch: strong views predict the class that is assigned to weak views (Sohn, Berthelot et al., NeurIPS 2020).

https://arxiv.org/abs/2001.07685

Every step sees S labelled images and B unlabelled ones, these in weak views (the large ones) and strong views (the
small ones, of any size). A linear classifier assigns a class to an image by its weak views, and the strong views learn
it where the classifier is sure:

    p_i  = mean over weak views of softmax(classifier(backbone(view)))           no gradient
    loss = H(y, supports) + w mean_iv 1[max p_i >= threshold] H(argmax p_i, strong view v of image i)

Three options, off by default, are from its kin:
- `even_classes` divides p by its running mean and rescales it (distribution alignment, ReMixMatch, Berthelot et al.,
  ICLR 2020, https://arxiv.org/abs/1911.09785), so that no class takes over;
- `teacher_decay` has p computed by an exponential moving average of the weights (Mean Teacher, Tarvainen & Valpola,
  NeurIPS 2017, https://arxiv.org/abs/1703.01780);
- `threshold: null` counts every pseudo-label by its probability instead of all or none.

Where this differs from the published code, on purpose:
- BatchNorm normalises weak views by themselves, and so strong views of another size than the supports; its running
  statistics come from supports, and from strong views of their size;
- predictions come from the last weights, not from their average: the learning rate ends at 0, which averages, too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tapetum.data.batch import Batch, Views
from tapetum.losses.classification import classification_loss
from tapetum.losses.fixmatch import aligned, mean_probabilities, neighbour_loss, pseudo_label_loss
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
from tapetum.nn.heads import HeadConfig, build_heads, check_no_predictor
from tapetum.nn.recompute import embed_in_chunks, embed_with_supports
from tapetum.ops.collectives import mean_over_ranks
from tapetum.ops.soft_neighbours import smooth_one_hot
from tapetum.ops.spread import spread

CLASS_MEAN_DECAY = 0.99
"""Of the running mean of p, per step; ReMixMatch takes the mean over the last 128 steps."""


@dataclass(frozen=True, kw_only=True)
class FixMatchConfig:
    """FixMatch; defaults are the paper's for CIFAR-10."""

    kind: Literal["fixmatch"] = "fixmatch"
    """Selects this method."""
    threshold: float | None = 0.95
    """A pseudo-label counts if its probability is at least this; 0.95 in the paper. null: it counts by its
    probability, which learns more in short runs, where few are ever so sure."""
    unlabelled_weight: float = 1.0
    """Weight of the unlabelled term; 1 in the paper."""
    unlabelled_start: float = 0.0
    """Share of training that sees labelled images alone; 0 in the paper. Such a step costs much less, and the first
    pseudo-labels are then mostly right."""
    unlabelled_ramp: float = 0.0
    """Share of training over which `unlabelled_weight` then rises linearly from 0; 0: full from the first step, as in
    the paper."""
    even_classes: bool = False
    """Whether pseudo-labels are pulled to even classes: p is divided by its running mean and rescaled."""
    teacher_decay: float = 0.0
    """Share of the teacher's weights that a step keeps, for instance 0.99: the teacher, their average, gives the
    pseudo-labels. 0: the learner gives them itself, as in the paper."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes, in [0, 1); pseudo-labels are not smoothed."""
    suncet_weight: float = 0.0
    """Weight of an added supervised term, not part of the paper: SuNCEt on projections of the labelled images, which
    classifies each by its soft nearest neighbours among the others. Only with it is there a projector. 0: off."""
    neighbour_weight: float = 0.0
    """Weight, within the unlabelled term, of an added one, not part of the paper: the soft nearest neighbours among the
    labelled images, which SuNCEt trains, learn the pseudo-labels beside the classifier. 0: off."""
    temperature: float = 0.1
    """tau of SuNCEt and of `neighbour_weight`; evaluation takes 0.1."""
    head: HeadConfig = field(default_factory=lambda: HeadConfig(hidden=256, output=128, layers=2))
    """Projector, if `suncet_weight` is above 0."""

    def __post_init__(self) -> None:
        check_above_zero(self, "temperature")
        check_not_negative(self, "unlabelled_weight", "suncet_weight", "neighbour_weight")
        if self.neighbour_weight and not self.suncet_weight:
            raise ValueError(
                f"neighbour_weight is {self.neighbour_weight}, but suncet_weight is 0, so no projector is trained: "
                "set suncet_weight above 0, or neighbour_weight to 0."
            )
        check_label_smoothing(self.label_smoothing)
        check_no_predictor(self.head, "FixMatch")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}: use a probability from 0 to 1, or null.")
        check_start_and_ramp(self, "unlabelled_start", "unlabelled_ramp")
        if not 0 <= self.teacher_decay < 1:
            raise ValueError(f"teacher_decay is {self.teacher_decay}: use a number from 0 to below 1.")


class FixMatch(Method):
    """Trains backbone and classifier, and a projector beside it if SuNCEt is added."""

    Config = FixMatchConfig
    needs_small_views = True
    uses_support = True

    def __init__(self, config: FixMatchConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        num_features: Any = backbone.num_features
        self.classifier = nn.Linear(num_features, num_classes)
        self.projector = build_heads(config.head, num_features)[0] if config.suncet_weight else None
        # Neighbours that were trained to be of one class predict as well, say why, and take in new classes at once.
        self.predicts_by = "classifier" if self.projector is None else "soft_neighbours"
        self.teacher: nn.Sequential | None = None
        if config.teacher_decay:
            self.teacher = copy.deepcopy(nn.Sequential(backbone, self.classifier)).requires_grad_(False)
        self._averaged = -1
        """The last step that moved the teacher."""
        self._mean_of_step: tuple[int, Tensor, list[Tensor]] | None = None
        """The last step that moved the running mean; that mean before it; and the mean p of each of its batches."""
        self.class_mean: Tensor | None
        """(C,) running mean of p over the unlabelled images; None without `even_classes`."""
        mean = torch.full((num_classes,), 1.0 / num_classes) if config.even_classes else None
        self.register_buffer("class_mean", mean)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the loss of one step; without views, as before `unlabelled_start`, that of the labelled images."""
        assert batch.support is not None
        assert batch.support_labels is not None
        supports = batch.support.groups[0]
        features = self._features(supports, batch.views)
        logits = self.classifier(features)
        labels = batch.support_labels.repeat(batch.support.counts[0])
        num_supports = len(supports)
        metrics = {"supervised": classification_loss(logits[:num_supports], labels, self.config.label_smoothing)}
        loss = metrics["supervised"]
        neighbours: tuple[Tensor, Tensor] | None = None
        if self.projector is not None:
            check_support_rows(num_supports, self.projector)
            projected = self.projector(features if self.config.neighbour_weight else features[:num_supports])
            smoothed = self._smoothed(labels, batch)
            metrics["suncet"] = suncet_loss(projected[:num_supports], smoothed, self.config.temperature)
            loss = loss + self.config.suncet_weight * metrics["suncet"]
            neighbours = (projected, smoothed) if self.config.neighbour_weight else None
        newest = None
        if batch.views is not None:
            unlabelled, newest, more = self._unlabelled_loss(batch, logits[num_supports:], neighbours)
            loss = loss + self._weight(progress) * unlabelled
            metrics |= more
        metrics = {name: value.detach() for name, value in metrics.items()}
        metrics |= {"loss": loss.detach(), **spread(features)}
        return StepOutput(loss, metrics, carry=(progress.step, newest))

    def _features(self, supports: Tensor, views: Views | None) -> Tensor:
        """Embed supports and strong views, in one call of the backbone if they have the same size."""
        if views is None:
            return embed_in_chunks(self.backbone, supports, self.support_chunk)
        _, strong = views.groups
        if strong.shape[1:] == supports.shape[1:]:
            return embed_with_supports(self.backbone, supports, [strong], self.support_chunk)
        features = embed_in_chunks(self.backbone, supports, self.support_chunk)
        with running_statistics_frozen(self.backbone):  # evaluation sees images of the supports' size
            return torch.cat([features, self.backbone(strong)])

    def _unlabelled_loss(
        self, batch: Batch, strong_logits: Tensor, neighbours: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Compute what unlabelled images teach.

        Args:
            batch: with views.
            strong_logits: (V * B, C) of the strong views.
            neighbours: projections (S + V * B, D) of supports and strong views, and the supports' labels (S, K), if
                soft nearest neighbours learn, too.

        Returns:
            The loss, 0-d; the mean p (C,) of all ranks, for the running mean; and metrics.
        """
        assert batch.views is not None
        probabilities = self._assignments(batch.views)
        newest = None
        if self.class_mean is not None:
            newest = mean_over_ranks(probabilities.mean(dim=0))
            probabilities = aligned(probabilities, self.class_mean.lerp(newest, 1.0 - CLASS_MEAN_DECAY))
        largest, pseudo_labels = probabilities.max(dim=1)
        threshold = self.config.threshold
        weights = largest if threshold is None else (largest >= threshold).to(largest.dtype)
        loss = pseudo_label_loss(strong_logits, pseudo_labels, weights)
        metrics = {
            "pseudo_labels": loss,
            "pseudo_label_weight": weights.mean(),
            "pseudo_label_probability": largest.mean(),
        }
        if neighbours is not None:
            assert batch.support_classes is not None
            projected, labels = neighbours
            supports, strong = projected[: len(labels)], projected[len(labels) :]
            one_hot = pseudo_labels[:, None] == batch.support_classes
            term = neighbour_loss(strong, supports, labels, one_hot, weights, self.config.temperature)
            loss = loss + self.config.neighbour_weight * term
            metrics["neighbours"] = term
        return loss, newest, metrics

    @torch.no_grad()
    def _assignments(self, views: Views) -> Tensor:
        """(B, C) mean class probabilities of the weak views."""
        judge = self.teacher if self.teacher is not None else nn.Sequential(self.backbone, self.classifier)
        with running_statistics_frozen(judge):
            return mean_probabilities(judge(views.groups[0]), views.counts[0])

    def _smoothed(self, labels: Tensor, batch: Batch) -> Tensor:
        assert batch.support_classes is not None
        return smooth_one_hot(labels, batch.support_classes, self.config.label_smoothing)

    def _weight(self, progress: Progress) -> float:
        first = self.first_with_views(progress.total_steps)
        return self.config.unlabelled_weight * progress.ramp(first, self.config.unlabelled_ramp)

    def starts_from_weights(self) -> None:
        """Let the teacher start from the weights that were loaded, too."""
        if self.teacher is not None:
            self.teacher.load_state_dict(nn.Sequential(self.backbone, self.classifier).state_dict())

    def first_with_views(self, total_steps: int) -> int:
        return int(self.config.unlabelled_start * total_steps)

    @torch.no_grad()
    def after_step(self, output: StepOutput, batch: Batch) -> None:
        """Move the running mean, by the mean over a step's batches, and the teacher, once a step.

        The teacher moves faster in the first steps, so that the initial weights are forgotten.
        """
        step, newest = output.carry
        if self.class_mean is not None and newest is not None:
            if self._mean_of_step is None or self._mean_of_step[0] != step:
                self._mean_of_step = step, self.class_mean.clone(), []
            _, before, parts = self._mean_of_step
            parts.append(newest)
            self.class_mean.copy_(before.lerp(torch.stack(parts).mean(dim=0), 1.0 - CLASS_MEAN_DECAY))
        if self.teacher is None or step == self._averaged:
            return
        self._averaged = step  # a step of several batches calls this for each of them
        decay = min(self.config.teacher_decay, (step + 1) / (step + 11))
        learner = nn.Sequential(self.backbone, self.classifier).state_dict()
        averages = {name: tensor for name, tensor in self.teacher.state_dict().items() if tensor.is_floating_point()}
        torch._foreach_lerp_(list(averages.values()), [learner[name] for name in averages], 1.0 - decay)

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) projector outputs, whose neighbours SuNCEt trains; without it, backbone features."""
        return self._projected(self.backbone(images))

    def classify(self, images: Tensor) -> Tensor | None:
        """(B, num_classes) logits."""
        return self.classifier(self.backbone(images))

    def embed_and_classify(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both from one pass of the backbone."""
        features = self.backbone(images)
        return self._projected(features), self.classifier(features)

    def _projected(self, features: Tensor) -> Tensor:
        return features if self.projector is None else self.projector(features)
