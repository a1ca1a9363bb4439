"""What a finished run's predictions gain without training: mirror images, sizes, and labels spread over neighbours.

    python benchmarks/after_training.py RUN --judges DIR [--count 10000] [--threads 1]
        --json docs/results/after_training/NAME.json

RUN is a run's folder. DIR holds labelled images: those of the run's own pool whose labels it was not given, which cost
no test image, or others. `--count` of them judge, evenly from all classes. The labels spread (Zhou et al., NeurIPS
2003) over a graph of all judges and supports, so judges help each other; every class may be asked to win as often as
any other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse
import torch
from side_by_side import data_name, machine, write_json
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from tapetum.data.images.stores import Store
from tapetum.data.sources.open_source import open_source
from tapetum.data.views.evaluation_views import mean_over_views
from tapetum.evaluation.embedding import Outputs
from tapetum.evaluation.soft_neighbours import classify_by_neighbours
from tapetum.ops.sinkhorn import sinkhorn
from tapetum.runs.trained_run import TrainedRun, open_trained_run

SCALES = (0.75, 0.875, 1.0, 1.125, 1.25)
WAYS: dict[str, tuple[float, ...]] = {
    "mirrored": (1.0,),
    "mirrored, 2 scales": (0.875, 1.0),
    "mirrored, 3 scales": (0.75, 0.875, 1.0),
    "mirrored, 3 scales, larger": (0.875, 1.0, 1.125),
    "mirrored, 4 scales": (0.75, 0.875, 1.0, 1.125),
    "mirrored, 5 scales": SCALES,
}
"""Name -> what outputs are averaged over, beside mirror images."""
NEIGHBOURS, POWER, KEPT, ROUNDS = 30, 3, 0.99, 400
"""Edges of each image, and the power of cosines that weighs them; the share of a round that comes from neighbours."""
BALANCED = 20
"""Rounds that even the classes out."""


def outputs(run: TrainedRun, store: Store, rows: np.ndarray, scale: float, mirrored: bool) -> Outputs:
    """What the network finds in views of one size."""
    embedder = run.embedder_for(store)
    evaluation = replace(embedder.views.evaluation, scales=(scale,), mirrored=mirrored)
    return replace(embedder, views=replace(embedder.views, evaluation=evaluation)).outputs(store, rows)


def mean(found: Sequence[Outputs]) -> Outputs:
    """The mean over views."""
    logits = [one.logits for one in found if one.logits is not None]
    return Outputs(mean_over_views([one.embeddings for one in found]), mean_over_views(logits) if logits else None)


def spread_labels(queries: Tensor, supports: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(N, C) class shares of queries (N, D), spread from supports (S, D) over the graph of all of them."""
    rows = normalize(torch.cat([supports, queries]), dim=1)
    count = min(NEIGHBOURS + 1, len(rows))
    nearest = [(part @ rows.T).topk(count, dim=1) for part in rows.split(1000)]
    weights = torch.cat([part.values[:, 1:] for part in nearest]).clamp(min=0).pow(POWER).flatten()
    ends = torch.cat([part.indices[:, 1:] for part in nearest]).flatten()
    starts = torch.arange(len(rows)).repeat_interleave(count - 1)
    graph = sparse.csr_matrix((weights.double().numpy(), (starts.numpy(), ends.numpy())), shape=(len(rows),) * 2)
    graph = graph + graph.T
    root = sparse.diags(1.0 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel()))
    graph, known = root @ graph @ root, np.zeros((len(rows), num_classes))
    known[: len(labels)] = one_hot(labels, num_classes).numpy()
    found = known.copy()
    for _ in range(ROUNDS):
        found = KEPT * (graph @ found) + known
    shares = torch.from_numpy(found[len(labels) :])
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-12)


def balanced(shares: Tensor) -> Tensor:
    """The nearest shares by which every class wins about as often."""
    return sinkhorn(shares.clamp(min=1e-12).log(), epsilon=1.0, iterations=BALANCED)


def top1(scores: Tensor, truth: Tensor) -> float:
    """Share of rows whose largest score is that of their class, in percent."""
    return round(100 * float((scores.argmax(dim=1) == truth).float().mean()), 2)


def evenly(total: int, count: int) -> np.ndarray:
    """`count` places of a list of `total`, which may be sorted by class, or all of them."""
    return np.arange(min(count, total)) * total // min(count, total)


def judge(run: TrainedRun, judges: Path, count: int) -> dict[str, Any]:
    """Way -> judge -> top-1 of the judging images, in percent."""
    source = open_source(judges)
    if source.labels is None:
        raise SystemExit(f"after_training: error: {judges} has no labels: name a folder with a folder for each class.")
    truth, labelled = source.labels.in_order_of(run.classes), run.all_labels.labelled
    is_pool = Path(run.parts.recipe.data.images or "").resolve() in (judges.resolve(), judges.resolve().parent)
    is_pool = is_pool and truth.names == run.all_labels.names
    rows = np.setdiff1d(truth.labelled, labelled) if is_pool else truth.labelled
    rows = rows[evenly(len(rows), count)]
    right = torch.from_numpy(truth.values[rows])
    labels, classes = torch.from_numpy(run.all_labels.values[labelled]), len(run.classes)

    def both(scale: float, mirrored: bool) -> tuple[Outputs, Outputs]:
        pool = run.parts.data.store
        return outputs(run, source.store, rows, scale, mirrored), outputs(run, pool, labelled, scale, mirrored)

    def accuracies(found: Sequence[tuple[Outputs, Outputs]]) -> dict[str, float]:
        queries, supports = mean([query for query, _ in found]), mean([support for _, support in found])
        shares = classify_by_neighbours(queries.embeddings, supports.embeddings, labels, classes)
        spread = spread_labels(queries.embeddings, supports.embeddings, labels, classes)
        by = {"soft_neighbours": shares, "spread": spread}
        by |= {"soft_neighbours_balanced": balanced(shares), "spread_balanced": balanced(spread)}
        by |= {} if queries.logits is None else {"classifier": queries.logits}
        return {name: top1(scores, right) for name, scores in by.items()}

    seen = {scale: both(scale, mirrored=True) for scale in SCALES}
    ways = {name: accuracies([seen[scale] for scale in scales]) for name, scales in WAYS.items()}
    return {
        "judges": "its pool" if is_pool else "others",
        "judged": len(rows),
        "labels": len(labels),
        "ways": {"plain": accuracies([both(1.0, mirrored=False)])} | ways,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--judges", type=Path, required=True, help="labelled images, a folder for each class")
    parser.add_argument("--count", type=int, default=10_000, help="how many of them judge")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    run = open_trained_run(given.run)
    found = judge(run, given.judges, given.count)
    for way, accuracies in found["ways"].items():
        print(way, ", ".join(f"{name} {value:.2f}" for name, value in accuracies.items()), sep=": ")
    data = {"images": data_name(given.judges), "run": given.run.name, "kind": run.parts.recipe.method.kind}
    write_json(
        given.json,
        {**data, "scales": {name: list(scales) for name, scales in WAYS.items()}, **found, "machine": machine()},
    )


if __name__ == "__main__":
    main()
