"""Train a detector from the backbone of a run, and measure its average precision.

    python examples/detection/detect.py RECIPE.yaml --output FOLDER [key=value ...]

The folder gets recipe.yaml (with every value), metrics.csv (parts of the loss), evaluations.csv, checkpoint.safetensors
and, at the end, summary.json. The same command again continues an interrupted training. docs/detection.md explains.
"""

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recipe import dump_recipe, load_recipe
from tapetum.system.files import write_text

NEEDED = ("pycocotools", "transformers")


def detect(recipe_path: str, output: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Train and measure.

    Args:
        recipe_path: YAML; see recipe.py for every field.
        output: the folder; if it holds an interrupted training of the same recipe, that continues.
        overrides: `key.path=value` each.

    Returns:
        What summary.json says.

    Raises:
        ValueError: something is wrong with the recipe, the weights, the data or the folder; one sentence.
    """
    recipe, folder = load_recipe(recipe_path, overrides), Path(output)
    _refuse_missing()
    from training import prepare  # after the check: it imports torch, which takes seconds

    text, kept = dump_recipe(recipe), folder / "recipe.yaml"
    if kept.is_file() and kept.read_text(encoding="utf-8") != text:
        raise ValueError(f"{kept} is another recipe: choose another --output, or give that recipe to continue.")
    training = prepare(recipe, folder)
    write_text(kept, text)
    print(f"{len(training.train.pictures)} images to train on, {len(training.test.pictures)} to measure on")
    print(f"backbone: {training.weights}")
    figures = training.run()
    summary = {
        "detector": recipe.detector.kind,
        "backbone": training.weights,
        **figures,
        "train_seconds": round(training.seconds, 1),
        "train_images": len(training.train.pictures),
        "test_images": len(training.test.pictures),
        "device": str(training.device),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("tapetum", "torch", "torchvision", *NEEDED)},
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _refuse_missing() -> None:
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"{' and '.join(missing)} cannot be imported: pip install 'tapetum[detection]'.")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 on success, 2 if the input is wrong, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="detect", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help="YAML file")
    parser.add_argument("--output", required=True, help="folder for everything that is written")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="other values, such as seed=1")
    given = parser.parse_intermixed_args(arguments)
    try:
        detect(given.recipe, given.output, given.overrides)
    except ValueError as error:
        print(f"detect: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("detect: stopped; the same command continues from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
