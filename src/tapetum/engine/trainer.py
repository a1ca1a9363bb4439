"""The training loop: start reading at `Trainer.fit`."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from torch.optim import Optimizer

from tapetum.data.batch import Batch
from tapetum.engine.callbacks import Callback, Row
from tapetum.engine.checkpoint import CHECKPOINTS
from tapetum.engine.loggers import METRICS, CSVLogger
from tapetum.engine.metrics import Metrics, NonFiniteError, PendingRows, first_not_finite, step_metrics
from tapetum.engine.resumption import Resumption
from tapetum.engine.runtime import Runtime
from tapetum.engine.sharding import weights_of
from tapetum.engine.state import Fingerprint, TrainState
from tapetum.engine.trainer_config import TrainerConfig
from tapetum.methods.base import EmbedAll, Method, Progress, StepOutput, modes_kept
from tapetum.ops.randomness import torch_seed
from tapetum.system.interruption import Interrupted, StopRequest
from tapetum.system.notices import notify

__all__ = ["Trainer", "TrainerConfig"]

MAX_ROLLBACKS = 3
"""Number of steps that `on_nan: rollback` skips before it gives up."""


class Trainer:
    """Trains a method and resumes exactly: checkpoints hold what steps change, all else derives from the step number.

    Args:
        method: on any device; moved and compiled in place by `runtime.setup`.
        optimizer: over the method's parameters.
        schedule: writes the learning rate and weight decay of a given step into the optimizer.
        batches: `batches(start, stop)` yields the batches of steps start..stop-1, `accumulate` per step.
        steps_per_epoch: `before_epoch` is called once per this many steps.
        total_steps: length in steps, resolved from `config` (see `engine.budget`).
        config: intervals and what to do about NaN.
        runtime: already launched.
        folder: the run folder, whose latest checkpoint is resumed from; None keeps nothing on disk.
        callbacks: observers, called on rank 0; metrics.csv needs none.
        seed: seeds dropout and other randomness inside the method.
        fingerprint: from `engine.state.fingerprint`; a checkpoint with a different one is refused.
        evaluate: called on every rank; returns results by name, which get the prefix `eval/` unless they name a split.
        embed_all: passed to `before_epoch`.
        inexact: resume even if the fingerprint differs.
        part_of: the folder to name in `tapetum resume`, if it is not `folder`.
        notify: called with messages for the user.

    Example:
        tests/engine/toy.py trains a whole method in a few lines.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        schedule: Callable[[int], object],
        batches: Callable[[int, int], Iterator[Batch]],
        *,
        steps_per_epoch: int,
        total_steps: int,
        config: TrainerConfig,
        runtime: Runtime,
        folder: Path | None = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        fingerprint: Fingerprint | None = None,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        embed_all: EmbedAll | None = None,
        inexact: bool = False,
        part_of: Path | None = None,
        notify: Callable[[str], None] = notify,
    ) -> None:
        self.method, self.optimizer, self.schedule, self.batches = method, optimizer, schedule, batches
        self.steps_per_epoch, self.total_steps, self.config = steps_per_epoch, total_steps, config
        self.runtime, self.folder, self.seed, self.evaluate = runtime, folder, seed, evaluate
        self.part_of = part_of or folder
        self.embed_all = embed_all or _no_embed_all
        self.notify = notify
        files = [CSVLogger(folder / METRICS)] if folder is not None else []
        self.callbacks: list[Callback] = [*files, *callbacks] if runtime.rank == 0 else []
        self.state = TrainState()
        self._pending = PendingRows()
        checkpoints = folder / CHECKPOINTS if folder is not None else None
        self._module, self._stepper = runtime.setup(method, optimizer)
        self._weights = weights_of(method)
        lengths = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch, "accumulate": config.accumulate}
        self._resumption = Resumption(
            *(method, optimizer, runtime, checkpoints),
            fingerprint={**(fingerprint or {}), "seed": seed, **lengths},
            keep_every=config.keep_every,
            inexact=inexact,
            notify=self.notify,
        )

    def fit(self) -> TrainState:
        """Train to the end, starting from the latest checkpoint if there is one.

        Returns:
            The state after the last step; its metrics are the last row of metrics.csv.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP arrived; the step was finished and saved.
            NonFiniteError: loss or gradient is not finite and may not be skipped.
            ValueError: the checkpoint was made under conditions that would give different bits.
        """
        if self.config.accumulate > 1:
            self.notify(
                f"accumulate: a step averages the gradients of {self.config.accumulate} independent batches. Batch"
                " statistics and losses that compare images see one batch at a time: this is not one larger batch."
            )
        self.method.train()
        self._weights.scatter()
        self._load()
        if self.total_steps == 0:
            self._save()
        try:
            with StopRequest(self.notify) as self._stop:
                while self.state.step < self.total_steps:
                    try:
                        self._run()
                    except NonFiniteError as error:
                        self._roll_back(error)
        finally:
            for callback in self.callbacks:
                callback.on_end(self._logged.step)
        self._weights.gather()  # for all that may follow
        return self.state

    def _run(self) -> None:
        batches = self.batches(self.state.step, self.total_steps)
        try:
            while self.state.step < self.total_steps:
                self._train_step(batches)
                self._after_step()
        finally:
            getattr(batches, "close", lambda: None)()

    def _train_step(self, batches: Iterator[Batch]) -> None:
        step = self.state.step
        progress = Progress(step, self.steps_per_epoch, self.total_steps)
        if progress.is_epoch_start:
            self.runtime.seed(torch_seed(self.seed, "before_epoch", step, self.runtime.rank))
            with self._weights.whole(), modes_kept(self.method):
                self.method.before_epoch(progress, self.embed_all)
        self.schedule(step)
        metrics: Metrics = {}
        if step in self.state.skipped_steps:
            for _ in range(self.config.accumulate):
                _next(batches, step)
        else:
            metrics, num_images = self._update(progress, batches)
            self.state.images_seen += num_images * self.runtime.world_size
        self.state.step += 1
        group = self.optimizer.param_groups[0]
        row = {"step": step + 1, "epoch": progress.epoch, "images_seen": self.state.images_seen}
        rates = {"lr": float(group["lr"]), "weight_decay": float(group.get("weight_decay", 0.0))}
        self._pending.add({**row, **rates, "train_seconds": self._seconds()}, metrics)

    def _update(self, progress: Progress, batches: Iterator[Batch]) -> tuple[Metrics, int]:
        """Forward, backward and one optimiser step; returns metrics, and how many images this rank used."""
        self.optimizer.zero_grad(set_to_none=True)
        done: list[tuple[StepOutput, Batch]] = []  # without images, so that memory holds those of one batch
        num_batches = self.config.accumulate
        for part in range(num_batches):
            batch = self.runtime.place(_next(batches, progress.step))
            key = (self.seed, "forward", progress.step, self.runtime.rank)
            self.runtime.seed(torch_seed(*key, part) if part else torch_seed(*key))
            with self.runtime.without_reduction(self._module, enabled=part < num_batches - 1):
                with self.runtime.autocast():
                    output = self._module(batch, progress)
                self.runtime.backward(output.loss / num_batches)
            done.append((output, replace(batch, views=None, support=None)))
            del batch
        self.method.after_backward(progress)
        gradient_norm = self._weights.gradient_norm(self.optimizer)
        self._stepper.step()
        for output, batch in done:
            self.method.after_step(output, batch)
        return step_metrics([output for output, _ in done], gradient_norm), sum(batch.num_images for _, batch in done)

    def _after_step(self) -> None:
        """Do what is due, in this order: read the metrics, evaluate, log, save."""
        config, step = self.config, self.state.step
        is_last = step == self.total_steps
        evaluates = self.evaluate is not None and (is_last or _is_due(step, config.evaluate_every))
        saves = is_last or _is_due(step, config.checkpoint_every)
        reads = evaluates or saves or _is_due(step, config.log_every)
        stops = self._is_asked_to_stop(reads)
        if not (reads or stops):
            return
        rows = self._read_rows()
        if evaluates:
            try:
                rows[-1] |= self._evaluate()
            except Exception:
                # Training may have taken hours since the last checkpoint. With several processes, the others may be
                # waiting in the evaluation, and saving together would never end.
                if saves and self.runtime.world_size == 1:
                    self._log(rows)
                    self._save()
                raise
        self._log(rows)
        if saves or stops:
            self._save()
        if is_last:  # no later step would notice a request that came while this one was evaluated
            stops = self._is_asked_to_stop(reads)
        if stops:
            raise Interrupted(step, self._how_to_go_on(), is_agreed=True)

    def _is_asked_to_stop(self, reads: bool) -> bool:
        if self.runtime.world_size == 1:
            return self._stop.received
        # The signal reaches ranks during different steps, so they agree at a point where all of them wait anyway.
        return reads and self.runtime.any(self._stop.received)

    def _how_to_go_on(self) -> str:
        step = self.state.step
        message = f"Saved step {step}. Continue with: tapetum resume {self.part_of}"
        if self.folder is None:
            message = f"Stopped at step {step}. Nothing was saved, as there is no run folder."
        self.notify(message)
        return message

    def _read_rows(self) -> list[dict[str, int | float]]:
        rows = self._pending.take()
        seconds = max(self._seconds() - self._logged.train_seconds, 1e-9)
        for row in rows:
            row["images_per_second"] = (self.state.images_seen - self._logged.images_seen) / seconds
        bad = first_not_finite(rows)
        if bad is not None:
            if self.config.on_nan == "stop":
                self._log(rows[: bad + 1])
            raise NonFiniteError(int(rows[bad]["step"]) - 1, self._resumption.last_good())
        return rows

    def _evaluate(self) -> dict[str, float]:
        assert self.evaluate is not None
        with self._weights.whole(), modes_kept(self.method):
            results = {n if "/" in n else f"eval/{n}": float(value) for n, value in self.evaluate().items()}
        for callback in self.callbacks:
            callback.on_evaluate(self.state.step, results)
        return results

    def _log(self, rows: Sequence[Row]) -> None:
        self.state.train_seconds = self._seconds()
        self._logged = replace(self.state, step=int(rows[-1]["step"]))
        for callback in self.callbacks:
            callback.on_steps(rows)

    def _save(self) -> None:
        for callback in self.callbacks:
            callback.on_checkpoint(self.state.step)
        self._resumption.save(self.state)

    def _load(self) -> None:
        loaded = self._resumption.load()
        if loaded is not None:
            self.state = loaded
        elif self.config.on_nan == "rollback":
            self._resumption.remember_start(self.state)
        self._began = time.perf_counter() - self.state.train_seconds
        self._tell_start()

    def _roll_back(self, error: NonFiniteError) -> None:
        skipped = sorted({*self.state.skipped_steps, error.step})
        if self.config.on_nan == "stop" or len(skipped) > MAX_ROLLBACKS:
            raise error
        # The clock is not turned back: the lost time was spent all the same.
        self.state = replace(self._resumption.go_back(), skipped_steps=skipped, train_seconds=self._seconds())
        self._pending.drop()
        self._tell_start()
        self.notify(f"Step {error.step} is not finite: back to step {self.state.step}; the bad update is skipped.")

    def _tell_start(self) -> None:
        self._logged = replace(self.state)
        for callback in self.callbacks:
            callback.on_start(self.state.step, self.total_steps)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def _next(batches: Iterator[Batch], step: int) -> Batch:
    batch = next(batches, None)
    assert batch is not None, f"no more batches at step {step}"
    return batch


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _no_embed_all(then: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    raise NotImplementedError("This method embeds all images each epoch: give the Trainer embed_all.")
