"""How many of the labels that `tapetum review` doubts most are wrong? Flip some on purpose, and count.

    python benchmarks/label_errors.py flip flipped.csv --images DIR [--per-class 100] [--share 0.05] [--seed 0]
    python benchmarks/label_errors.py measure NAME --images DIR [--runs RUN ...] [--trained RUN ...] [--draws 5]

DIR is a source whose images all have labels, such as class folders. `flip` draws labels, gives a share of them another
class, and writes the file that `tapetum fit --images DIR --labels flipped.csv` trains with. `measure` ranks labels and
writes docs/results/label_errors/NAME.json: of the first 50 of each ranking, the share that was flipped. The runs of
`--runs` have not seen the labels that are drawn and flipped here, several times; they lend their embeddings alone. The
runs of `--trained` were trained with the labels of `flip`, and are judged as `review` does it. Rankings of cleanlab get
the same probabilities, where it is installed.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import machine
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.data.labels.labels import Labels
from tapetum.data.labels.subsets import labels_per_class
from tapetum.data.sources.open_source import open_source
from tapetum.evaluation.embedding import Outputs
from tapetum.evaluation.label_errors import RANKINGS, find_label_errors
from tapetum.evaluation.linear_probe import choose_regularisation, fit_linear_probe
from tapetum.evaluation.prediction import Supports, predict_from
from tapetum.evaluation.soft_neighbours import TEMPERATURE
from tapetum.ops.randomness import make_keys, permutation, uniform
from tapetum.runs.second_look import out_of_sample
from tapetum.runs.trained_run import TrainedRun, open_trained_run

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "label_errors"
FIRST = 50
FOLDS = 5
NEAREST = 20


def flipped(labels: Labels, per_class: int, share: float, seed: int) -> tuple[Labels, Labels]:
    """Draw labels of each class, and give a share of them another class; returns (true labels, given labels)."""
    true = labels_per_class(labels, per_class, seed)
    rows = true.labelled
    chosen = rows[permutation(make_keys(seed, "flip"), len(rows))[: round(share * len(rows))]]
    shifts = 1 + np.floor(uniform(make_keys(seed, "flip to", chosen), 1)[:, 0] * (labels.num_classes - 1))
    values = true.values.copy()
    values[chosen] = (values[chosen] + shifts.astype(np.int64)) % labels.num_classes
    return true, Labels(labels.classes, labels.names, values)


def by_soft_neighbours(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(N, C) as `review` does it: soft nearest neighbours among all other labelled images."""
    known = Supports(rows, labels, classes)
    scores = predict_from(Outputs(rows, None), known, "soft_neighbours", 0, torch.arange(len(rows))).scores
    return torch.softmax(scores, dim=1)


def by_nearest(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(N, C) by the 20 nearest of the other labelled images."""
    unit = normalize(rows, dim=1)
    cosines, nearest = (unit @ unit.T).fill_diagonal_(-torch.inf).topk(NEAREST, dim=1)
    shares = torch.softmax(cosines / TEMPERATURE, dim=1)
    return torch.zeros(len(rows), classes).scatter_add_(1, labels[nearest], shares)


def by_probe(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(N, C) by a linear probe that was trained on the labels of the other four fifths."""
    regularisation = choose_regularisation(rows, labels, classes).regularisation
    fold_of = torch.from_numpy(permutation(make_keys(0, "label errors"), len(rows)) % FOLDS)
    found = torch.zeros(len(rows), classes)
    for fold in range(FOLDS):
        out = fold_of == fold
        probe = fit_linear_probe(rows[~out], labels[~out], classes, regularisation)
        found[out] = torch.softmax(probe.logits(rows[out]), dim=1)
    return found


WAYS = {
    "soft neighbours": by_soft_neighbours,
    f"soft neighbours, the {NEAREST} nearest": by_nearest,
    f"linear probe, {FOLDS} folds": by_probe,
}


def rankings(probabilities: Tensor, labels: Tensor) -> Iterator[tuple[str, list[int]]]:
    """Yield name and order, most doubtful first, of every ranking."""
    for way in RANKINGS:
        found = find_label_errors(probabilities, labels, way)
        yield f"{way} of all labels", found.doubt.argsort(descending=True, stable=True).tolist()
        yield way, found.ranked.tolist()
    found = find_label_errors(probabilities, labels)
    yield f"{RANKINGS[0]}, {FIRST} at least", found.most_doubtful(FIRST).tolist()
    if importlib.util.find_spec("cleanlab") is None:
        return
    from cleanlab.filter import find_label_issues

    given, shares = labels.numpy(), probabilities.double().numpy()
    for way in ("self_confidence", "normalized_margin"):
        order = find_label_issues(given, shares, return_indices_ranked_by=way, n_jobs=1)
        yield f"cleanlab: {way}", order.tolist()


def precision(probabilities: Tensor, given: Tensor, true: Tensor) -> dict[str, dict[str, float]]:
    """For each ranking, the share of the first labels that is wrong, and how many labels it lists."""
    wrong = (given != true).numpy()
    found = {}
    for name, order in rankings(probabilities, given):
        first = order[:FIRST]
        found[name] = {"precision": float(wrong[first].sum()) / FIRST, "listed": len(order)}
    return found


def unseen_by(trained: TrainedRun, labels: Labels) -> Labels:
    """The labels of the images whose labels the run has not been trained with."""
    if not trained.parts.method.uses_support:
        return labels
    return labels.only(np.setdiff1d(labels.labelled, trained.all_labels.labelled))


def judge_embedding(trained: TrainedRun, true: Labels, given: Labels) -> dict[str, Any]:
    """Every way to predict labels from the embeddings of a run."""
    rows = true.labelled
    embeddings = trained.parts.embedder.outputs(trained.parts.data.store, rows).embeddings
    truth, labels = (torch.from_numpy(some.values[rows]) for some in (true, given))
    return {name: precision(way(embeddings, labels, true.num_classes), labels, truth) for name, way in WAYS.items()}


def judge_trained(trained: TrainedRun, truth: Labels) -> dict[str, Any]:
    """A run that was trained with flipped labels: what `review` finds, and the other ways from its embeddings."""
    sample = out_of_sample(trained)
    if trained.classes != truth.classes or trained.parts.data.store.names != truth.names:
        raise SystemExit(f"{trained.folder} was trained on other images than --images.")
    right = torch.from_numpy(truth.values[sample.rows])
    found = judge_embedding(trained, truth.only(trained.all_labels.labelled), trained.all_labels)
    if trained.parts.recipe.data.folds:
        found = {"the folds' short runs": precision(sample.probabilities, sample.labels, right), **found}
    return found


def about(trained: TrainedRun) -> dict[str, Any]:
    method, seen = trained.parts.recipe.method.kind, len(trained.labels.labelled)
    if not trained.parts.method.uses_support:
        seen = 0
    return {"method": method, "steps": trained.checkpoint.step, "labels": seen}


def measure(images: Path, runs: list[Path], trained_runs: list[Path], draws: int, size: argparse.Namespace) -> dict:
    """Judge all runs."""
    truth = open_source(images).labels
    assert truth is not None
    found: dict[str, Any] = {}
    for run in runs:
        trained = open_trained_run(run, data={"images": str(images), "labels": None, "test": None})
        drawn = [flipped(unseen_by(trained, truth), size.per_class, size.share, draw) for draw in range(draws)]
        ways = [judge_embedding(trained, *labels) for labels in drawn]
        found[run.name] = {**about(trained), "trained_on_flipped": False, "draws": ways}
        tell(run.name, found[run.name])
    for run in trained_runs:
        trained = open_trained_run(run)
        found[run.name] = {**about(trained), "trained_on_flipped": True, "draws": [judge_trained(trained, truth)]}
        tell(run.name, found[run.name])
    settings = {"images": images.name, "per_class": size.per_class, "share": size.share, "first": FIRST}
    return {**settings, "runs": found, "machine": machine()}


def tell(name: str, found: dict[str, Any]) -> None:
    for way, ranked in found["draws"][0].items():
        for ranking in ranked:
            shares = [draw[way][ranking]["precision"] for draw in found["draws"]]
            print(f"{name:32} {way:32} {ranking:36} {100 * np.mean(shares):5.1f}% of {FIRST}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("flip", "measure"))
    parser.add_argument("name", help="flip: the file to write; measure: the name of the result")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument("--trained", type=Path, nargs="*", default=[])
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    if given.what == "flip":
        labels = open_source(given.images).labels
        assert labels is not None
        _, wrong = flipped(labels, given.per_class, given.share, given.seed)
        with open(given.name, "w", newline="", encoding="utf-8") as file:
            rows = [(wrong.names[i], wrong.classes[wrong.values[i]]) for i in wrong.labelled]
            csv.writer(file, lineterminator="\n").writerows([("path", "label"), *rows])
        return
    result = measure(given.images, given.runs, given.trained, given.draws, given)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{given.name}.json"
    path.write_text(json.dumps({"name": given.name, **result}, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
