"""SwAV: swapping assignments between views (Caron et al., NeurIPS 2020).

https://arxiv.org/abs/2006.09882

It uses no labels. Every image is seen in V views. A view's projection z (unit length) is compared with K learned
prototypes C (unit rows), and its scores give a *prediction* p and a *code* q:

    p = softmax(z . C^T / tau)            which prototype the view seems to belong to
    q = Sinkhorn(Z . C^T, epsilon)        the same, but balanced: over the batch, every prototype is used equally

and every view predicts the code of the *other* views, so the embedding learns to ignore how a view was cropped:

    loss = mean over assigning views a, other views v and images i of  H(q_ia, p_iv)          no gradient through q

If all images had the same embedding, every p would be the same and the codes uniform; balancing keeps that from being
an easy solution. Balancing a batch smaller than K means little, so a *queue* of projections from earlier batches may
take part in it; their own codes are discarded.

With several sets of prototypes, the loss is the mean over the sets.

Where this differs from the published code, on purpose:
- Sinkhorn works with logarithms, so it is finite for every epsilon;
- prototypes are scaled back to unit length after a step, not before the next one, so checkpoints hold unit rows;
- running BatchNorm statistics of the backbone come only from the large-view call, not from whichever size ran last;
- a queue that does not fit the batch is an error; the published code silently shortens it, even to nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.losses.paws import cross_entropy
from tapetum.losses.swav import swapped_prediction_loss, swav_codes
from tapetum.methods.base import Method, Progress, StepOutput, check_above_zero, check_not_negative
from tapetum.nn.heads import HeadConfig, build_heads, check_no_predictor, unit_length
from tapetum.nn.multi_crop import check_assigning_views, embed_views
from tapetum.nn.prototypes import Prototypes, check_counts
from tapetum.ops.collectives import world_size
from tapetum.ops.spread import spread


@dataclass(frozen=True, kw_only=True)
class SwAVConfig:
    """SwAV; defaults are the paper's for ImageNet with batches of 4,096."""

    kind: Literal["swav"] = "swav"
    """Selects this method."""
    num_prototypes: tuple[int, ...] = (3000,)
    """K; several numbers make several sets. About ten times the expected number of classes is a good start."""
    temperature: float = 0.1
    """tau of the predictions; 0.1 in the paper."""
    epsilon: float = 0.05
    """Smoothness of the codes: 0.05 in the paper; use 0.03 if the loss stays at ln K."""
    iterations: int = 3
    """Rounds of Sinkhorn-Knopp; 3 in the paper."""
    assigning_views: tuple[int, ...] = (0, 1)
    """The views whose codes are predicted, numbered from 0, large ones first; the two large ones in the paper."""
    hard_codes: bool = False
    """Whether codes are one-hot; the paper uses soft codes, and found that hard ones learn faster but end worse."""
    freeze_steps: int = 313
    """Number of steps, from the start, in which the prototypes keep their random initial values: about an epoch in the
    paper (313 with batches of 4,096, 5005 with 256)."""
    queue_length: int = 0
    """Number of projections of earlier images that take part in balancing, over all processes: a multiple of the
    batch size. 0: none. 3840 in the paper with batches of 256."""
    queue_start_epoch: int = 15
    """Epoch, counted from 0, in which the queue starts to fill; it is used once it is full. 15 in the paper, because
    features that still change fast do not belong in it."""
    head: HeadConfig = field(default_factory=lambda: HeadConfig(hidden=2048, output=128, layers=2))
    """Projector."""

    def __post_init__(self) -> None:
        check_counts(self.num_prototypes)
        check_above_zero(self, "temperature", "epsilon")
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}: use 1 or more.")
        check_not_negative(self, "freeze_steps", "queue_length", "queue_start_epoch")
        check_assigning_views(self.assigning_views)
        check_no_predictor(self.head, "SwAV")


class SwAV(Method):
    """Trains backbone, projector and prototypes so that all views of an image have the same code."""

    Config: ClassVar[type] = SwAVConfig

    def __init__(self, config: SwAVConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        num_features: Any = backbone.num_features
        self.projector, _ = build_heads(config.head, num_features)
        self.prototypes = Prototypes(self.projector.out_features, config.num_prototypes)
        self.queue: Tensor | None = None  # (A, images, D) of this process, newest first; grows until it is full

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the loss of one step."""
        assert batch.views is not None
        projections = unit_length(self.projector(embed_views(self.backbone, batch.views.groups)))
        return self.predict_swapped(projections.unflatten(0, (sum(batch.views.counts), -1)), progress)

    def predict_swapped(self, projections: Tensor, progress: Progress) -> StepOutput:
        """Compute the loss of projections (V, B, D); `carry` holds those that belong in the queue."""
        assigning = self.config.assigning_views  # one by one: a list as index makes a GPU's host wait
        self._check(*projections.shape[:2])
        newest = torch.stack([projections[view] for view in assigning]).detach()
        queue = self._full_queue(newest)  # (A, L, D)
        losses = []
        for scores, queue_scores in zip(self.prototypes(projections), self.prototypes(queue), strict=True):
            pairs = zip([scores[view] for view in assigning], queue_scores, strict=True)
            codes = torch.stack([self._codes(*pair) for pair in pairs])
            losses.append(swapped_prediction_loss(scores, codes, assigning, self.config.temperature))
        loss = torch.stack(losses).mean()
        fills_queue = self.config.queue_length and progress.epoch >= self.config.queue_start_epoch
        metrics = {"loss": loss.detach(), **code_metrics(codes), **spread(projections[0])}
        metrics["prototype_norm"] = self.prototypes.mean_norm()
        return StepOutput(loss, metrics, carry=newest if fills_queue else None)

    def _codes(self, scores: Tensor, queue_scores: Tensor) -> Tensor:
        config = self.config
        return swav_codes(scores, queue_scores, config.epsilon, config.iterations, config.hard_codes)

    def _full_queue(self, newest: Tensor) -> Tensor:
        """Return the queue (A, L, D) if it is full, otherwise an empty one."""
        is_full = self.queue is not None and self.queue.shape[1] == self.config.queue_length // world_size()
        return self.queue if self.queue is not None and is_full else newest[:, :0]

    def _check(self, num_views: int, num_images: int) -> None:
        check_assigning_views(self.config.assigning_views, num_views)
        if num_views < 2:
            raise ValueError("views.large.count is 1, but views predict each other's codes: set it to 2.")
        batch_size, length = num_images * world_size(), self.config.queue_length
        if length % batch_size:
            nearest = max(1, length // batch_size) * batch_size
            raise ValueError(f"queue_length is {length}: use a multiple of data.batch_size, for example {nearest}.")

    def after_backward(self, progress: Progress) -> None:
        """Drop the gradients of frozen prototypes, so that neither decay nor momentum moves them."""
        if progress.step < self.config.freeze_steps:
            self.prototypes.freeze()

    def after_step(self, output: StepOutput, batch: Batch) -> None:
        """Scale the prototypes to unit length, and add the newest projections to the queue."""
        self.prototypes.normalise()
        if output.carry is not None:
            queue = output.carry if self.queue is None else torch.cat([output.carry, self.queue], dim=1)
            self.queue = queue[:, : self.config.queue_length // world_size()]

    def local_state(self) -> dict[str, Tensor]:
        """The queue of this process's images."""
        return {} if self.queue is None else {"queue": self.queue}

    def load_local_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the queue."""
        self.queue = state.get("queue")

    def cluster(self, images: Tensor) -> Tensor:
        """(B, K) scores against the first set of prototypes, divided by tau."""
        projections = unit_length(self.projector(self.backbone(images)))
        return self.prototypes(projections)[0] / self.config.temperature

    def embed(self, images: Tensor) -> Tensor:
        """(B, F) backbone output, as in the published evaluations."""
        return self.backbone(images)


def code_metrics(codes: Tensor) -> dict[str, Tensor]:
    """Measure how certain codes (..., K) are, and how many prototypes they use.

    Returns:
        code_entropy: the mean entropy of a code, from 0 (one-hot) to ln K (uniform).
        used_prototypes: number of prototypes that are some code's largest entry, in this process's batch.
    """
    rows = codes.flatten(0, -2)
    used = rows.new_zeros(rows.shape[1]).scatter_(0, rows.argmax(dim=1), 1.0)
    return {"code_entropy": cross_entropy(rows, rows).mean(), "used_prototypes": used.sum()}
