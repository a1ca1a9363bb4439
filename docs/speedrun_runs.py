"""How accurate after how many minutes: the goals and runs of docs/speedrun.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from run_tables import ABSENT, LONGEST_OVER_SHORTEST, Result, data_set, is_without_labels, method, table

INTRODUCTION = """## Runs

Test top-1, in percent, on CIFAR-10 (JPEG). Machines differ, so minutes are counted *at 0.4 TFLOP/s*: a run's minutes,
times the measured matrix peak of the type that it computes in (mean of before and after), over 0.4 TFLOP/s; where
something else ran beside, CPU seconds count in place of minutes. *After SimCLR*: the run starts from the weights of a
SimCLR run without labels, whose minutes count in full. *Goal* is what was aimed for in so many minutes or
fewer; with all 50,000 labels, a run shows the ceiling. *Minus supervised* compares with the mean of the supervised runs
with as many labels whose minutes differ by no more than a quarter.

![Accuracy over minutes](images/speedrun.svg)
"""
REFERENCE_GFLOPS = 400.0
GOALS: dict[int, dict[int, int]] = {
    50_000: {},  # the ceiling
    4000: {10: 80, 45: 87, 90: 90},
    250: {10: 70, 45: 80, 90: 85},
    40: {10: 58, 45: 68, 90: 75},
}
"""Labels -> minutes at 0.4 TFLOP/s -> test top-1 that was aimed for."""
_USUAL_WIDTHS = [32, 128, 128]
"""Channels of the small network in the recipes for CPUs."""
_STRONG = 0.8
"""`brightness` of strong views where FixMatch has its strongest."""
PAWS_TF = (84.0, 73.46)
"""Minutes on one V100, and top-1 with 4,000 labels: the TensorFlow port of PAWS, by its own README."""


def minutes(result: Result) -> float:
    """Minutes of a run at 0.4 TFLOP/s, with those of the run that it started from.

    Where CPU seconds were recorded, they count with the peak in one CPU second, since something else may have run
    beside; elsewhere the seconds of the training do, with the peak of all threads.
    """
    own = _own_minutes(result)
    return own + _own_minutes(result["started_from"]) if "started_from" in result else own


def _own_minutes(result: Result) -> float:
    kind = {"bf16": "bfloat16"}.get(result["recipe"].get("runtime", {}).get("precision"), "float32")
    seconds: float = result.get("cpu_seconds", result["summary"]["train_seconds"])
    kind += "_per_cpu_second" if "cpu_seconds" in result else ""
    peaks = [result["matrix_gflops"][when][kind] for when in ("before", "after")]
    return seconds / 60 * (sum(peaks) / 2) / REFERENCE_GFLOPS


def num_labels(result: Result) -> int:
    """Of CIFAR-10's, how many were given; `fit` holds some of them out of the training."""
    per_class: int | None = result["recipe"]["data"].get("labels_per_class")
    return 10 * per_class if per_class else int(result["summary"]["num_labels"])


def eligible(results: Sequence[Result]) -> list[Result]:
    """Runs on CIFAR-10 (JPEG) that learned from all, 4,000, 250 or 40 labels, from images and from nothing else."""
    return [
        r
        for r in results
        if data_set(r) == "CIFAR-10 (JPEG)"
        and num_labels(r) in GOALS
        and r["recipe"]["method"]["kind"] not in ("pixels", "frozen")
        and not is_without_labels(r)
        and (not r["recipe"].get("init") or "started_from" in r)
    ]


def runs(found: Mapping[str, Result]) -> str:
    """A line for each run, by number of labels and minutes."""
    results = eligible(list(found.values()))
    rows = []
    for result in sorted(results, key=lambda r: (-num_labels(r), minutes(r), r["name"])):
        labels, took, top1 = num_labels(result), minutes(result), result["summary"]["test_top1"]
        goal = next((goal for limit, goal in GOALS[labels].items() if took <= limit * LONGEST_OVER_SHORTEST), None)
        beside = _supervised_beside(result, results)
        rows.append(
            [
                f"{labels:,}",
                f"[{title(result)}](results/{result['name']}.json)",
                f"{took:.1f}",
                _steps(result),
                f"**{top1:.2f}**",
                ABSENT if goal is None else str(goal),
                f"{top1 - sum(beside) / len(beside):+.2f}" if beside else ABSENT,
            ]
        )
    heads = ["labels", "run", "minutes at 0.4 TFLOP/s", "steps", "test top-1", "goal", "minus supervised"]
    return table(heads, rows, left=(1,))


def _steps(result: Result) -> str:
    own = f"{result['summary']['steps']:,}"
    return f"{result['started_from']['summary']['steps']:,} + {own}" if "started_from" in result else own


GOALS_INTRODUCTION = """## What was aimed for

The best recipe for each goal, of those that took no longer; a quarter more minutes counts as the same. Runs that differ
in their seed count by their mean. No run chose anything by test images. Where `suggest` chose the labels, the training
without labels that it chose by is not counted.

- *Tried*: different recipes, the supervised one left out.
- *By its classifier*: so FixMatch predicts without SuNCEt; so did its first runs with SuNCEt, too, whose figure by
  neighbours is in the file.
- *Mirrored*: predicted by the mean over each image and its mirror image; *scales*: over as many sizes of it. That this
  helps was seen on images of the training set ([below](#what-predictions-gain-without-training)). *Evaluated again*:
  the weights of another run of this table.
"""
NEXT = """Tried for the goals, besides these runs: each ingredient [below](#what-each-ingredient-gains) for itself;
features before pseudo-labels, by SimCLR or PAWS, which gained nothing over labels first with 250 labels in ten minutes
and in the ladder (*after SimCLR*, and the rungs *SimCLR first* and *PAWS first*), and with 40 labels in 45 minutes a
little, by its classifier alone; nor by SwAV in a [warm start](results.md#does-a-warm-start-pay); and labels spread over
the neighbour graph, which add little to what the network has learned
([below](#what-predictions-gain-without-training)).

With 250 labels, pseudo-labels that are right more often gained nothing by themselves: whole or mirrored images to
assign them by, FreeMatch's thresholds and mixed labels all made more of them right, and none was more accurate by more
than chance may explain. Nor were other views of the labelled images: turned and sheared ones, cutout, smaller crops.
With 40 labels, which ones are drawn decides more than the recipe does (three seeds of PAWS and Muon), and more work
gained little: six times as much hardly anything for PAWS, and an hour of FixMatch about a point over 40 minutes. With
4,000, two and a half times the work gained FixMatch a point. What promises most, by these tables:

1. *strong views as published* in trainings of an hour and more: FixMatch's RandAugment also turns, shears and shifts
   unlabelled images; in the ladder, whose trainings are short, turned images were no gain;
2. *more unlabelled images a step* in trainings of an hour and more, as published (seven for each labelled one); in
   short ones labels teach more;
3. *which 40 labels*: draws differ by more than recipes do, and those that `suggest` chose, by features of a training
   without labels, trained one run here; features of a longer one, and more seeds, would tell what choosing is worth.

Neighbours that learn pseudo-labels, ahead in the ladder with 4,000 labels as well, were not in ten minutes.
"""


def goals(found: Mapping[str, Result]) -> str:
    """A line for each goal: the best run within its minutes, and how many recipes were tried."""
    results = eligible(list(found.values()))
    rows = []
    for labels, aims in GOALS.items():
        for limit, goal in aims.items():
            those = [
                r
                for r in results
                if num_labels(r) == labels
                and minutes(r) <= limit * LONGEST_OVER_SHORTEST
                and r["recipe"]["method"]["kind"] != "supervised"
            ]
            best = max(_by_seeds(those), key=_mean_top1)
            top1 = _mean_top1(best)
            links = ", ".join(f"[{title(one)}](results/{one['name']}.json)" for one in best)
            took = sum(map(minutes, best)) / len(best)
            trained = [r for r in those if "evaluated_again" not in r]
            tried = len({title(r).partition(", seed")[0].replace(_BY_CLASSIFIER, "") for r in trained})
            cells = [f"{goal}", f"**{top1:.2f}**", f"{top1 - goal:+.2f}", links, f"{took:.1f}", str(tried)]
            rows.append([f"{labels:,}", str(limit), *cells])
    heads = ["labels", "minutes", "goal", "best top-1", "minus goal", "by", "which took", "tried"]
    return table(heads, rows, left=(5,)) + "\n" + NEXT


def _by_seeds(results: Sequence[Result]) -> list[list[Result]]:
    """Runs that differ in nothing but their seed, which ends their name, together."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result["name"].partition("_seed")[0], []).append(result)
    return list(found.values())


def _mean_top1(results: Sequence[Result]) -> float:
    return sum(float(r["summary"]["test_top1"]) for r in results) / len(results)


_BY_CLASSIFIER = ", by its classifier"


def title(result: Result) -> str:
    """What a run is called in tables and plot."""
    recipe = result["recipe"]
    said = f" after {method(result['started_from'])}" if "started_from" in result else ""
    said += ", labels first" if any(recipe["method"].get(key) for key in ("paws_start", "unlabelled_start")) else ""
    test = result["summary"].get("test", {})
    if recipe["method"]["kind"] == "fixmatch" and test.get("predicts_by") == "classifier":
        said += _BY_CLASSIFIER
    said += ", Muon" if _is_muon(result) else ""
    if (widths := recipe["backbone"].get("widths", _USUAL_WIDTHS)) != _USUAL_WIDTHS:
        said += f", network {'-'.join(map(str, widths))}"
    if recipe["method"]["kind"] == "fixmatch" and (strong := recipe["views"]["small"]["brightness"]) < _STRONG:
        said += f", strong views of brightness {strong:g}"
    said += ", learning neighbours" if recipe["method"].get("neighbour_weight") else ""
    if recipe["views"]["evaluation"].get("mirrored"):
        said += ", mirrored"
    if (scales := len(recipe["views"]["evaluation"].get("scales", [1.0]))) > 1:
        said += f", {scales} scales"
    if result["name"].startswith("speedrun/chosen_"):
        said += ", labels chosen by `suggest`"
    said += ", evaluated again" if "evaluated_again" in result else ""
    if num_labels(result) != result["summary"]["num_labels"]:
        said += ", a part of the labels held out"
    return f"{method(result)}{said}, seed {recipe.get('seed', 0)}"


def _is_muon(result: Result) -> bool:
    return bool(result["recipe"].get("optimizer", {}).get("kind") == "muon")


def _supervised_beside(result: Result, others: Sequence[Result]) -> list[float]:
    if result["recipe"]["method"]["kind"] == "supervised":
        return []
    return [
        other["summary"]["test_top1"]
        for other in others
        if other["recipe"]["method"]["kind"] == "supervised"
        and num_labels(other) == num_labels(result)
        and max(minutes(other), minutes(result)) <= LONGEST_OVER_SHORTEST * min(minutes(other), minutes(result))
    ]


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
4,000 labels Muon's iterations do, too (five in float32, then three in bfloat16).
"""
METHODS_INTRODUCTION = """## FixMatch or PAWS

What `fit` chose with either method, on one machine, before it took halfway views and learning neighbours: steps of
FixMatch cost less, so it takes more of them. It predicts by mirror images, too.
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
                *(f"{one['steps']:,}" for one in both),
                *(f"{one['cpu_seconds']:,.0f}" for one in (other, result)),
                *heldout,
                *(f"**{one['test_top1']:.2f}**" for one in both),
                f"{both[1]['test_top1'] - both[0]['test_top1']:+.2f}",
            ]
        )
    heads = ["data", "labels"]
    heads += [
        part for what in ("steps", "CPU seconds", "held-out top-1", "test top-1") for part in (f"{what}, {old}", new)
    ]
    return table([*heads, f"{new} minus {old}"], rows, left=(0,))
