"""Train a recipe and keep what came of it as one file in docs/results/, from which the docs' tables are made.

    python benchmarks/record_run.py NAME RECIPE [key=value ...]
    python benchmarks/record_run.py NAME fit images=DIR [labels=...] [minutes=...] [key.path=value ...]
    python benchmarks/record_run.py NAME again RECORDED views.evaluation.KEY=VALUE ...

NAME is the file's name, and may have a folder: speedrun/NAME stands in docs/speedrun.md instead. The run folder goes to
runs/NAME. The second form lets `tapetum fit` choose the recipe; its settings are those of the command, without dashes.
The third evaluates the weights of runs/RECORDED, which has a file already, by other views; both times count together.
With init=runs/RECORDED, the file keeps what that run spent, too, whose minutes count.
Paths of data in the recorded recipe are cut to their last folder, or to the one above train/ and test/.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from side_by_side import data_name, peaks

import tapetum
from tapetum.recipe.files import RECIPE
from tapetum.runs.run_folder import SUMMARY

RESULTS = Path(__file__).parents[1] / "docs" / "results"
CURVE_POINTS = 50


def record(name: str, recipe: str, overrides: list[str]) -> Path:
    """Run, and write docs/results/NAME.json."""
    folder = Path("runs") / name
    before = peaks(torch.get_num_threads())
    began, worked = time.perf_counter(), time.process_time()
    if recipe == "fit":
        given = dict(yaml_value(setting) for setting in overrides if "." not in setting.partition("=")[0])
        keys = [setting for setting in overrides if "." in setting.partition("=")[0]]
        summary = tapetum.fit(labels=given.pop("labels", None), output=folder, overrides=keys, **given)
    else:
        summary = tapetum.train(recipe, folder, overrides)
    spent = {"wall_seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked}
    after = peaks(torch.get_num_threads())
    for place in ("command", "test_images"):
        summary.pop(place, None)
    result = {
        "name": name,
        "command": command_of(name, recipe, overrides),
        "recipe": _recipe(folder),
        "summary": summary,
        **{name: round(seconds, 1) for name, seconds in spent.items()},
        "matrix_gflops": {"before": before, "after": after},
        "curve": curve(folder / "metrics.csv"),
    }
    if (start := _recorded_start(result["recipe"].get("init"))) is not None:
        result["started_from"] = start
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def record_again(name: str, recorded: str, overrides: list[str]) -> Path:
    """Evaluate a recorded run by other views, and write docs/results/NAME.json."""
    if odd := [setting for setting in overrides if not setting.startswith("views.evaluation.")]:
        sys.exit(f"record_run: error: {odd[0]!r} is not a setting of views.evaluation.")
    folder = Path("runs") / name
    shutil.copytree(Path("runs") / recorded, folder)
    recipe = yaml.safe_load((folder / RECIPE).read_text())
    for key, value in map(yaml_value, overrides):
        recipe["views"]["evaluation"][key.rpartition(".")[2]] = value
    (folder / RECIPE).write_text(yaml.safe_dump(recipe, sort_keys=False))
    result = json.loads((RESULTS / f"{recorded}.json").read_text())
    began, worked = time.perf_counter(), time.process_time()
    tapetum.evaluate(folder)
    result["wall_seconds"] = round(result["wall_seconds"] + time.perf_counter() - began, 1)
    result["cpu_seconds"] = round(result["cpu_seconds"] + time.process_time() - worked, 1)
    summary = json.loads((folder / SUMMARY).read_text())
    settings = " ".join(overrides)
    evaluated = f"tapetum evaluate runs/{name} (a copy of runs/{recorded}, with {settings} in recipe.yaml)"
    result |= {"name": name, "evaluated_again": evaluated, "recipe": _recipe(folder)}
    result["summary"] |= {key: summary[key] for key in ("test", "test_top1")}
    for key in [key for key in result["summary"] if key.startswith("heldout")]:
        del result["summary"][key]  # by the old views
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def _recorded_start(init: str | None) -> dict[str, Any] | None:
    """What a run that another one starts from was, and what it spent; None if nothing is on record."""
    path = RESULTS / f"{Path(init).relative_to('runs')}.json" if init and init.startswith("runs/") else None
    if path is None or not path.is_file():
        return None
    recorded = json.loads(path.read_text())
    keys = ("name", "recipe", "summary", "wall_seconds", "cpu_seconds", "matrix_gflops")
    return {key: recorded[key] for key in keys}


def yaml_value(setting: str) -> tuple[str, Any]:
    """A setting's name and its value, written as in YAML."""
    key, _, value = setting.partition("=")
    return key, yaml.safe_load(value)


def command_of(name: str, recipe: str, overrides: list[str]) -> str:
    settings = [_cut_path(setting) for setting in overrides]
    if recipe != "fit":
        return f"tapetum train {recipe} --output runs/{name} {' '.join(settings)}"
    flags = []
    for setting in settings:
        key, _, value = setting.partition("=")
        flags.append(setting if "." in key else f"--{key.replace('_', '-')} {value}")
    return f"tapetum fit --output runs/{name} {' '.join(flags)}"


def _cut_path(override: str) -> str:
    key, _, value = override.partition("=")
    if key == "init":
        return f"init={_below(value)}"
    return f"{key}={data_name(value)}" if key.removeprefix("data.") in ("images", "test", "labels") else override


def _below(path: str) -> str:
    """A path of a run from the folder `runs` on, of other files the last part."""
    parts = Path(path).parts
    return "/".join(parts[parts.index("runs") :]) if "runs" in parts else parts[-1]


def _recipe(folder: Path) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((folder / RECIPE).read_text())
    for key in ("images", "test", "labels"):
        if recipe["data"].get(key):
            recipe["data"][key] = data_name(recipe["data"][key])
    if init := recipe.get("init"):
        recipe["init"] = _below(init)
    return recipe


def curve(metrics: Path) -> list[dict[str, float]]:
    """About 50 points: means of the training metrics since the last point, and evaluations as they were."""
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    stride = max(1, len(rows) // CURVE_POINTS)
    points = []
    for end in range(stride, len(rows) + 1, stride):
        part = rows[end - stride : end]
        point = {"step": float(part[-1]["step"]), "train_seconds": float(part[-1]["train_seconds"])}
        for key in part[-1]:
            values = [float(row[key]) for row in part if row[key]]
            if key.startswith("train/") and values:
                point[key] = round(sum(values) / len(values), 5)
            elif key.startswith("eval/") and values:
                point[key] = values[-1]
        points.append(point)
    return points


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if sys.argv[2:3] == ["again"] and len(sys.argv) < 5:
        sys.exit(__doc__)
    if sys.argv[2] == "again":
        print(record_again(sys.argv[1], sys.argv[3], sys.argv[4:]))
    else:
        print(record(sys.argv[1], sys.argv[2], sys.argv[3:]))
