"""Resumes a training from its last checkpoint, on each rank."""

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
from tapetum.engine.sharded_checkpoint import part_name, write_parts
from tapetum.engine.sharding import weights_of
from tapetum.engine.state import Fingerprint, TrainState, check_fingerprint, restore_threads
from tapetum.methods.base import Method

_KIND = "optimizer.kind"
"""Name in the fingerprint of a recipe's run."""


class Resumption:
    """Saves and restores a method, its optimizer and the trainer's state.

    Args:
        folder: where the checkpoints are; None saves nothing.
        keep_every: as in `TrainerConfig`.
        inexact: resume from a checkpoint even if its fingerprint differs.
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
        self._weights = weights_of(method)
        self._fingerprint, self._keep_every, self._inexact, self._notify = fingerprint, keep_every, inexact, notify
        self._start: Checkpoint | None = None
        self._damaged: set[Path] = set()

    def save(self, state: TrainState) -> None:
        """Write a checkpoint of this state and delete those no longer kept. Every rank must call it."""
        if self._folder is None:
            return
        path = checkpoint_path(self._folder, state.step)
        if self._weights.is_sharded:
            self._save_parts(path, state)
        else:
            local = self._runtime.gather(self._method.local_state())
            if self._runtime.rank == 0:
                write_checkpoint(path, self._capture(state, local))
        if self._runtime.rank == 0:
            self._damaged.discard(path)
            prune(self._folder, self._keep_every, self._damaged)
        self._runtime.barrier()

    def _save_parts(self, path: Path, state: TrainState) -> None:
        rank, world_size = self._runtime.rank, self._runtime.world_size
        local: list[Mapping[str, Tensor]] = [{}] * rank
        part = self._weights.rows_of(self._capture(state, [*local, self._method.local_state()]))

        def write(folder: Path) -> None:
            write_checkpoint(folder / part_name(rank, world_size), part)

        write_parts(path, rank, write, self._runtime.barrier)

    def remember_start(self, state: TrainState) -> None:
        """Keep the current state in memory, for a rollback before the first checkpoint."""
        # Every rank keeps its own state, as if it were the only rank.
        self._start = self._capture(state, [self._method.local_state()])

    def load(self) -> TrainState | None:
        """Restore the latest checkpoint and its thread count; if there is none, change nothing and return None.

        Raises:
            ValueError: it does not fit the method, or would not continue with the bits of an uninterrupted run.
        """
        checkpoint = self._latest()
        if checkpoint is None:
            return None
        saved = checkpoint.scalars["fingerprint"]
        if not self._inexact:
            self._fingerprint = restore_threads(saved, self._fingerprint)
        for difference in check_fingerprint(saved, self._fingerprint, inexact=self._inexact):
            self._notify(f"Resuming inexactly: {difference}.")
        self._restore(checkpoint, self._runtime.rank)
        if self._folder is not None and self._runtime.rank == 0:  # what a kill in the last save has left
            prune(self._folder, self._keep_every, self._damaged)
        return TrainState.from_scalars(checkpoint.scalars)

    def go_back(self) -> TrainState:
        """Restore the latest checkpoint, or the remembered start if there is none."""
        checkpoint = self._latest()
        source = checkpoint or self._start
        assert source is not None, "remember_start comes before go_back"
        self._restore(source, self._runtime.rank if checkpoint is not None else 0)
        return TrainState.from_scalars(source.scalars)

    def last_good(self) -> str:
        """Describe the last checkpoint in a phrase for an error message."""
        paths = list_checkpoints(self._folder) if self._folder is not None else []
        return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint before it"

    def _restore(self, checkpoint: Checkpoint, rank: int) -> None:
        kind = self._fingerprint.get(_KIND)
        saved = checkpoint.scalars["fingerprint"].get(_KIND, kind)  # older checkpoints do not tell it
        if saved != kind:  # it would look for its own state and not find it, or take another's for it
            self._notify(f"The state of the optimizer starts anew, as the checkpoint has that of {saved}.")
            checkpoint = checkpoint.without_optimizer()
        restore(checkpoint, self._weights.stored, self._optimizer, rank)

    def _latest(self) -> Checkpoint | None:
        if self._folder is None:
            return None
        found = latest_checkpoint(self._folder, self._notify, self._damaged)
        return None if found is None else self._weights.own_part(found)

    def _capture(self, state: TrainState, local: Sequence[Mapping[str, Tensor]]) -> Checkpoint:
        scalars = {**asdict(state), "fingerprint": self._fingerprint}
        return capture(self._weights.stored, self._optimizer, local, scalars)
