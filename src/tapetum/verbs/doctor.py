"""`tapetum doctor`: find out what is wrong with a run, since when, and what to change; or with the installation."""

import json as json_format
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapetum.diagnosis.installation import inspect_installation

if TYPE_CHECKING:
    from tapetum.diagnosis.history import History

# What a run needs is imported for runs alone, because --install has to work where torch does not.

_SHOWN = ("loss", "embedding_std", "effective_rank", "code_entropy", "used_prototypes", "mean_entropy", "gradient_norm")


def doctor(
    run: str | Path | None = None, install: bool = False, json: bool = False, plugins: Sequence[str] = ()
) -> dict[str, Any]:
    """Diagnose a finished, stopped or running run from its metrics and recipe, without reading images or weights.

    Args:
        run: the run's folder.
        install: diagnose the installation instead: packages, what recipes compute with here, extras.
        json: print the returned value as JSON instead of sentences.
        plugins: modules to import first; they register methods.

    Returns:
        Of a run, `step` and `steps` (the total), `metrics` (the latest values, smoothed), and `findings`, most likely
        cause first: each has `rule`, `what`, `since` (a step, counted from 1) and `changes`, in the order to try them.
        Of an installation, what `tapetum.diagnosis.installation.inspect_installation` returns: `broken` is empty if
        everything works. The command's exit code is 1 otherwise.

    Raises:
        ValueError: neither or both of `run` and `install` are given, there is no run folder, or none of its steps has
            been logged yet.

    Example:
        >>> import tapetum
        >>> findings = tapetum.doctor("runs/first")["findings"]  # doctest: +SKIP
    """
    if install == (run is not None):
        raise ValueError("doctor looks at one thing: name the folder of a run, or use --install for the installation.")
    if run is None:
        result = inspect_installation()
        print(json_format.dumps(result, indent=2) if json else _installation_text(result))
    else:
        result = _diagnose(run, json, plugins)
    return result


def _diagnose(run: str | Path, json: bool, plugins: Sequence[str]) -> dict[str, Any]:
    from tapetum.diagnosis.collapse_doctor import advice, read_history
    from tapetum.diagnosis.rules import RULES, diagnose
    from tapetum.engine.loggers import METRICS
    from tapetum.methods.registry import load_plugins
    from tapetum.runs.run import setting_of
    from tapetum.runs.run_folder import open_run_folder, read_summary

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


def _latest(history: "History") -> dict[str, float]:
    latest = {name: float(history.smooth(f"train/{name}")[-1]) for name in _SHOWN}
    return {name: value for name, value in latest.items() if math.isfinite(value)}


def _installation_text(found: dict[str, Any]) -> str:
    lines = [f"Tapetum {found['tapetum']}, Python {found['python']}, {found['system']}"]
    if machine := found["machine"]:
        lines += _machine_lines(machine)
    cache = found["cache"]
    if cache["folder"]:
        lines.append(f"cache      {cache['folder']}: {_size(cache['bytes'])}, {_size(cache['free_bytes'])} free")
    fit = sum(package["problem"] is None for package in found["packages"])
    lines.append(f"packages   {fit} of the {len(found['packages'])} that are needed are installed and suit")
    lines.append("\nExtras")
    for extra in found["extras"]:
        state = f"missing: {extra['command']}" if extra["missing"] else "installed"
        lines.append(f"  {extra['name']:<12} {state:<40} {extra['purpose']}")
    lines += [f"\n{note}" for note in found["notes"]]
    lines.append("\nBroken:" if found["broken"] else "\nNothing is broken.")
    lines += [f"- {sentence}" for sentence in found["broken"]] or ["Next: tapetum demo"]
    return "\n".join(lines)


def _machine_lines(machine: dict[str, Any]) -> list[str]:
    gpus = [f"{gpu['name']} ({_size(gpu['memory_bytes'])})" for gpu in machine["gpus"]]
    number = "bfloat16, channels-last" if machine["precision"] == "bf16" else "float32"
    pair = f"; torchvision {machine['torchvision']}: a pair" if machine["torchvision"] else ""
    built = f"built for CUDA {machine['cuda']}" if machine["cuda"] else "built without CUDA"
    return [
        f"torch      {machine['torch']}, {built}{pair}",
        f"CPU        {machine['cpu']}; {machine['threads']} threads; {', '.join(machine['instruction_sets'])}",
        f"GPU        {', '.join(gpus) or machine['device'].replace('cpu', 'none')}",
        f"memory     {_size(machine['memory_bytes'])}",
        f"recipes    compute in {number} on {machine['device']} (tried on one convolution)",
    ]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
