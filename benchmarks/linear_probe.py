"""Seconds of a linear probe: Tapetum's L-BFGS against scikit-learn's LogisticRegression, for the same lambda.

    python benchmarks/linear_probe.py [--features TRAIN.npz TEST.npz] [--threads N] [--json FILE]

Both get the same 50,000 features of 256 numbers, made up of 10 class means and noise, in one process with the same
number of threads, in turn. scikit-learn gets them standardised already, which ours does within its time, and has its
default tolerance. Columns of the second kind of features are correlated, as those of networks are. The demand is an
accuracy on 10,000 other features within 0.3 points of scikit-learn's, in no more time; the objective of both is
printed, too, because who stops early is fast. --features adds a third kind: what `tapetum embed` wrote of two folders
of class folders, the training and the test images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from side_by_side import machine, write_json
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import cross_entropy

from tapetum.evaluation.linear_probe import LinearProbe, fit_linear_probe, linear_probe

CLASSES, DIMENSION, TEST = 10, 256, 10_000
REGULARISATION = 1e-3
KINDS = ("independent", "correlated")


def features(kind: str, count: int) -> tuple[Tensor, Tensor]:
    """(count, 256) features and their labels."""
    generator = torch.Generator().manual_seed(0)
    means = 0.16 * torch.randn(CLASSES, DIMENSION, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    rows = means[labels] + torch.randn(count, DIMENSION, generator=generator)
    if kind == "correlated":
        spectrum = torch.logspace(0, -1.5, DIMENSION)[:, None]
        rows = rows @ (spectrum * torch.randn(DIMENSION, DIMENSION, generator=generator))
    return rows, labels


def embedded(path: Path) -> tuple[Tensor, Tensor]:
    """The features in a file of `tapetum embed`, and labels by the folder of each image."""
    with np.load(path) as file:
        folders = [str(name).split("/")[0] for name in file["paths"]]
        rows = torch.from_numpy(file["embeddings"])
    return rows, torch.from_numpy(np.unique(folders, return_inverse=True)[1])


def objective(probe: LinearProbe, rows: Tensor, labels: Tensor) -> float:
    """What both minimise, of a probe of standardised features."""
    logits = rows.double() @ probe.weight.double().T + probe.bias.double()
    return float(cross_entropy(logits, labels) + REGULARISATION / 2 * probe.weight.double().square().sum())


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def once(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Fit by scikit-learn, by ours, and by ours with the choice of lambda."""
    rows, labels = train
    mean, scale = rows.mean(dim=0), rows.std(dim=0, correction=0)
    standardised, others = (rows - mean) / scale, (test[0] - mean) / scale
    model = LogisticRegression(C=1 / (REGULARISATION * len(rows)), max_iter=1000)
    usual_seconds, _ = seconds(lambda: model.fit(standardised.numpy(), labels.numpy()))
    usual = LinearProbe(*(torch.from_numpy(part).float() for part in (model.coef_, model.intercept_)))
    fixed_seconds, probe = seconds(lambda: fit_linear_probe(rows, labels, CLASSES, REGULARISATION))
    choice_seconds, (best, chosen) = seconds(lambda: linear_probe(rows, labels, CLASSES))

    unfolded = LinearProbe(probe.weight * scale, probe.bias + probe.weight @ mean)

    def accuracy(logits: Tensor) -> float:
        return 100 * float((logits.argmax(dim=1) == test[1]).double().mean())

    return {
        "usual_seconds": usual_seconds,
        "fixed_seconds": fixed_seconds,
        "choice_seconds": choice_seconds,
        "usual_over_fixed": usual_seconds / fixed_seconds,
        "usual_over_choice": usual_seconds / choice_seconds,
        "usual_accuracy": accuracy(usual.logits(others)),
        "fixed_accuracy": accuracy(probe.logits(test[0])),
        "choice_accuracy": accuracy(best.logits(test[0])),
        "chosen": chosen,
        "usual_objective": objective(usual, standardised, labels),
        "fixed_objective": objective(unfolded, standardised, labels),
    }


def compare(images: int, rounds: int, threads: int, files: list[Path] | None) -> dict[str, Any]:
    """Measure every kind of features some times and print medians."""
    torch.set_num_threads(threads)
    result: dict[str, Any] = {"threads": threads, "regularisation": REGULARISATION}
    drawn = {kind: features(kind, images + TEST) for kind in KINDS}
    sets = {
        kind: ((rows[TEST:], labels[TEST:]), (rows[:TEST], labels[:TEST])) for kind, (rows, labels) in drawn.items()
    }
    if files is not None:
        sets["embedded"] = (embedded(files[0]), embedded(files[1]))
    with threadpool_limits(limits=threads):
        for kind, (train, test) in sets.items():
            samples = [once(train, test) for _ in range(rounds)]
            middle = {name: median(sample[name] for sample in samples) for name in samples[0]}
            result[kind] = {"features": list(train[0].shape), "rounds": samples, "median": middle}
            print(f"\n{kind} columns, {len(train[0])} images, {threads} threads, median of {rounds}")
            for name, value in middle.items():
                print(f"  {name:<18} {value:12.6f}   {' '.join(f'{sample[name]:.4g}' for sample in samples)}")
    return {**result, "machine": machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000, help="features to train on")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    parser.add_argument("--features", type=Path, nargs=2, metavar=("TRAIN", "TEST"), help="files of `tapetum embed`")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of both ways")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    options = parser.parse_args()
    write_json(options.json, compare(options.images, options.rounds, options.threads, options.features))


if __name__ == "__main__":
    main()
