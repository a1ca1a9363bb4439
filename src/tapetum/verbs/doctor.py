"""`tapetum doctor`: find out what is wrong with a run, since when, and what to change."""

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
    """Diagnose a finished, stopped or running run from its metrics and recipe, without reading images or weights.

    Args:
        run: the run's folder.
        json: print the returned value as JSON instead of sentences.
        plugins: modules to import first; they register methods.

    Returns:
        `step` and `steps` (the total), `metrics` (the latest values, smoothed), and `findings`, most likely cause
        first: each has `rule`, `what`, `since` (a step, counted from 1) and `changes`, in the order to try them.

    Raises:
        ValueError: there is no run folder, or none of its steps has been logged yet.

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
        print("\nThe first of these is the most likely cause. Change one thing at a time.")
        print("Next: tapetum train RECIPE --output runs/again KEY=VALUE, with a change from above")
    else:
        print(f"None of the {len(RULES)} rules found a problem.")
        print(f"Next: tapetum report {folder}")
    return result


def _latest(history: History) -> dict[str, float]:
    latest = {name: float(history.smooth(f"train/{name}")[-1]) for name in _SHOWN}
    return {name: value for name, value in latest.items() if math.isfinite(value)}
