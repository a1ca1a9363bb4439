"""Does the interval that `tapetum fit` prints hold what it promises? Train on many draws of the labels, and count.

    python benchmarks/coverage.py NAME DRAWS images=DIR test=DIR [labels_per_class=...] [steps=...] [key.path=value ...]

Settings are those of `tapetum fit`. Draw after draw, a fifth of the labels is held out and gives an interval; then the
test images, which nothing has looked at, give the accuracy that it should contain. Writes a file to
docs/results/coverage/.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from record_run import RESULTS, command_of, yaml_value

import tapetum
from tapetum.system.files import whole_file


def measure(name: str, draws: int, settings: list[str]) -> Path:
    """Train `draws` times and write docs/results/coverage/NAME.json."""
    given: dict[str, Any] = dict(yaml_value(setting) for setting in settings if "." not in setting.partition("=")[0])
    keys = [setting for setting in settings if "." in setting.partition("=")[0]]
    runs, machine = [], {}
    for draw in range(draws):
        seeds = [f"data.label_seed={draw}", f"seed={draw}"]
        with tempfile.TemporaryDirectory() as folder:
            summary = tapetum.fit(labels=None, output=Path(folder) / "run", overrides=[*keys, *seeds], **given)
        machine = {part: summary[part] for part in ("versions", "machine")}
        low, high = summary["heldout_interval"]
        runs.append(
            {
                "draw": draw,
                "heldout_top1": summary["heldout_top1"],
                "heldout_interval": [low, high],
                "heldout_labels": summary["heldout"]["soft_neighbours"]["count"],
                "test_top1": summary["test_top1"],
                "contains": low <= summary["test_top1"] <= high,
                "train_seconds": summary["train_seconds"],
                "steps": summary["steps"],
            }
        )
    path = RESULTS / "coverage" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = f"{command_of(name, 'fit', settings)} data.label_seed=DRAW seed=DRAW"
    result = {"name": name, "command": command, "runs": runs, **machine}
    with whole_file(path) as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n")
    return path


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    print(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
