"""How well do scores tell images of a run's classes from other images? AUROC of several, from the same embeddings.

    python benchmarks/out_of_class.py NAME --images DIR --others NAME=DIR ... --runs RUN ... [--labels-per-class 400]

DIR of `--images` holds `train` and `test` with class folders; each of `--others` is a source of other images, of which
the test part is used if there is one. The labelled images are those of the run; a run without labels gets
`--labels-per-class`. Writes docs/results/out_of_class/NAME.json:

- AUROC: how often an image of the classes scores higher than another one;
- rejected: of the test images and of the others, the share that scores less than 95% of the labelled images do, when
  these are scored by the other nine tenths of them; for `in_domain`, what `predict --reject 0.05` says;
- helped: the same for `in_domain` when some of the others are labelled as none of the classes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import machine
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.data.images.stores import Store
from tapetum.data.sources.open_source import NO_LABELS, open_test_part
from tapetum.evaluation.in_domain import Domain, learn_domain
from tapetum.evaluation.prediction import Supports
from tapetum.evaluation.soft_neighbours import TEMPERATURE, classify_by_neighbours
from tapetum.ops.randomness import make_keys, permutation
from tapetum.runs.trained_run import TrainedRun, open_trained_run

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "out_of_class"
REJECT = 0.05
PARTS = 10
HELP = (5, 20)
"""Numbers of images that are labelled as none of the classes."""
MOST = 2000
"""Number of images of each kind, if there are more: always the same ones."""
HELD_OUT = 500
"""Number of test images that stand for held-out labels."""

Score = Callable[[Tensor, Supports], Tensor]
"""(N, D) embeddings and labelled images -> (N,), higher for images of the classes."""


def nearest(queries: Tensor, known: Supports, most: int = 1) -> Tensor:
    """The mean cosine with the nearest labelled images; of the nearest alone, RoPAWS' prior in another scale."""
    cosines = normalize(queries, dim=1) @ normalize(known.embeddings, dim=1).T
    return cosines.topk(min(most, len(known.labels)), dim=1).values.mean(dim=1)


def energy(queries: Tensor, known: Supports) -> Tensor:
    """Negative energy of the soft neighbours (Liu, Wang, Owens & Li, NeurIPS 2020)."""
    cosines = normalize(queries, dim=1) @ normalize(known.embeddings, dim=1).T
    return torch.logsumexp(cosines / TEMPERATURE, dim=1)


def max_probability(queries: Tensor, known: Supports) -> Tensor:
    """The largest share of a class among the soft neighbours (Hendrycks & Gimpel, ICLR 2017)."""
    return classify_by_neighbours(queries, *known).amax(dim=1)


def mahalanobis(queries: Tensor, known: Supports, unit: bool = True, relative: bool = False) -> Tensor:
    """Minus the least squared distance from a class mean, by the covariance that classes share (Lee et al., NeurIPS
    2018), shrunk by Ledoit and Wolf, as labels may be fewer than dimensions; `relative`: less that from the mean of all
    by the covariance of all (Ren et al., 2021)."""
    rows, others = (normalize(r, dim=1) if unit else r for r in (known.embeddings, queries))
    rows, others = rows.double(), others.double()
    counts = known.labels.bincount(minlength=known.num_classes)[:, None]
    means = torch.zeros(known.num_classes, rows.shape[1], dtype=rows.dtype).index_add_(0, known.labels, rows) / counts
    least = _distances(others, means[counts[:, 0] > 0], rows - means[known.labels]).amin(dim=1)
    mean = rows.mean(dim=0, keepdim=True)
    return -least + (_distances(others, mean, rows - mean)[:, 0] if relative else 0)


def _distances(queries: Tensor, means: Tensor, centred: Tensor) -> Tensor:
    """(N, M) squared Mahalanobis distances, by the covariance of centred rows."""
    covariance = torch.from_numpy(ledoit_wolf(centred.numpy(), assume_centered=True)[0])
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    return torch.cdist(queries @ whitening, means @ whitening).square()


SCORES: dict[str, Score] = {
    "nearest (RoPAWS' prior)": nearest,
    "mean of the 5 nearest": partial(nearest, most=5),
    "mean of the 20 nearest": partial(nearest, most=20),
    "energy of soft neighbours": energy,
    "largest share of soft neighbours": max_probability,
    "Mahalanobis": partial(mahalanobis, unit=False),
    "Mahalanobis, unit length": mahalanobis,
    "relative Mahalanobis, unit length": partial(mahalanobis, relative=True),
}


def without_themselves(score: Score, known: Supports) -> Tensor:
    """Scores of the labelled images, each by the other nine tenths."""
    part_of = torch.from_numpy(permutation(make_keys(0, "out of class"), len(known.labels)) % PARTS)
    found = torch.empty(len(part_of))
    for part in range(PARTS):
        out = part_of == part
        kept = Supports(known.embeddings[~out], known.labels[~out], known.num_classes)
        found[out] = score(known.embeddings[out], kept).float()
    return found


def auroc(inside: Tensor, outside: Tensor) -> float:
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    return float(roc_auc_score(truth, torch.cat([inside, outside]).numpy()))


def told_apart(score: Callable[[Tensor], Tensor], least: float, test: Tensor, others: dict[str, Tensor]) -> dict:
    """AUROC against each kind of other images, and what a threshold rejects."""
    inside, outside = score(test), {name: score(rows) for name, rows in others.items()}
    return {
        "auroc": {name: auroc(inside, scores) for name, scores in outside.items()},
        "rejected": {
            "test": float((inside < least).double().mean()),
            **{name: float((scores < least).double().mean()) for name, scores in outside.items()},
        },
    }


def by_domain(domain: Domain, test: Tensor, others: dict[str, Tensor]) -> dict[str, Any]:
    return told_apart(domain.shares, REJECT, test, others)


def helped(known: Supports, test: Tensor, others: dict[str, Tensor]) -> dict[str, Any]:
    """`in_domain` when some images of a kind are labelled as none of the classes; these are not judged."""
    found = {}
    for name, rows in others.items():
        order = torch.from_numpy(permutation(make_keys(0, "helped"), len(rows)))
        for count in HELP:
            domain = learn_domain(known.embeddings, rows[order[:count]])
            left = {**others, name: rows[order[count:]]}
            found[f"{count} of {name}"] = by_domain(domain, test, left)
    return found


def embedded(trained: TrainedRun, store: Store) -> Tensor:
    """(N, D) of some images of a store."""
    some = np.sort(permutation(make_keys(0, "some"), len(store))[:MOST])
    return trained.embedder_for(store).outputs(store, some).embeddings


def judge(trained: TrainedRun, test: Store, others: dict[str, Store]) -> dict[str, Any]:
    """Every score of one run."""
    known = trained.supports
    inside, *outside = (embedded(trained, store) for store in (test, *others.values()))
    rows = dict(zip(others, outside))
    scores = {}
    for name, score in SCORES.items():
        least = float(without_themselves(score, known).quantile(REJECT))
        scores[name] = told_apart(lambda queries, score=score: score(queries, known), least, inside, rows)
    scores["in_domain"] = by_domain(trained.domain, inside, rows)
    # As if some labels had been held out of the training: they join the labelled images and alone make the shares.
    drawn = torch.from_numpy(permutation(make_keys(0, "held out"), len(inside)))
    joined = torch.cat([known.embeddings, inside[drawn[:HELD_OUT]]])
    domain = learn_domain(joined, joined[:0], torch.arange(len(known.labels), len(joined)))
    scores[f"in_domain, by {HELD_OUT} held-out labels"] = by_domain(domain, inside[drawn[HELD_OUT:]], rows)
    recipe = trained.parts.recipe
    told = {"method": recipe.method.kind, "steps": trained.checkpoint.step, "labels": len(known.labels)}
    return {**told, "scores": scores, "helped": helped(known, inside, rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--others", nargs="+", metavar="NAME=DIR", required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--labels-per-class", type=int, default=400)
    given = parser.parse_args()
    others = {name: open_test_part(path, NO_LABELS).store for name, _, path in (o.partition("=") for o in given.others)}
    test = open_test_part(given.images).store
    found: dict[str, Any] = {}
    for run in given.runs:
        data: dict[str, Any] = {"images": str(given.images), "test": None}
        if not open_trained_run(run, needs_labels=False, data=data).parts.method.uses_support:
            data |= {"labels": None, "labels_per_class": given.labels_per_class}
        trained = open_trained_run(run, data=data)
        found[run.name] = judge(trained, test, others)
        for name, score in found[run.name]["scores"].items():
            print(f"{run.name:36} {name:36}", *(f"{k} {v:.3f}" for k, v in score["auroc"].items()), flush=True)
    settings = {"images": given.images.name, "reject": REJECT, "held_out": HELD_OUT}
    result = {"name": given.name, **settings, "runs": found, "machine": machine()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{given.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
