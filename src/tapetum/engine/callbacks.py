"""Callbacks observe a training. They receive Python numbers, never the method, so removing one changes no weight."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Row = Mapping[str, int | float]
"""One step: "step" (finished steps, from 1), "epoch", "images_seen", "lr", "weight_decay", "train/...", "eval/..." if
it was evaluated, and the time columns. A skipped step has no "train/" entries."""
TIME_COLUMNS = ("train_seconds", "images_per_second")
"""Columns of a row that depend on the clock; all others are the same in a resumed run."""


class Callback:
    """Observes a training, on rank 0 only. Every method is optional."""

    def on_start(self, step: int, total_steps: int) -> None:
        """Training starts or continues after `step` steps. Called again after a rollback: forget all later rows."""

    def on_steps(self, rows: Sequence[Row]) -> None:
        """Receives the steps finished since the last call, in order; called once per `log_every`, not once per step."""

    def on_evaluate(self, step: int, results: Mapping[str, float]) -> None:
        """Receives the evaluation after `step` finished steps; that step's row, which comes next, repeats it."""

    def on_checkpoint(self, step: int) -> None:
        """A checkpoint is about to be written: write to disk now whatever must not lag behind it."""

    def on_end(self, step: int) -> None:
        """Training is over: finished, interrupted or failed; `step` is that of the last row."""


class _Console(Console):
    """The console of rich, but for ending the program when nobody reads what it prints."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class ProgressBar(Callback):
    """Shows loss, speed and time left: a bar on a terminal, elsewhere a line every `line_every_seconds`.

    What cannot be shown, because a terminal was closed, is left out: no training ends for that.

    Args:
        console: where to draw; stderr by default.
        line_every_seconds: seconds between lines if there is no terminal.
        clock: returns a time in seconds that never goes back.
        work: returns the work of so many steps, in any unit, where steps differ; each step is 1 by default.
    """

    def __init__(
        self,
        console: Console | None = None,
        line_every_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        work: Callable[[int], float] = float,
    ) -> None:
        self.console = console or _Console(stderr=True)
        self.line_every_seconds = line_every_seconds
        self._clock, self._work = clock, work
        self._bar: Progress | None = None
        self._total = 0
        self._last_line = -float("inf")

    def on_start(self, step: int, total_steps: int) -> None:
        self._total = total_steps
        if not self.console.is_terminal:
            return
        if self._bar is None:
            columns = (BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self.console, speed_estimate_period=300)
            self._bar.add_task("train", total=self._work(total_steps), text="")
            with suppress(OSError):
                self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=self._work(step), text=f"{step}/{total_steps}")

    def on_steps(self, rows: Sequence[Row]) -> None:
        row = rows[-1]
        text = _describe(row)
        if self._bar is not None:
            step = int(row["step"])
            self._bar.update(self._bar.task_ids[0], completed=self._work(step), text=f"{step}/{self._total} {text}")
            return
        now = self._clock()
        is_last = row["step"] >= self._total
        if is_last or now - self._last_line >= self.line_every_seconds:
            self._last_line = now
            left = "" if is_last else f"  {self._time_left(rows)}"
            self._print(f"step {row['step']}/{self._total}  {text}{left}")

    def on_evaluate(self, step: int, results: Mapping[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in results.items())
        self._print(f"step {step}  {values}")

    def on_end(self, step: int) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()
            self._bar = None

    def _print(self, line: str) -> None:
        with suppress(OSError):
            self.console.print(line, highlight=False, soft_wrap=True)

    def _time_left(self, rows: Sequence[Row]) -> str:
        if len(rows) < 2:
            return ""
        first, last = (int(row["step"]) for row in (rows[0], rows[-1]))
        pace = (rows[-1]["train_seconds"] - rows[0]["train_seconds"]) / (self._work(last) - self._work(first))
        minutes, rest = divmod(int(pace * (self._work(self._total) - self._work(last))), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} left"


def _describe(row: Row) -> str:
    loss = f"loss {row['train/loss']:.4g}" if "train/loss" in row else "skipped"
    return f"{loss}  {row['images_per_second']:.4g} images/s"
