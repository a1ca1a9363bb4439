"""`tapetum doctor`: what is wrong with a run, since when, and what to change."""

from __future__ import annotations

import json as json_format
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tapetum.diagnosis.collapse_doctor import advice, read_history
from tapetum.diagnosis.history import History
from tapetum.diagnosis.rules import RULES, diagnose
from tapetum.engine.loggers import METRICS
from tapetum.methods.registry import load_plugins
from tapetum.runs.run import setting_of
from tapetum.runs.run_folder import open_run_folder, read_summary

_SHOWN = ("loss", "embedding_std", "effective_rank", "code_entropy", "used_prototypes", "mean_entropy", "gradient_norm")


def doctor(run: str | Path, json: bool = False, plugins: Sequence[str] = ()) -> dict[str, Any]:
    """Explain a finished, stopped or running run from its metrics and recipe; no image and no weight is read.

    Args:
        run: its folder.
        json: print what is returned as JSON, in place of sentences.
        plugins: modules to import first, which register methods.

    Returns:
        `step` and `steps` (of them all), `metrics` (the latest, smoothed), `findings`, the likeliest cause first: each
        with `rule`, `what`, `since` (a step, counted from 1) and `changes`, the first to be tried first.

    Raises:
        ValueError: no run folder, or no step of it has been logged yet.

    Example:
        >>> import tapetum
        >>> findings = tapetum.doctor("runs/first")["findings"]  # doctest: +SKIP
    """
    load_plugins(plugins)
    folder, recipe = open_run_folder(run)
    history = read_history(folder / METRICS)
    if not len(history):
        raise ValueError(f"{folder / METRICS} has no row yet: wait for step {recipe.trainer.log_every}.")
    findings = diagnose(history, setting_of(recipe, read_summary(folder).get("num_classes")))
    metrics = _latest(history)
    result = {
        "step": history.last_step,
        "steps": recipe.trainer.steps,
        "metrics": metrics,
        "findings": [asdict(finding) | {"changes": list(finding.changes)} for finding in findings],
    }
    if json:
        print(json_format.dumps(result, indent=2))
        return result
    print(f"Step {result['step']} of {result['steps']}, {recipe.method.kind}.")
    print("  ".join(f"{name} {value:.3g}" for name, value in metrics.items()))
    for finding in findings:
        print(f"\n{advice(finding)}")
    if findings:
        print("\nThe first of these is the likeliest cause. Change one thing at a time.")
        print("Next: tapetum train RECIPE --output runs/again KEY=VALUE, with a change from above")
    else:
        print(f"Nothing wrong was found by {len(RULES)} rules.")
        print(f"Next: tapetum report {folder}")
    return result


def _latest(history: History) -> dict[str, float]:
    latest = {name: float(history.smooth(f"train/{name}")[-1]) for name in _SHOWN}
    return {name: value for name, value in latest.items() if math.isfinite(value)}
