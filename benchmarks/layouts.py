"""Which published layouts of weights are recognised, what is used of them, and how close outputs come to golden ones.

    TAPETUM_TEST_DATA=FOLDER python benchmarks/layouts.py [--json docs/results/layouts/published.json]

A file in each layout is written with the golden weights, as the published training writes it, and loaded by
`load_initial_weights` into the method of that layout; FOLDER holds golden/. The error is the largest difference of an
output in evaluation mode, relative to the largest golden value, in float64.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import write_json

from tapetum.interchange.initial_weights import load_initial_weights

ROOT = Path(__file__).parents[1]


def found(name: str, layouts: Any, golden: Any, folder: Path) -> dict[str, Any]:
    """One line of the table."""
    kind, backbone, settings, _ = layouts.PUBLISHED[name]
    method = layouts.method_of(kind, backbone, settings).double().eval()
    taken = load_initial_weights(method, layouts.written(name, folder / f"{name}.pth.tar"))
    expected = np.load(golden.golden_file(f"model_{name}.npz"))
    images = [golden.images(j, int(expected["batch"]), int(size)) for j, size in enumerate(expected["input_sizes"])]
    calls = [torch.cat([x for x in images if x.shape[-1] == s]) for s in dict.fromkeys(x.shape[-1] for x in images)]
    errors = []
    with torch.no_grad():
        for j, output in enumerate(layouts.outputs(method, calls)):
            wanted = expected[f"eval_out{j}"]
            errors.append(float(np.abs(output.numpy() - wanted).max() / np.abs(wanted).max()))
    return {
        "file": name,
        "method": kind,
        "layout": taken.layout,
        "used": len(taken.used),
        "unused": dict(Counter(taken.unused.values())),
        "new": len(taken.new),
        "golden_error": max(errors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "interchange")]
    import test_layouts as layouts

    import golden

    with tempfile.TemporaryDirectory() as folder:
        rows = [found(name, layouts, golden, Path(folder)) for name in layouts.PUBLISHED]
    for row in rows:
        print(json.dumps(row))
    if options.json is not None:
        write_json(options.json, {"layouts": rows})


if __name__ == "__main__":
    main()
