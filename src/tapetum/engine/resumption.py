"""Taking up a training where its last checkpoint left it, on one rank of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from torch.optim import Optimizer

from tapetum.engine.checkpoint import (
    Checkpoint,
    capture,
    checkpoint_path,
    latest_checkpoint,
    list_checkpoints,
    prune,
    restore,
    write_checkpoint,
)
from tapetum.engine.runtime import Runtime
from tapetum.engine.state import Fingerprint, TrainState, check_fingerprint, restore_threads
from tapetum.methods.base import Method


class Resumption:
    """Saves a method, its optimizer and the trainer's state, and brings them back.

    Args:
        folder: of the checkpoints; None saves nothing.
        keep_every: as in `TrainerConfig`.
        inexact: take up a checkpoint although its fingerprint differs.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        runtime: Runtime,
        folder: Path | None,
        *,
        fingerprint: Fingerprint,
        keep_every: int | None,
        inexact: bool,
        notify: Callable[[str], None],
    ) -> None:
        self._method, self._optimizer, self._runtime, self._folder = method, optimizer, runtime, folder
        self._fingerprint, self._keep_every, self._inexact, self._notify = fingerprint, keep_every, inexact, notify
        self._start: Checkpoint | None = None

    def save(self, state: TrainState) -> None:
        """Write the checkpoint of a step and delete those no longer kept. Every rank calls it."""
        if self._folder is None:
            return
        local = self._runtime.gather(self._method.local_state())
        if self._runtime.rank == 0:
            write_checkpoint(checkpoint_path(self._folder, state.step), self._capture(state, local))
            prune(self._folder, self._keep_every)
        self._runtime.barrier()

    def remember_start(self, state: TrainState) -> None:
        """Keep the present state in memory, for a rollback before the first checkpoint."""
        # Every rank keeps its own, as the only one.
        self._start = self._capture(state, [self._method.local_state()])

    def load(self) -> TrainState | None:
        """Bring back the latest checkpoint and its thread count; None, and no change, where there is none.

        Raises:
            ValueError: it would not go on with the bits of an uninterrupted run, or does not fit the method.
        """
        checkpoint = self._latest()
        if checkpoint is None:
            return None
        saved = checkpoint.scalars["fingerprint"]
        if not self._inexact:
            self._fingerprint = restore_threads(saved, self._fingerprint)
        for difference in check_fingerprint(saved, self._fingerprint, inexact=self._inexact):
            self._notify(f"Resuming inexactly: {difference}.")
        restore(checkpoint, self._method, self._optimizer, self._runtime.rank)
        return TrainState.from_scalars(checkpoint.scalars)

    def go_back(self) -> TrainState:
        """Bring back the latest checkpoint, or the start where there is none."""
        checkpoint = self._latest()
        source = checkpoint or self._start
        assert source is not None, "remember_start comes before go_back"
        restore(source, self._method, self._optimizer, self._runtime.rank if checkpoint is not None else 0)
        return TrainState.from_scalars(source.scalars)

    def last_good(self) -> str:
        """Words for an error about which checkpoint there is."""
        paths = list_checkpoints(self._folder) if self._folder is not None else []
        return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint before it"

    def _latest(self) -> Checkpoint | None:
        return latest_checkpoint(self._folder, self._notify) if self._folder is not None else None

    def _capture(self, state: TrainState, local: Sequence[Mapping[str, Tensor]]) -> Checkpoint:
        scalars = {**asdict(state), "fingerprint": self._fingerprint}
        return capture(self._method, self._optimizer, local, scalars)
