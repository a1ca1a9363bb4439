"""The floor of every comparison: nearest neighbours on raw pixels, recorded as a run of no network and no training.

    python benchmarks/record_pixels.py NAME images=DIR test=DIR [labels_per_class=N]

Writes docs/results/NAME.json. Labels are drawn as a recipe with `data.label_seed` 0 draws them. Two judges: the label
of the nearest labelled image by Euclidean distance, and the weighted votes that representations are judged by
(`tapetum.evaluation.nearest_neighbours`), by the cosines of pixels less the mean of their channel.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record_run import RESULTS, yaml_value

from tapetum.data.images.cache import decoded
from tapetum.data.images.stores import Store
from tapetum.data.labels.subsets import drawn_labels
from tapetum.data.sources.open_source import open_source
from tapetum.evaluation.accuracy import accuracy
from tapetum.evaluation.baselines import nearest_neighbour
from tapetum.evaluation.nearest_neighbours import nearest_neighbour_votes
from tapetum.system.files import whole_file


def record(name: str, images: str, test: str, labels_per_class: int | None = None) -> Path:
    """Judge raw pixels and write docs/results/NAME.json."""
    pool, tests = open_source(images), open_source(test, split="test")
    assert pool.labels is not None
    assert tests.labels is not None
    labels, truth = drawn_labels(pool.labels, labels_per_class, None, seed=0), tests.labels
    begun = time.perf_counter()
    rows, test_rows = pixels(pool.store, labels.labelled), pixels(tests.store, truth.labelled)
    mean = rows.mean(axis=(0, 2, 3), keepdims=True)
    rows, test_rows = ((part - mean).reshape(len(part), -1) for part in (rows, test_rows))
    classes, true = (torch.from_numpy(part.values[part.labelled]) for part in (labels, truth))
    votes = nearest_neighbour_votes(torch.from_numpy(test_rows), torch.from_numpy(rows), classes, labels.num_classes)
    judged = {str(count): asdict(accuracy(found, true, labels.classes)) for count, found in votes.items()}
    nearest = nearest_neighbour(rows, classes.numpy(), test_rows, true.numpy())
    command = f"python benchmarks/record_pixels.py {name} images={Path(images).name} test={Path(test).name}"
    result: dict[str, Any] = {
        "name": name,
        "command": command + ("" if labels_per_class is None else f" labels_per_class={labels_per_class}"),
        "recipe": {
            "data": {"images": Path(images).name, "labels_per_class": labels_per_class},
            "method": {"kind": "pixels"},
        },
        "summary": {
            "steps": 0,
            "images_seen": 0,
            "train_seconds": 0.0,
            "judging_seconds": round(time.perf_counter() - begun, 1),
            "num_labels": len(labels.labelled),
            "test": {"nearest_neighbours": judged, "nearest_neighbour": nearest},
            "test_top1": judged["20"]["top1"],
        },
    }
    path = RESULTS / f"{name}.json"
    with whole_file(path) as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n")
    return path


def pixels(store: Store, indices: np.ndarray) -> np.ndarray:
    """(N, C, H, W) float32 in [0, 1], of images of one size."""
    return np.stack(list(decoded(store).read(indices))).astype(np.float32) / 255


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    print(record(sys.argv[1], **dict(yaml_value(setting) for setting in sys.argv[2:])))
