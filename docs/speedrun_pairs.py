"""Runs of docs/speedrun.md that differ in one thing, by pairs."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import ABSENT, Result, data_set, table
from speedrun_runs import compute_type

OPTIMIZERS_INTRODUCTION = """## Muon or SGD

PAWS by the same recipe and in the same number of steps with either optimizer, on one machine.
"""
VIEWS_INTRODUCTION = """## Strong or halfway views

FixMatch by the same recipe, and in the same number of steps, with two kinds of views to learn pseudo-labels from: as
strong as those of the few labelled images, or halfway between these and the weak ones, as `fixmatch_cifar10_250_cpu`
and `fit` have them for few labels. CPU seconds differ mostly by what else the machine did.
"""
NEIGHBOURS_INTRODUCTION = """## Neighbours that learn pseudo-labels

FixMatch by the same recipe, and in the same number of steps, whose soft nearest neighbours, which predict, learn from
labelled images alone, or pseudo-labels as well (`method.neighbour_weight: 0.3`). Labels of Fashion-MNIST and the
pictures were drawn anew, so they compare within this table alone. Where CPU seconds differ much, the machines do; with
4,000 labels Muon's iterations do, too (five in float32, then three in bfloat16). *Type* is what each computed in: two
types on two machines are two trainings of the same seed, and differ by chance as well.
"""
METHODS_INTRODUCTION = """## FixMatch or PAWS

What `fit` chose with either method, on one machine, before it took halfway views and learning neighbours. With FixMatch
it also chose Muon instead of SGD, a rate that is held before it falls, labels first, an averaged teacher and mirror
images to predict by. Steps of FixMatch cost less, so it takes more of them.
"""


def optimizers(found: Mapping[str, Result]) -> str:
    """A line for each two runs that differ in the optimizer alone: sgd_NAME and muon_NAME."""
    return _pairs(found, {"sgd_": "SGD", "muon_": "Muon"})


def views(found: Mapping[str, Result]) -> str:
    """A line for each two runs that differ in their strong views alone: NAME and NAME with `_halfway` in it."""
    return _pairs(found, {"": "strong", "_halfway": "halfway"})


def neighbours(found: Mapping[str, Result]) -> str:
    """A line for each two runs that differ in what neighbours learn: NAME and NAME with `_neighbours` in it."""
    return _pairs(found, {"": "labels alone", "_neighbours": "both"})


def methods(found: Mapping[str, Result]) -> str:
    """A line for each two runs by different methods: paws_NAME and fixmatch_NAME."""
    return _pairs(found, {"paws_": "PAWS", "fixmatch_": "FixMatch"})


def _pairs(found: Mapping[str, Result], kinds: Mapping[str, str]) -> str:
    (first, old), (second, new) = kinds.items()
    rows = []
    for name, result in found.items():
        other = found.get(name.replace(second, first, 1))
        if second not in name or other is None:
            continue
        both = [one["summary"] for one in (other, result)]
        heldout = [f"{one['heldout_top1']:.2f}" if one.get("heldout_top1") else ABSENT for one in both]
        rows.append(
            [
                f"[{data_set(result)}](results/speedrun/{name}.json)",
                f"{both[1]['num_labels']:,}",
                ", ".join(dict.fromkeys(compute_type(one) for one in (other, result))),
                *(f"{one['steps']:,}" for one in both),
                *(f"{one['cpu_seconds']:,.0f}" for one in (other, result)),
                *heldout,
                *(f"**{one['test_top1']:.2f}**" for one in both),
                f"{both[1]['test_top1'] - both[0]['test_top1']:+.2f}",
            ]
        )
    heads = ["data", "labels", "type"]
    heads += [
        part for what in ("steps", "CPU seconds", "held-out top-1", "test top-1") for part in (f"{what}, {old}", new)
    ]
    return table([*heads, f"{new} minus {old}"], rows, left=(0, 2))
