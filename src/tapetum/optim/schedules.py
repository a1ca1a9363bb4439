"""Schedules: a value as a pure function of the step. Nothing is stored, so nothing can be resumed wrongly."""

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["cosine", "linear", "constant", "step"]


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A learning rate (or weight decay) over training: linear warm-up from `start` to `peak`, then on to `final`."""

    peak: float
    """Value at the end of the warm-up."""
    start: float = 0.0
    """Value at step 0, where the warm-up begins; unused without a warm-up."""
    final: float = 0.0
    """Value that the last step comes close to; the shapes constant and step do not use it."""
    warmup_epochs: float = 0.0
    """Length of the warm-up in epochs; may be a fraction."""
    warmup_limit: float | None = None
    """Largest share of the training that the warm-up may take, in (0, 1], if runs may be short; null: no limit."""
    hold: float = 0.0
    """Share of the training, from its start, in which the value stays at `peak` once the warm-up is over; the shapes
    cosine and linear begin after it."""
    shape: Shape = "cosine"
    """After the warm-up: half a cosine or a straight line down (or up) to `final`, constantly `peak`, or `peak` times
    `gamma` for each of the `milestones` passed."""
    milestones: tuple[float, ...] = ()
    """Epochs at which the value drops, for the shape step (12 and 16 of 20 in SwAV's fine-tuning)."""
    gamma: float = 0.1
    """Factor of each drop (0.2 in SwAV's fine-tuning)."""
    per_epoch: bool = False
    """Whether the value changes only between epochs, as in SwAV's linear evaluation; a warm-up is not affected."""
    warmup_reaches_peak: bool = False
    """True: the last warm-up step has the peak value, as in SwAV; false: the first step after it, as in PAWS."""

    def __post_init__(self) -> None:
        for name in ("peak", "start", "final", "warmup_epochs"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}: use a number of 0 or more.")
        if self.warmup_limit is not None and not 0 < self.warmup_limit <= 1:
            raise ValueError(f"warmup_limit is {self.warmup_limit}: use a share above 0 and up to 1, or null.")
        if not 0 <= self.hold < 1:
            raise ValueError(f"hold is {self.hold}: use a share of the training from 0 to below 1.")
        if self.shape not in ("cosine", "linear", "constant", "step"):
            raise ValueError(f"shape is {self.shape!r}: use 'cosine', 'linear', 'constant' or 'step'.")
        if (self.shape == "step") != bool(self.milestones):
            raise ValueError(f"milestones is {list(self.milestones)}: give epochs with the shape step, and only there.")
        if any(not 0 < epoch < math.inf for epoch in self.milestones):
            raise ValueError(f"milestones is {list(self.milestones)}: give epochs above 0.")
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma is {self.gamma}: use a number of 0 or more.")


def value(config: ScheduleConfig, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Compute the scheduled value of one optimizer step.

    Args:
        config: the schedule.
        step: number of steps finished before this one, from 0.
        steps_per_epoch: converts the warm-up's epochs into steps (rounded).
        total_steps: length of the training, in steps.

    Returns:
        The value; from `total_steps` on it stays at `final` (constant shape: at `peak`; step: as after the last drop).

    Raises:
        ValueError: step is negative, or steps_per_epoch or total_steps is not positive.

    Example:
        >>> paws_cifar10 = ScheduleConfig(start=0.8, peak=3.2, final=0.032, warmup_epochs=10)
        >>> [round(value(paws_cifar10, step, 195, 117000), 6) for step in (0, 975, 1950, 58500)]
        [0.8, 2.0, 3.2, 1.658167]
    """
    if step < 0 or steps_per_epoch < 1 or total_steps < 1:
        raise ValueError(
            f"step {step}, steps_per_epoch {steps_per_epoch}, total_steps {total_steps}: "
            "the first must be 0 or more, the others 1 or more."
        )
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if config.warmup_limit is not None:
        warmup_steps = min(warmup_steps, int(config.warmup_limit * total_steps))
    if step < warmup_steps:
        length = warmup_steps - 1 if config.warmup_reaches_peak else warmup_steps
        return config.start + (step / length if length else 1.0) * (config.peak - config.start)
    if config.per_epoch:
        step = max(warmup_steps, step // steps_per_epoch * steps_per_epoch)
    if config.shape in ("constant", "step"):
        return config.peak * config.gamma ** sum(step >= epoch * steps_per_epoch for epoch in config.milestones)
    held_steps = max(warmup_steps, int(config.hold * total_steps))
    progress = min(1.0, max(0, step - held_steps) / max(1, total_steps - held_steps))
    share = 0.5 * (1.0 + math.cos(math.pi * progress)) if config.shape == "cosine" else 1.0 - progress
    return config.final + (config.peak - config.final) * share
