"""Do suggested labels beat random ones? With 40 and 250 of them, over five draws, with equal training.

    python benchmarks/suggest.py NAME --run RUN --images DIR [--labels FILE] [--counts 40 250] [--draws 5]
        [--ways typiclust random ...] [--pool 16000] [--features own] [--paws-steps 1000] [--folder runs/suggest]
        [--quick]

RUN is a run that used no label, such as one of swav_cifar10_cpu; DIR are images of which all labels are known, as in
class folders, and never the test images. In each draw, a fifth of the images judges: it is neither suggested nor a
neighbour. Of the others, each way chooses the first labels, and then, knowing these, the rest. Ways that need labels
get their first ones from typiclust. Judges are soft nearest neighbours and logistic regression on RUN's fixed
embedding, and, with --paws-steps, the soft nearest neighbours of a PAWS run of paws_cifar10_250_cpu that trains with
these labels and all images. Everything that was measured is kept in --folder: an interrupted call goes on with what is
missing, and a second call with --paws-steps adds the trainings. Writes docs/results/suggest/NAME.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from side_by_side import data_name, machine
from torch import Tensor
from torch.nn.functional import normalize

import tapetum
from tapetum.data.health.health import Part, find_health
from tapetum.data.health.inspection import inspect
from tapetum.data.images.stores import FileStore
from tapetum.data.labels.labels import Labels
from tapetum.data.labels.subsets import held_out
from tapetum.data.sources.open_source import Source, open_source
from tapetum.evaluation.linear_probe import DEFAULT_REGULARISATION, fit_linear_probe
from tapetum.evaluation.prediction import predict_from
from tapetum.evaluation.soft_neighbours import classify_by_neighbours
from tapetum.evaluation.suggestion import NEED_LABELS, WAYS, Labelled, distinct, suggest_from
from tapetum.ops.randomness import make_keys, permutation
from tapetum.runs.trained_run import open_trained_run
from tapetum.system.files import whole_file, write_text

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "suggest"
RECIPE = "paws_cifar10_250_cpu"
FIRST = "typiclust"
JUDGED = 0.2  # share of the images that judges
QUICK = {"images": 2000, "draws": 2, "counts": [20, 40], "ways": [FIRST, "doubt", "random"]}

Indices = npt.NDArray[np.int64]
Cell = dict[str, Any]
"""What one way reached in one draw with so many labels."""


@dataclass(frozen=True)
class Embedded:
    """Images with all their labels, and the embedding of each."""

    source: Source
    labels: Labels
    rows: Tensor
    kept: Indices
    """Images of which no two are near copies."""


def embed(images: str, labels: str | None, run: str, features: Any, folder: Path, most: int | None) -> Embedded:
    """Embed all images by a run, or read what an earlier call embedded; `most` takes every n-th of image files."""
    source = open_source(images, labels)
    assert source.labels is not None, f"{images} has no labels: give --labels"
    if most is not None and isinstance(source.store, FileStore):
        some = np.arange(0, len(source.store), max(1, len(source.store) // most))
        source = replace(source, store=source.store.only(some), labels=source.labels.of_images(some))
    path, every = folder / "embedding.npz", np.arange(len(source.store))
    if not path.is_file():
        trained = open_trained_run(run, needs_labels=False)
        embedder = replace(trained.embedder_for(source.store), features=features)
        copies = find_health(Part(source, inspect(source.store))).groups
        kept = distinct(len(every), [group.members for group in copies], np.array([], dtype=np.int64))
        found = embedder.outputs(source.store, every).embeddings.numpy()
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez(file, rows=found, kept=kept)
    with np.load(path) as saved:
        rows, kept = normalize(torch.from_numpy(saved["rows"]), dim=1), saved["kept"]
    assert source.labels is not None
    return Embedded(source, source.labels, rows, kept)


def split(data: Embedded, draw: int, most: int | None) -> tuple[Indices, Indices]:
    """At most so many images to choose from, and those that judge, of which no two are copies of each other."""
    _, out = held_out(data.labels.only(data.kept), fraction=JUDGED, seed=draw)
    others = np.setdiff1d(data.kept, out.labelled)
    return np.sort(others[permutation(make_keys(draw, "pool"), len(others))[:most]]), out.labelled


def choose(data: Embedded, pool: Indices, way: str, draw: int, count: int, before: Indices) -> Indices:
    """Add suggestions to the images `before`, up to `count`; all are indices into the data."""
    known = np.searchsorted(pool, before)
    values, names = data.labels.values[before], data.labels.classes
    by = FIRST if way in NEED_LABELS and not len(before) else way
    given = Labelled(data.rows[torch.from_numpy(pool)], known, values, names, draw)
    picked = [found.image for found in suggest_from(given, count - len(before), by)]
    return np.concatenate([before, pool[picked]]).astype(np.int64)


def judge(data: Embedded, chosen: Indices, judges: Indices) -> dict[str, float]:
    """Top-1 in percent on the fixed embedding."""
    rows, truth = data.rows[torch.from_numpy(judges)], torch.from_numpy(data.labels.values[judges])
    supports, labels = data.rows[torch.from_numpy(chosen)], torch.from_numpy(data.labels.values[chosen])
    neighbours = classify_by_neighbours(rows, supports, labels, data.labels.num_classes)
    probe = fit_linear_probe(supports, labels, data.labels.num_classes, DEFAULT_REGULARISATION)
    return {name: _top1(scores, truth) for name, scores in (("soft_nn", neighbours), ("linear", probe.logits(rows)))}


def train(data: Embedded, images: str, chosen: Indices, judges: Indices, steps: int, seed: int, folder: Path) -> float:
    """Top-1 in percent of PAWS with the chosen labels; a class without a label is never right."""
    names, run = data.source.store.names, folder / "run"
    truth = [data.labels.classes[value] for value in data.labels.values[judges]]
    if len(np.unique(data.labels.values[chosen])) == 1:  # there is nothing to train
        return 100 * truth.count(data.labels.classes[data.labels.values[chosen[0]]]) / len(truth)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows((names[i], data.labels.classes[data.labels.values[i]]) for i in chosen)
    if not (run / "recipe.yaml").is_file():
        settings = [f"data.images={images}", f"data.labels={folder / 'labels.csv'}", "data.labels_per_class=null"]
        settings += ["trainer.minutes=null", f"trainer.steps={steps}", f"seed={seed}", "runtime.threads=1"]
        tapetum.train(RECIPE, run, settings)
    elif "steps" not in json.loads((run / "summary.json").read_text()):
        tapetum.resume(run)
    trained = open_trained_run(run)
    outputs = trained.embedder_for(data.source.store).outputs(data.source.store, judges)
    found = predict_from(outputs, trained.supports, trained.predicts_by, 0).labels.tolist()
    return 100 * mean(trained.classes[one] == other for one, other in zip(found, truth))


def _top1(scores: Tensor, truth: Tensor) -> float:
    return 100 * float((scores.argmax(dim=1) == truth).double().mean())


class Kept:
    """Cells measured so far, in a file of the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: list[Cell] = json.loads(path.read_text()) if path.is_file() else []

    def cell(self, way: str, draw: int, count: int) -> Cell:
        """The cell that was kept, or a new one."""
        same = (c for c in self.cells if (c["way"], c["draw"], c["labels"]) == (way, draw, count))
        found = next(same, None)
        if found is None:
            found = {"way": way, "draw": draw, "labels": count}
            self.cells.append(found)
        return found

    def save(self) -> None:
        write_text(self.path, json.dumps(self.cells) + "\n")


def measure(data: Embedded, given: argparse.Namespace, folder: Path) -> list[Cell]:
    """Fill every cell, those of the cheap judges first."""
    kept = Kept(folder / "cells.json")
    for trains in (False, True) if given.paws_steps else (False,):
        for draw in range(given.draws):
            pool, judges = split(data, draw, given.pool)
            for way in given.ways:
                before = np.array([], dtype=np.int64)
                for count in given.counts:
                    cell = kept.cell(way, draw, count)
                    if "chosen" not in cell:
                        began = time.process_time()
                        cell["chosen"] = choose(data, pool, way, draw, count, before).tolist()
                        cell["cpu_seconds"] = round(time.process_time() - began, 2)
                    before = np.array(cell["chosen"], dtype=np.int64)
                    cell["classes"] = len(np.unique(data.labels.values[before]))
                    if "soft_nn" not in cell:
                        cell |= judge(data, before, judges)
                        kept.save()
                        print({k: v for k, v in cell.items() if k != "chosen"}, flush=True)
                    if trains and "paws" not in cell:
                        place = folder / f"{way}_{draw}_{count}"
                        steps, images = given.paws_steps, given.images
                        cell["paws"] = train(data, images, before, judges, steps, draw, place)
                        kept.save()
                        print(f"{way}, draw {draw}, {count} labels: PAWS {cell['paws']:.2f}%", flush=True)
    wanted = [kept.cell(w, d, c) for c in given.counts for w in given.ways for d in range(given.draws)]
    return [{key: value for key, value in cell.items() if key != "chosen"} for cell in wanted]


def tell(cells: list[Cell]) -> None:
    """A line for each way and number of labels: the means, and how much they are above random."""
    for count in dict.fromkeys(cell["labels"] for cell in cells):
        for way in dict.fromkeys(cell["way"] for cell in cells):
            mine = [c for c in cells if (c["labels"], c["way"]) == (count, way)]
            parts = []
            for name in ("soft_nn", "linear", "paws"):
                if all(name in cell for cell in mine):
                    random = {c["draw"]: c[name] for c in cells if (c["labels"], c["way"]) == (count, "random")}
                    above = [c[name] - random[c["draw"]] for c in mine if name in c and c["draw"] in random]
                    gain = f" ({mean(above):+.2f})" if above else ""
                    parts.append(f"{name} {mean(c[name] for c in mine):.2f}{gain}")
            classes = mean(c["classes"] for c in mine)
            print(f"{count:4} labels  {way:10} classes {classes:4.1f}  {', '.join(parts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--run", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--counts", type=int, nargs="+", default=[40, 250])
    parser.add_argument("--pool", type=int, help="choose from so many images, others in each draw (default: all)")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--features", default="own", choices=("own", "backbone", "projector"))
    parser.add_argument("--paws-steps", type=int)
    parser.add_argument("--folder", type=Path, default=Path("runs/suggest"))
    parser.add_argument("--quick", action="store_true", help="few images, draws and labels: to see that it works")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        given.draws, given.counts, given.ways = QUICK["draws"], QUICK["counts"], QUICK["ways"]
    folder = given.folder / given.name
    folder.mkdir(parents=True, exist_ok=True)
    most = QUICK["images"] if given.quick else None
    data = embed(given.images, given.labels, given.run, given.features, folder, most)
    cells = measure(data, given, folder)
    tell(cells)
    result = {
        "images": len(data.rows),
        "pool": len(split(data, 0, given.pool)[0]),
        "judges": len(split(data, 0, given.pool)[1]),
        "num_classes": data.labels.num_classes,
        "data": data_name(Path(given.images).resolve()),
        "embedding": json.loads((Path(given.run) / "summary.json").read_text())["method"],
        "embedding_steps": json.loads((Path(given.run) / "summary.json").read_text())["steps"],
        "paws_steps": given.paws_steps,
        "cells": cells,
        "machine": machine(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_text(RESULTS / f"{given.name}.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
