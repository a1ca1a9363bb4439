"""How long to train and what happens when: the `trainer:` section of a recipe."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long to train, and what happens at which intervals. Give exactly one of epochs, steps and minutes."""

    epochs: float | None = None
    """Length in passes over the images."""
    steps: int | None = None
    """Length in optimiser steps; 0 trains nothing and saves the weights as they are."""
    minutes: float | None = None
    """Length of the whole command in minutes of wall time, until the summary is written; converted to steps once, by
    measuring, before step 0. The short runs of `data.folds` are included."""
    log_every: int = 10
    """Steps between readings of the metrics; each makes the host wait for the device. Every step still gets a row."""
    evaluate_every: int | None = None
    """Steps between evaluations; null evaluates only at the end."""
    evaluations: int | None = None
    """Total number of evaluations, evenly spread, for a run whose number of steps is not known yet. Sets
    `evaluate_every`, if that is null, once the number of steps is known."""
    checkpoint_every: int | None = 500
    """Steps between checkpoints; null writes only the final one. The last two are kept."""
    keep_every: int | None = None
    """Keep every checkpoint whose step is a multiple of this; null keeps only the last two."""
    keep_best: bool = False
    """Evaluate and use the kept checkpoint with the highest held-out accuracy instead of the last one; of equal ones,
    the latest. Needs 100 held-out labels, and the same `evaluate_every`, `checkpoint_every` and `keep_every`."""
    accumulate: int = 1
    """Independent batches whose gradients are averaged for one step; not the same as one larger batch."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """When loss or gradient is not finite: stop, or go back to the last checkpoint and skip that step's update."""
    tensorboard: bool = False
    """Also log for TensorBoard, into the run folder's tensorboard/; requires the extra `tensorboard`."""

    def __post_init__(self) -> None:
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            have = " and ".join(given) or "none of them"
            raise ValueError(f"trainer has {have}: give exactly one of epochs, steps and minutes.")
        length = getattr(self, given[0])
        if length < 0 or (length == 0 and given[0] != "steps"):
            raise ValueError(f"trainer.{given[0]} is {length}: use more than 0.")
        for name in ("log_every", "evaluate_every", "evaluations", "checkpoint_every", "keep_every", "accumulate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"trainer.{name} is {value}: use 1 or more.")
        periods = {name: getattr(self, name) for name in ("evaluate_every", "checkpoint_every", "keep_every")}
        if self.keep_best and (None in periods.values() or len(set(periods.values())) > 1):
            found = ", ".join(f"{name} {value}" for name, value in periods.items())
            raise ValueError(
                f"trainer.keep_best needs every checkpoint evaluated and kept, but the trainer has {found}: "
                "set the three to the same number."
            )
