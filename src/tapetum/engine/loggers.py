"""Loggers that store the rows of a training: metrics.csv always, TensorBoard if it is installed."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from tapetum.engine.callbacks import TIME_COLUMNS, Callback, Row
from tapetum.system.files import RESUME, whole_file, writing
from tapetum.system.notices import notify

METRICS = "metrics.csv"
"""Name of the file in a run folder."""


class CSVLogger(Callback):
    """Writes metrics.csv: one row per step, with empty evaluation columns if it was not evaluated, time columns last.

    When training resumes after step N, rows beyond N (lost work) are cut, so a resumed run ends with the same file as
    an uninterrupted one, except for the time columns. When a column first appears later (an evaluation), the file is
    rewritten with a new header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []
        self._file: TextIO | None = None
        self._is_told = False

    def on_start(self, step: int, total_steps: int) -> None:
        self._close()
        self._is_told = False
        self._columns, rows = read_rows(self.path) if step else ([], [])
        kept = [row for row in rows if int(row["step"]) <= step]
        self._tell_lacking(kept, step)
        self._rewrite(kept)

    def on_steps(self, rows: Sequence[Row]) -> None:
        new = [name for row in rows for name in row if name not in TIME_COLUMNS]
        columns = list(dict.fromkeys([*self._columns, *new]))
        if columns != self._columns:
            self._close()
            _, written = read_rows(self.path)
            self._tell_lacking(written, int(rows[0]["step"]) - 1)
            self._columns = columns
            self._rewrite(written)
        assert self._file is not None, "on_start comes before on_steps"
        with writing(self.path, RESUME):
            self._writer(self._file).writerows({name: _text(value) for name, value in row.items()} for row in rows)
            self._file.flush()

    def on_checkpoint(self, step: int) -> None:
        if self._file is not None:
            with writing(self.path, RESUME):
                os.fsync(self._file.fileno())

    def on_end(self, step: int) -> None:
        self._close()
        self._tell_lacking(read_rows(self.path)[1], step)  # something else may have cut it meanwhile

    def _tell_lacking(self, rows: Sequence[Mapping[str, str]], step: int) -> None:
        if not self._is_told and [int(row["step"]) for row in rows] != list(range(1, step + 1)):
            self._is_told = True
            notify(f"{self.path} lacks rows of the {step} steps finished so far; new rows follow those that it has.")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with writing(self.path, RESUME):  # retries what did not fit on a full disk
                file.close()

    def _writer(self, file: TextIO) -> csv.DictWriter[str]:
        return csv.DictWriter(file, [*self._columns, *TIME_COLUMNS], restval="", lineterminator="\n")

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        with whole_file(self.path, RESUME) as partial, partial.open("w", newline="") as file:
            if self._columns:
                writer = self._writer(file)
                writer.writeheader()
                writer.writerows(rows)
        with writing(self.path, RESUME):
            self._file = self.path.open("a", newline="")


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read metrics.csv: its columns except the time columns, and its rows except one that a kill cut short."""
    if not path.is_file():
        return [], []
    lines = path.read_text().splitlines(keepends=True)
    header, *rows = csv.reader(line for line in lines if line.endswith("\n")) if lines else [[]]
    whole = [dict(zip(header, row)) for row in rows if len(row) == len(header)]
    return [name for name in header if name not in TIME_COLUMNS], whole


def _text(value: int | float) -> str:
    # Nine digits identify every float32 exactly.
    return str(value) if isinstance(value, int) else f"{value:.9g}"


class TensorBoardLogger(Callback):
    """Writes scalars for TensorBoard: every evaluated row, and the last row of each logging interval."""

    def __init__(self, folder: Path, writer: Callable[..., Any]) -> None:
        self.folder = folder
        self._make_writer = writer
        self._writer: Any = None

    def on_start(self, step: int, total_steps: int) -> None:
        self.on_end(step)
        # TensorBoard hides events of an earlier, killed process from purge_step on.
        self._writer = self._make_writer(str(self.folder), purge_step=step + 1)

    def on_steps(self, rows: Sequence[Row]) -> None:
        for row in rows:
            is_evaluated = any(name.startswith("eval/") for name in row)
            if row is rows[-1] or is_evaluated:
                for name, value in row.items():
                    if name != "step":
                        self._writer.add_scalar(name, value, row["step"])

    def on_checkpoint(self, step: int) -> None:
        self._writer.flush()

    def on_end(self, step: int) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def tensorboard_logger(folder: Path, notify: Callable[[str], None] = notify) -> TensorBoardLogger | None:
    """Return a logger into `folder`; if TensorBoard is not installed, give a notice and return None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        notify("TensorBoard is not installed, so no tensorboard/ is written; pip install 'tapetum[tensorboard]'.")
        return None
    return TensorBoardLogger(folder, SummaryWriter)


def read_curves(path: Path) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Return (steps, finite values) of each non-empty metrics.csv column, ignoring a line still being written."""
    _, rows = read_rows(path)
    curves = {}
    for name in rows[0] if rows else ():
        pairs = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
        steps, values = np.array([p[0] for p in pairs], dtype=np.int64), np.array([p[1] for p in pairs])
        finite = np.isfinite(values)
        if finite.any():
            curves[name] = (steps[finite], values[finite])
    return curves
