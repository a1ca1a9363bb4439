"""How far a training is, from the files of its run folder alone: recipe.yaml, metrics.csv and summary.json."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapetum.data.labels.labels import labels_from_names
from tapetum.data.labels.subsets import held_out
from tapetum.ops.intervals import wilson
from tapetum.recipe.files import RECIPE
from tapetum.recipe.yaml_with_lines import RecipeError, read_yaml

_POINTS = 150  # of a curve
_JUDGES = ("eval/soft_nn_top1", "eval/classifier_top1", "eval/knn_top1")
"""Columns of the accuracy on held-out labels; the first that there is, is shown."""


def read_summary(run: Path) -> dict[str, Any]:
    """Return what summary.json holds of a finished run; nothing while the run is not finished."""
    try:
        found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and "versions" in found else {}


def read_progress(run: Path, counts: Mapping[str, int]) -> dict[str, Any]:
    """Tell where a run is.

    Args:
        run: its folder, which may not exist yet.
        counts: images of each class that it trains on.

    Returns:
        `step`, `steps` (None if unknown), `seconds_left` (None if unknown), `loss` and `accuracy` as lists of
        (step, value) and of (step, percent, low, high), `held_out` (number of labels that accuracy is measured on).
    """
    recipe, rows = _recipe(run), _rows(run / "metrics.csv")
    steps, share = recipe.get("trainer", {}).get("steps"), recipe.get("data", {}).get("held_out_share")
    count = _held_out(counts, share) if share else 0
    judge = next((name for name in _JUDGES if rows and name in rows[0]), "")
    judged = [(int(row["step"]), _number(row, judge)) for row in rows if row.get(judge)]
    return {
        "step": int(rows[-1]["step"]) if rows else 0,
        "steps": steps,
        "seconds_left": _seconds_left(recipe, rows),
        "loss": _thinned([(int(row["step"]), _number(row, "train/loss")) for row in rows]),
        "accuracy": [(at, top1, *_interval(top1, count)) for at, top1 in judged if math.isfinite(top1)],
        "held_out": count,
    }


def _interval(top1: float, count: int) -> tuple[float, float]:
    return wilson(round(top1 * count / 100), count) if count else (top1, top1)


def _seconds_left(recipe: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> float | None:
    """Go on at the pace so far; None if unknown.

    Where a run begins with steps that see labelled images alone and cost less, only the pace of the others counts.
    """
    steps = recipe.get("trainer", {}).get("steps")
    if steps is None or not rows:
        return None
    method = recipe.get("method", {})
    early = int(method.get("paws_start", method.get("unlabelled_start", 0)) * steps)
    times = {int(row["step"]): _number(row, "train_seconds") for row in rows}
    step, begin = max(times), max((step for step in times if step <= early), default=0)
    if step <= early:
        return None
    left = (steps - step) * (times[step] - times.get(begin, 0.0)) / (step - begin)
    return round(left, 1) if math.isfinite(left) else None


def _held_out(counts: Mapping[str, int], share: float) -> int:
    """Count the labels that `fit` holds out."""
    class_of = [name for name, count in counts.items() for _ in range(count)]
    try:
        labels = labels_from_names([str(i) for i in range(len(class_of))], class_of)
        return len(held_out(labels, fraction=share, seed=0)[1].labelled)
    except ValueError:  # too few
        return 0


def _recipe(run: Path) -> dict[str, Any]:
    try:
        found = read_yaml((run / RECIPE).read_text(encoding="utf-8"), lambda line: f"line {line}").plain()
    except (OSError, ValueError, RecipeError):
        return {}
    return found if isinstance(found, dict) else {}


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv, without one that is being written."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header, *rows = [*csv.reader(line for line in file if line.endswith("\n"))] or [[]]
    return [dict(zip(header, row)) for row in rows if len(row) == len(header) and row[0].isdigit()]


def _number(row: Mapping[str, str], name: str) -> float:
    try:
        return float(row[name])
    except (KeyError, ValueError):
        return math.nan


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Average equal stretches of a curve; values that are no numbers are left out."""
    points = [point for point in points if math.isfinite(point[1])]
    stretch = -(-len(points) // _POINTS) or 1
    parts = [points[i : i + stretch] for i in range(0, len(points), stretch)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
