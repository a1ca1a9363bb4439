"""Evaluate one run by every protocol and keep the figures in docs/results/evaluations/NAME.json.

    python benchmarks/record_evaluations.py NAME RUN [--labels-per-class N] [--draws N] [--steps N] [KEY=VALUE ...]

RUN is a finished run of `record_run.py`, whose recipe names the test images. `--labels-per-class` gives labels to a run
that was trained without any. `--steps` shortens the protocols that train; KEY=VALUE are set in the recipe of SuNCEt.
Each figure is written as soon as it is there, and protocols that train keep their runs in RUN/evaluations, so an
interrupted call goes on where it was. Then `make docs`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import tapetum
from tapetum.evaluation.accuracy import Accuracy, Evaluation
from tapetum.runs.run_folder import environment
from tapetum.runs.tuning import TUNING

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "evaluations"
WAYS: dict[str, dict[str, Any]] = {
    "soft nearest neighbours": {"protocol": "soft_nn"},
    "soft nearest neighbours, of the backbone": {"protocol": "soft_nn", "features": "backbone"},
    "soft nearest neighbours, the 20 nearest": {"protocol": "soft_nn", "top_k": 20},
    "20 nearest neighbours": {"protocol": "knn"},
    "linear probe, cached features": {"protocol": "linear"},
    "linear classifier, random crops": {"protocol": "linear_crops"},
    "fine-tuned": {"protocol": "finetune"},
    "soft nearest neighbours, after SuNCEt": {"protocol": "suncet"},
}
"""Name in the table -> arguments of `tapetum.evaluate`."""


def measured(evaluation: Evaluation, protocol: str) -> Accuracy:
    """The accuracy that a protocol is about."""
    if protocol == "knn":
        return evaluation.nearest_neighbours[20]
    if protocol == "linear":
        assert evaluation.linear is not None
        return evaluation.linear
    return evaluation.headline if protocol in ("finetune", "linear_crops") else evaluation.soft_neighbours


def record(
    name: str, run: Path, labels_per_class: int | None, draws: int | None, steps: int | None, settings: list[str]
) -> Path:
    """Evaluate, and write docs/results/evaluations/NAME.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    summary = json.loads((run / "summary.json").read_text())
    about = {key: summary.get(key) for key in ("method", "steps", "train_seconds", "num_labels", "command")}
    result = {"name": name, "run": about, "labels_per_class": labels_per_class, "evaluations": {}, **environment()}
    if path.is_file():
        result["evaluations"] = json.loads(path.read_text())["evaluations"]
    for way, arguments in WAYS.items():
        if way in result["evaluations"]:
            continue
        given = {**arguments, "labels_per_class": labels_per_class, "draws": draws}
        if arguments["protocol"] in TUNING:
            length = [] if steps is None else [f"trainer.steps={steps}"]
            given["overrides"] = [*length, *(settings if arguments["protocol"] == "suncet" else ())]
        start = time.perf_counter()
        evaluations = tapetum.evaluate(run, **given)
        evaluations = evaluations if isinstance(evaluations, list) else [evaluations]
        top1 = [measured(evaluation, arguments["protocol"]).top1 for evaluation in evaluations]
        result["evaluations"][way] = {
            "arguments": {key: value for key, value in given.items() if value is not None},
            "top1": top1,
            "mean": statistics.mean(top1),
            "deviation": statistics.stdev(top1) if len(top1) > 1 else None,
            "seconds": round(time.perf_counter() - start, 1),
        }
        path.write_text(json.dumps(result, indent=1) + "\n")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("--labels-per-class", type=int)
    parser.add_argument("--draws", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_intermixed_args()
    print(record(given.name, given.run, given.labels_per_class, given.draws, given.steps, given.settings))
