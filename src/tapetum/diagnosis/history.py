"""The input of the collapse doctor's rules, a training's metrics and settings, and their output, findings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
POINTS = 128
"""However long a training is, it is kept as at most twice this many points: means over equally many steps."""
_NEIGHBOURS = 5  # points in the median that smooths the middle one


class History:
    """The metrics of a training so far, condensed so that rules can read them often.

    Example:
        >>> history = History()
        >>> history.add([{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 4.0}])
        >>> history.column("train/loss")
        array([2., 4.])
    """

    def __init__(self) -> None:
        self._steps_per_point = 1
        self._points: list[dict[str, float]] = []
        self._waiting: list[dict[str, float]] = []
        self._known: dict[tuple[str, str], Values] = {}  # columns that several rules use

    def __len__(self) -> int:
        return len(self._points) + bool(self._waiting)

    def add(self, rows: Sequence[Mapping[str, int | float]]) -> None:
        """Adds later steps, as the engine's callbacks get them. Columns under `train/` and the epoch are kept.

        NaN counts as infinite, because it is not merely missing.
        """
        self._known.clear()
        for row in rows:
            kept = {name: float(value) for name, value in row.items() if name.startswith("train/")}
            kept = {name: value if math.isfinite(value) else math.inf for name, value in kept.items()}
            self._waiting.append({**kept, "step": row["step"], "epoch": row.get("epoch", 0)})
            if len(self._waiting) == self._steps_per_point:
                self._points.append(_merged(self._waiting))
                self._waiting = []
            if len(self._points) == 2 * POINTS:
                self._points = [_merged(pair) for pair in zip(self._points[::2], self._points[1::2])]
                self._steps_per_point *= 2

    def column(self, name: str) -> Values:
        """(points,) means, NaN where the column is empty; for "step", the first step of each point, counted from 1."""
        if ("column", name) not in self._known:
            points = [*self._points, *([_merged(self._waiting)] if self._waiting else [])]
            self._known["column", name] = np.array([point.get(name, math.nan) for point in points])
        return self._known["column", name]

    def smooth(self, name: str) -> Values:
        """(points,) medians of 5 neighbouring points, fewer at the ends, so that a single odd step changes nothing."""
        if ("smooth", name) not in self._known:
            self._known["smooth", name] = self._smooth(name)
        return self._known["smooth", name]

    def _smooth(self, name: str) -> Values:
        padded = np.pad(self.column(name), _NEIGHBOURS // 2, constant_values=math.nan)
        windows = np.sort(np.lib.stride_tricks.sliding_window_view(padded, _NEIGHBOURS), axis=1)  # NaN comes last
        middle = np.maximum((~np.isnan(windows)).sum(axis=1) - 1, 0)
        below, above = (np.take_along_axis(windows, m[:, None], axis=1)[:, 0] for m in (middle // 2, -(-middle // 2)))
        return (below + above) / 2

    def since(self, holds: npt.NDArray[np.bool_], patience: int = 1) -> int | None:
        """The step since which a condition has held without a break; None if for fewer than `patience` steps."""
        breaks = np.flatnonzero(~holds)
        first = int(breaks[-1]) + 1 if len(breaks) else 0
        if first == len(holds):
            return None
        start = int(self.column("step")[first])
        return start if self.last_step - start + 1 >= patience else None

    @property
    def last_step(self) -> int:
        """Number of steps so far."""
        last = (self._waiting or self._points)[-1]
        return int(last.get("last", last["step"]))


def _merged(points: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Several points as one: the mean of every column over the points that have it."""
    names = dict.fromkeys(name for point in points for name in point)
    present = {name: [point[name] for point in points if name in point] for name in names}
    means = {name: sum(values) / len(values) for name, values in present.items()}
    return {**means, "step": points[0]["step"], "last": points[-1].get("last", points[-1]["step"])}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What rules know about a run besides its metrics."""

    method: Any
    """The method's config. Fields such as `epsilon` or `num_prototypes` mean the same in every method that has them."""
    batch_size: int
    total_steps: int
    num_classes: int | None = None
    """None if not known."""
    uses_labels: bool = False
    """Whether steps draw labelled images."""
    processes: int = 1
    starts_trained: bool = False
    """Whether training began from weights that had been trained before."""

    @property
    def patience(self) -> int:
        """Steps for which a condition must hold before it counts: a twentieth of the run, between 20 and 1,000."""
        return min(1000, max(20, self.total_steps // 20))

    @property
    def prototype_counts(self) -> tuple[int, ...]:
        """K of each set; empty for methods without prototypes. In Suave the classes are the prototypes."""
        if hasattr(self.method, "num_prototypes"):
            return tuple(self.method.num_prototypes)
        return (self.num_classes,) if hasattr(self.method, "epsilon") and self.num_classes else ()

    def get(self, name: str, default: Any = 0) -> Any:
        """A field of the method's config, or `default` where it has no such field."""
        return getattr(self.method, name, default)


@dataclass(frozen=True)
class Finding:
    """A problem."""

    what: str
    """One sentence."""
    since: int
    """The step, counted from 1, since which it has held."""
    changes: tuple[str, ...]
    """What helps; try the first one first."""
    rule: str = ""
    """Name of the rule's function; `diagnose` fills it in."""
