"""The interface between a method and everything else.

A method gets a batch and the training progress and returns a loss. Anything it changes besides its weights, it changes
in named hooks. It never sees the trainer, the optimizer, a logger or a rank, so it can be run, tested and exported
on its own.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tapetum.data.batch import Batch
from tapetum.ops.collectives import world_size


@dataclass(frozen=True)
class Progress:
    """How far training has come. Everything else about time is derived from these three numbers."""

    step: int
    """Optimiser steps finished before this one."""
    steps_per_epoch: int
    total_steps: int

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def is_epoch_start(self) -> bool:
        return self.step % self.steps_per_epoch == 0

    def ramp(self, first: int, share: float) -> float:
        """Rise linearly from 0 at step `first` to 1 within this share of training; with a share of 0, it is 1."""
        ramp_steps = share * self.total_steps
        return min(1.0, (self.step - first) / ramp_steps) if ramp_steps else 1.0


@dataclass
class StepOutput:
    """What a method's forward returns."""

    loss: Tensor
    """0-d; the optimiser step follows its gradient."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """0-d detached tensors, still on the device; the trainer adds the prefix `train/`."""
    carry: Any = None
    """Anything that `after_step` needs, e.g. embeddings for a queue."""


EmbedAll = Callable[[Callable[[Tensor], Tensor]], tuple[Tensor, Tensor]]
"""`embed_all(then)` embeds the evaluation views of the pool in batches; each process embeds its own share. It returns
the indices of the pool's images, (P,) int64 ascending, and `then(embeddings)`, (P_own, ...), of every world_size-th
image, starting at this process's rank. Images held out of everything are not in the pool."""


@contextmanager
def modes_kept(method: nn.Module) -> Iterator[None]:
    """Puts every module of a method back into training or evaluation mode, as it was."""
    modes = [(module, module.training) for module in method.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def check_above_zero(config: object, *fields: str) -> None:
    """Raises ValueError where one of a config's fields is not above 0."""
    for name in fields:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}: use a number above 0, for example 0.1.")


def check_not_negative(config: object, *fields: str) -> None:
    """Raises ValueError where one of a config's fields is below 0."""
    for name in fields:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name} is {getattr(config, name)}: use 0 or more.")


def check_start_and_ramp(config: object, start: str, ramp: str) -> None:
    """Raises ValueError where a field is no share of training: `start` in [0, 1), `ramp` in [0, 1]."""
    if not 0 <= getattr(config, ramp) <= 1:
        raise ValueError(f"{ramp} is {getattr(config, ramp)}: use a share of training from 0 to 1.")
    if not 0 <= getattr(config, start) < 1:
        raise ValueError(f"{start} is {getattr(config, start)}: use a share of training from 0 to below 1.")


def check_label_smoothing(smoothing: float) -> None:
    """Raises ValueError where the share of a label that is spread over all classes is not in [0, 1)."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"label_smoothing is {smoothing}: use a number from 0 to below 1.")


def check_support_rows(num_supports: int, *heads: nn.Module | None) -> None:
    """Raises ValueError where a head in training would normalise a single labelled image, which torch refuses."""
    layers = (layer for head in heads if head is not None for layer in head.modules())
    if num_supports * world_size() < 2 and any(isinstance(layer, _BatchNorm) and layer.training for layer in layers):
        raise ValueError("support.batch_size is 1, but BatchNorm compares labelled images: set it to 2 or more.")


class Method(nn.Module):
    """Base class of every method: one file per paper; `forward` computes the loss of the paper.

    A subclass names its config dataclass in `Config` and is built as
    `Method(config, backbone, num_classes=..., num_images=...)`.
    """

    Config: ClassVar[type]
    """Frozen keyword-only dataclass with a `kind: Literal[...]` field; a recipe's `method:` section."""
    uses_views: ClassVar[bool] = True
    """Whether a batch carries views of unlabelled images."""
    num_large_views: ClassVar[int | None] = None
    """How many large views of each image `forward` needs; None: any number."""
    needs_small_views: ClassVar[bool] = False
    """Whether `forward` needs small views, too."""
    uses_support: ClassVar[bool] = False
    """Whether a batch carries labelled support images."""
    predicts_by: Literal["soft_neighbours", "classifier"] = "soft_neighbours"
    """What predicts an image's class: its soft nearest neighbours among the labelled images, or `classify`."""
    starts_anew: ClassVar[tuple[str, ...]] = ()
    """Parts that are never taken from the weights that training starts from (a recipe's `init`)."""
    support_chunk: int | None = None
    """How many support images of this process pass through the backbone at once: a method that uses supports gives it
    to `tapetum.nn.recompute`. None: all. It belongs to the device, not to the paper, so it is no field of `Config`:
    whoever builds a run sets it from the recipe's `support.chunk`."""

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the loss of one step."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) representation of normalised images (B, C, H, W), used for evaluation and prediction."""
        raise NotImplementedError

    def classify(self, images: Tensor) -> Tensor | None:
        """(B, num_classes) logits of the method's own classifier; None if it trains none."""
        return None

    def embed_and_classify(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `embed` and `classify` return; override it where one pass of the backbone is enough for both."""
        return self.embed(images), self.classify(images)

    def in_domain(self, nearest: Tensor) -> Tensor | None:
        """(N,) how much images resemble labelled ones, 0 to 1, given the cosine (N,) of each with its nearest labelled
        image; None if the method does not estimate this."""
        return None

    def cluster(self, images: Tensor) -> Tensor | None:
        """(B, K) logits of the first set of prototypes; None if the method has no prototypes."""
        return None

    def first_with_views(self, total_steps: int) -> int:
        """The first step whose batch carries views of unlabelled images; they are not even drawn for those before."""
        return 0

    def starts_from_weights(self) -> None:
        """Called once the weights that a recipe starts from (`init`) have been loaded (copies of parts)."""

    def before_epoch(self, progress: Progress, embed_all: EmbedAll) -> None:
        """Called before the first step of each epoch (k-means, assignments)."""

    def after_backward(self, progress: Progress) -> None:
        """Called between backward and the optimiser step (freezing parameters)."""

    def after_step(self, output: StepOutput, batch: Batch) -> None:
        """Called after the optimiser step (queues, memory, prototype norms), for each batch, without its images."""

    def local_state(self) -> dict[str, Tensor]:
        """State that differs between ranks. Never registered as buffers, which DDP overwrites with those of rank 0."""
        return {}

    def load_local_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `local_state` returned."""
