"""Keep what came of a detector as one file in docs/results/detection/, from which a table of docs/results.md is made.

    python examples/detection/record.py NAME FOLDER

FOLDER is the output of detect.py, NAME the file's name. Paths in the recorded recipe are cut to their last two parts.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "detection"


def record(name: str, folder: Path) -> Path:
    """Write docs/results/detection/NAME.json, and return its path."""
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    for section, key in (("backbone", "weights"), *(("data", f"{part}_{what}") for part, what in _PATHS)):
        if recipe[section][key]:
            recipe[section][key] = "/".join(Path(recipe[section][key]).parts[-2:])
    result = {
        "name": name,
        "recipe": recipe,
        "summary": json.loads((folder / "summary.json").read_text(encoding="utf-8")),
        "losses": _rows(folder / "metrics.csv"),
        "evaluations": _rows(folder / "evaluations.csv"),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


_PATHS = [(part, what) for part in ("train", "test") for what in ("images", "annotations")]


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(record(sys.argv[1], Path(sys.argv[2])))
