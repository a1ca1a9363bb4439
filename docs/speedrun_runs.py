"""How accurate after how many minutes: the runs of docs/speedrun.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from run_tables import ABSENT, LONGEST_OVER_SHORTEST, Result, data_set, is_without_labels, method, table

PAWS_TF = (84.0, 73.46)
"""Minutes on one V100, and top-1 with 4,000 labels: the TensorFlow port of PAWS, by its own README."""
V100_GFLOPS = 15_700.0
"""In float32, by its data sheet."""
REFERENCE_GFLOPS = 400.0
_PAWS_TF_HERE = PAWS_TF[0] * V100_GFLOPS / REFERENCE_GFLOPS
RESTLESS = 1.15
"""Peaks before and after a run that differ by a larger factor leave its minutes uncertain."""
INTRODUCTION = f"""## Runs

Test top-1, in percent, on CIFAR-10 (JPEG). Machines differ, so minutes are counted *at 0.4 TFLOP/s*: a run's seconds,
times the measured matrix peak of the type that it computes in (mean of before and after), over 0.4 TFLOP/s. CPU
seconds of the whole command count where they were recorded, with the peak in a CPU second; in the oldest runs, seconds
of the training. *≈*: the peaks before and after differ by more than {RESTLESS - 1:.0%}. The same steps count
more minutes where a machine reaches a smaller share of its peak ([speed of light](performance.md#speed-of-light)).

- *Whole after 50%*: PAWS's loss grew to its full weight in so much of the training; usually in 60 or 70%.
- *After SimCLR*: the run starts from the weights of a SimCLR run without labels, whose minutes count in full.
- *Goal*: what was aimed for in so many minutes or fewer. With all 50,000 labels, a run shows the ceiling.
- *Supervised*: the best supervised run with as many labels and the same optimizer, in at most a quarter more minutes;
  where there is none, the next longer one, with its minutes. None stands beside runs that held a part of the labels
  out.
- The diamond in the plot is the TensorFlow port of PAWS, by its own README: {PAWS_TF[1]:.2f} with 4,000 labels after
  {PAWS_TF[0]:.0f} minutes of a V100, drawn as they are. At its {V100_GFLOPS / 1000:.1f} TFLOP/s in float32 they would
  be {_PAWS_TF_HERE:,.0f} of these minutes.

![Accuracy over minutes](images/speedrun.svg)
"""
GOALS: dict[int, dict[int, int]] = {
    50_000: {},  # the ceiling
    4000: {10: 80, 45: 87, 90: 90},
    250: {10: 70, 45: 80, 90: 85},
    40: {10: 58, 45: 68, 90: 75},
}
"""Labels -> minutes at 0.4 TFLOP/s -> test top-1 that was aimed for."""
_USUAL_WIDTHS = [32, 128, 128]
"""Channels of the small network in the recipes for CPUs."""
_USUAL_RAMPS = (0.6, 0.7)
"""`paws_ramp` in these recipes, with few labels and with 4,000."""
_STRONG = 0.8
"""`brightness` of strong views where FixMatch has its strongest."""


def minutes(result: Result) -> float:
    """Minutes of a run at 0.4 TFLOP/s, with those of the run that it started from.

    Where CPU seconds were recorded, they count with the peak in one CPU second, since something else may have run
    beside; elsewhere the seconds of the training do, with the peak of all threads.
    """
    own = _own_minutes(result)
    return own + _own_minutes(result["started_from"]) if "started_from" in result else own


def _own_minutes(result: Result) -> float:
    seconds: float = result.get("cpu_seconds", result["summary"]["train_seconds"])
    return seconds / 60 * (sum(_peaks(result)) / 2) / REFERENCE_GFLOPS


def _peaks(result: Result) -> tuple[float, float]:
    """GFLOP/s of the type that it computes in, before and after."""
    kind = compute_type(result) + ("_per_cpu_second" if "cpu_seconds" in result else "")
    return result["matrix_gflops"]["before"][kind], result["matrix_gflops"]["after"][kind]


def compute_type(result: Result) -> str:
    """In which type a run computed: machines with units for bfloat16 train in it."""
    return "bfloat16" if result["recipe"].get("runtime", {}).get("precision") == "bf16" else "float32"


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
        restless = max(_peaks(result)) > RESTLESS * min(_peaks(result))
        cells = [ABSENT, ABSENT]
        if beside is not None:
            reached = beside["summary"]["test_top1"]
            longer = f" in {minutes(beside):.0f} minutes" if _is_longer(beside, result) else ""
            cells = [f"[{reached:.2f}](results/{beside['name']}.json){longer}", f"{top1 - reached:+.2f}"]
        rows.append(
            [
                f"{labels:,}",
                f"[{title(result)}](results/{result['name']}.json)",
                compute_type(result),
                f"{'≈ ' if restless else ''}{took:.1f}",
                _steps(result),
                f"**{top1:.2f}**",
                ABSENT if goal is None else str(goal),
                *cells,
            ]
        )
    heads = ["labels", "run", "type", "minutes at 0.4 TFLOP/s", "steps", "test top-1", "goal", "supervised"]
    return table([*heads, "minus supervised"], rows, left=(1, 2))


def _steps(result: Result) -> str:
    own = f"{result['summary']['steps']:,}"
    return f"{result['started_from']['summary']['steps']:,} + {own}" if "started_from" in result else own


BY_CLASSIFIER = ", by its classifier"


def title(result: Result) -> str:
    """What a run is called in tables and plot."""
    recipe = result["recipe"]
    said = f" after {method(result['started_from'])}" if "started_from" in result else ""
    said += ", labels first" if any(recipe["method"].get(key) for key in ("paws_start", "unlabelled_start")) else ""
    if (ramp := recipe["method"].get("paws_ramp")) and not recipe["method"].get("paws_start"):
        said += f", whole after {ramp:.0%}" if ramp not in _USUAL_RAMPS else ""
    test = result["summary"].get("test", {})
    if recipe["method"]["kind"] == "fixmatch" and test.get("predicts_by") == "classifier":
        said += BY_CLASSIFIER
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
    if is_chosen(result):
        said += ", labels chosen by `suggest`"
    said += ", evaluated again" if "evaluated_again" in result else ""
    if _holds_out(result):
        said += ", a part of the labels held out"
    return f"{method(result)}{said}, seed {recipe.get('seed', 0)}"


def is_chosen(result: Result) -> bool:
    """Whether `suggest` chose which images are labelled."""
    return str(result["name"]).startswith("speedrun/chosen_")


def _holds_out(result: Result) -> bool:
    return num_labels(result) != int(result["summary"]["num_labels"])


def _is_muon(result: Result) -> bool:
    return bool(result["recipe"].get("optimizer", {}).get("kind") == "muon")


def _supervised_beside(result: Result, others: Sequence[Result]) -> Result | None:
    """What a run has to beat at equal tuning, in the same time or, for want of that, in more; None without a run."""
    if result["recipe"]["method"]["kind"] == "supervised" or _holds_out(result):
        return None
    alike = [
        other
        for other in others
        if other["recipe"]["method"]["kind"] == "supervised"
        and (num_labels(other), _is_muon(other)) == (num_labels(result), _is_muon(result))
    ]
    in_time = [other for other in alike if not _is_longer(other, result)]
    best = max(in_time, key=lambda other: float(other["summary"]["test_top1"]), default=None)
    return best or min(alike, key=minutes, default=None)


def _is_longer(one: Result, other: Result) -> bool:
    return minutes(one) > LONGEST_OVER_SHORTEST * minutes(other)
