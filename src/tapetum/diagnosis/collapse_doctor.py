"""The collapse doctor: watches a training, and reads the metrics of an earlier one."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tapetum.diagnosis.history import Finding, History, Setting
from tapetum.diagnosis.rules import diagnose
from tapetum.engine.callbacks import Callback, Row
from tapetum.engine.loggers import read_rows
from tapetum.system.notices import notify


def read_history(path: Path) -> History:
    """The rows of a metrics.csv; empty if there is no such file."""
    history = History()
    _, rows = read_rows(path)
    history.add([{name: float(value) for name, value in row.items() if value} for row in rows])
    return history


def advice(finding: Finding) -> str:
    """A finding and its changes as text."""
    changes = "".join(f"\n  {number}. {change}" for number, change in enumerate(finding.changes, 1))
    return f"{finding.what} Since step {finding.since}. What helps, in this order:{changes}"


class CollapseDoctor(Callback):
    """Reports each problem once: what it is, since when, and what helps.

    Args:
        setting: of the run.
        metrics: the run's metrics.csv, for the steps before a resumption; None if there is none.
        notify: called with the text of each finding.
    """

    def __init__(self, setting: Setting, metrics: Path | None, notify: Callable[[str], None] = notify) -> None:
        self.setting, self.metrics, self.notify = setting, metrics, notify
        self._told: set[str] = set()
        self._next_look = 0

    def on_start(self, step: int, total_steps: int) -> None:
        self._history = read_history(self.metrics) if step and self.metrics is not None else History()
        self._next_look = 0

    def on_steps(self, rows: Sequence[Row]) -> None:
        self._history.add(rows)
        if self._history.last_step >= self._next_look:
            self._look()
            # Often enough to notice within one patience, rarely enough to cost nothing.
            self._next_look = self._history.last_step + self.setting.patience // 2

    def on_end(self, step: int) -> None:
        self._look()

    def _look(self) -> None:
        for finding in diagnose(self._history, self.setting):
            if finding.rule not in self._told:
                self._told.add(finding.rule)
                self.notify(advice(finding))
