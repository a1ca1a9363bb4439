"""Recorded runs as tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Result = dict[str, Any]
DATA_SETS = {
    "cifar10": "CIFAR-10 (JPEG)",
    "cifar-10-batches-py": "CIFAR-10",
    "digits": "scikit-learn's digits",
    "fashion": "Fashion-MNIST",
    "pool": "CIFAR-10 (JPEG) enlarged to about 100 pixels",
}
"""Headings by the last folder of `data.images`; what is not here is called by that folder."""
METHODS = {
    "paws": "PAWS",
    "ropaws": "RoPAWS",
    "suncet": "SimCLR+CT (SuNCEt)",
    "suave": "Suave",
    "fixmatch": "FixMatch",
    "simclr": "SimCLR",
    "swav": "SwAV",
    "deepcluster": "DeepCluster-v2",
    "sela": "SeLa-v2",
    "frozen": "untrained network",
    "pixels": "raw pixels",
}
WITHOUT_LABELS = ("swav", "deepcluster", "sela", "simclr")
"""Methods that no label takes part in; labels only judge them."""
FLOORS = ("frozen", "pixels")
"""What trains nothing."""
LONGEST_OVER_SHORTEST = 1.25
"""Runs whose training times differ by a larger factor are not compared."""
ABSENT = "–"
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 16


def overview(group: Sequence[Result]) -> str:
    """A line for each number of labels, method and length: mean and range over runs."""
    rows = []
    for runs in _alike(group):
        figures = [r["summary"]["test_top1"] for r in runs if r["summary"].get("test_top1") is not None]
        deltas = [delta for r in runs if (delta := difference(r, group)) is not None]
        spread = [ABSENT] * 3
        if figures:
            spread = [f"**{mean(figures):.2f}**", f"{min(figures):.2f}", f"{max(figures):.2f}"]
        delta = f"{mean(deltas):+.2f}" if deltas else ABSENT
        seconds = mean([r["summary"]["train_seconds"] for r in runs])
        labels = f"{runs[0]['summary']['num_labels']:,}"
        rows.append([labels, method(runs[0]), f"{seconds:,.0f}", str(len(runs)), *spread, delta])
    heads = ["labels", "method", "train seconds, mean", "runs", "test top-1, mean", "lowest", "highest"]
    return table([*heads, "minus supervised"], rows, left=(1,))


def without_labels(group: Sequence[Result]) -> str:
    """A line for each run, the best last, and how far above the floors it is."""
    floors = {_kind(r): votes for r in group if _kind(r) in FLOORS and (votes := _knn(r)) is not None}
    rows = []
    for result in sorted(
        group, key=lambda r: (_kind(r) not in FLOORS, r["summary"]["train_seconds"] // 900, _knn(r) or 0)
    ):
        summary, reached = result["summary"], _knn(result)
        above = [
            ABSENT
            if reached is None or floor not in floors or _kind(result) in FLOORS
            else f"{reached - floors[floor]:+.2f}"
            for floor in FLOORS
        ]
        rows.append(
            [
                f"[{method(result)}](results/{result['name']}.json)",
                f"{summary['train_seconds'] / 60:.1f}",
                f"{summary['steps']:,}",
                _rate(summary),
                _memory(summary),
                ABSENT if reached is None else f"**{reached:.2f}**",
                *above,
            ]
        )
    heads = ["method", "train minutes", "steps", "images/s", "memory", "test top-1, k-NN"]
    return table([*heads, "minus untrained network", "minus raw pixels"], rows, left=(0,))


def runs(group: Sequence[Result]) -> str:
    rows = []
    for result in sorted(group, key=_order):
        summary, delta = result["summary"], difference(result, group)
        rows.append(
            [
                f"[{result['name']}](results/{result['name']}.json)",
                method(result),
                f"{summary['num_labels']:,}",
                str(result["recipe"].get("seed", 0)),
                f"{summary['steps']:,}",
                f"{summary['images_seen']:,}",
                f"{summary['train_seconds']:,.0f}",
                _rate(summary),
                _memory(summary),
                _top1(summary, "soft_neighbours"),
                _top1(summary, "classifier"),
                ABSENT if _knn(result) is None else f"{_knn(result):.2f}",
                ABSENT if delta is None else f"{delta:+.2f}",
                _peaks(result),
                _curve(result),
            ]
        )
    heads = ["run", "method", "labels", "seed", "steps", "images seen", "train seconds", "images/s", "memory"]
    heads += ["test top-1, soft-NN", "test top-1, classifier", "test top-1, k-NN", "minus supervised"]
    return table([*heads, "matrix peak, before and after", "curve"], rows, left=(0, 1, 14))


def is_without_labels(result: Result) -> bool:
    """Whether labels only judge what was learned."""
    data, kind = result["recipe"]["data"], result["recipe"]["method"]["kind"]
    return kind in WITHOUT_LABELS or (kind in FLOORS and data.get("labels_per_class") is None)


def data_set(result: Result) -> str:
    """The name under which a result stands."""
    images = str(result["recipe"]["data"]["images"])
    return DATA_SETS.get(images, images)


def method(result: Result) -> str:
    """The method, with what sets a run apart from the method's plain use."""
    section = result["recipe"]["method"]
    name = str(METHODS.get(section["kind"], section["kind"]))
    is_paws = section["kind"] in ("paws", "ropaws")  # these terms are no part of them as published
    if is_paws and any(section.get(weight) for weight in ("supervised_weight", "suncet_weight")):
        name += " with supervised terms"
    if section["kind"] == "pixels":
        name += f" (the nearest alone: {result['summary']['test']['nearest_neighbour']:.2f})"
    name = name if _is_whole(result) else f"{name}, labelled images only"
    return f"{name}, chosen by fit" if result.get("command", "").startswith("tapetum fit") else name


def difference(result: Result, others: Iterable[Result]) -> float | None:
    """Test top-1 of a run that labels take part in minus that of the supervised runs beside it; None without a pair."""
    top1 = result["summary"].get("test_top1")
    if _kind(result) in ("supervised", *FLOORS, *WITHOUT_LABELS) or not _is_whole(result) or top1 is None:
        return None
    beside = [other for other in others if _comparable(result, other)]
    same_labels = [other for other in beside if _label_seed(other) == _label_seed(result)]
    figures = [other["summary"]["test_top1"] for other in same_labels or beside]
    return float(top1 - sum(figures) / len(figures)) if figures else None


def _kind(result: Result) -> str:
    return str(result["recipe"]["method"]["kind"])


def _knn(result: Result) -> float | None:
    votes = ((result["summary"].get("test") or {}).get("nearest_neighbours") or {}).get("20")
    return None if votes is None else float(votes["top1"])


def _rate(summary: Result) -> str:
    seen, seconds = summary["images_seen"], summary["train_seconds"]
    return f"{seen / seconds:,.0f}" if seen and seconds else ABSENT


def _memory(summary: Result) -> str:
    return f"{summary['peak_memory_mb']:,}" if summary.get("peak_memory_mb") else ABSENT


def _is_whole(result: Result) -> bool:
    """Whether the run was given all that its method can use; an ablation without unlabelled images was not."""
    section, data = result["recipe"]["method"], result["recipe"]["data"]
    return section["kind"] in ("supervised", *FLOORS) or bool(data.get("pool", True))


def _comparable(result: Result, other: Result) -> bool:
    if _kind(other) != "supervised" or other["summary"].get("test_top1") is None:
        return False
    seconds = sorted(r["summary"]["train_seconds"] for r in (result, other))
    sections = ("backbone", "views")
    return (
        data_set(other) == data_set(result)
        and other["summary"]["num_labels"] == result["summary"]["num_labels"]
        and all(other["recipe"].get(name) == result["recipe"].get(name) for name in sections)
        and seconds[1] <= LONGEST_OVER_SHORTEST * seconds[0]
    )


def _label_seed(result: Result) -> int:
    return int(result["recipe"]["data"].get("label_seed", 0))


def _order(result: Result) -> tuple[int, str, int, str]:
    return -result["summary"]["num_labels"], method(result), int(result["recipe"].get("seed", 0)), result["name"]


def _alike(group: Sequence[Result]) -> list[list[Result]]:
    """Runs of one method and number of labels whose training times are close to that of the shortest of them."""

    def kind(result: Result) -> tuple[int, str]:
        return -result["summary"]["num_labels"], method(result)

    found: list[list[Result]] = []
    for result in sorted(group, key=lambda r: (*kind(r), r["summary"]["train_seconds"], r["name"])):
        seconds = result["summary"]["train_seconds"]
        if found and kind(found[-1][0]) == kind(result):
            shortest = found[-1][0]["summary"]["train_seconds"]
            if seconds <= LONGEST_OVER_SHORTEST * shortest:
                found[-1].append(result)
                continue
        found.append([result])
    return found


def _top1(summary: Result, judge: str) -> str:
    test = summary.get("test") or {}
    if not test.get(judge):
        return ABSENT
    figure = f"{test[judge]['top1']:.2f}"
    return f"**{figure}**" if test.get("predicts_by") == judge else figure


def _peaks(result: Result) -> str:
    peaks = result.get("matrix_gflops") or {}
    values = [peaks.get(when, {}).get("bfloat16") for when in ("before", "after")]
    return ", ".join(ABSENT if value is None else f"{value:,.0f}" for value in values)


def _curve(result: Result) -> str:
    points = result.get("curve") or []
    keys = sorted({key for point in points for key in point if key.startswith("eval/")}) or ["train/loss"]
    values = [point[keys[0]] for point in points if keys[0] in point]
    if len(values) < 2:
        return ABSENT
    chosen = [values[i * (len(values) - 1) // (_CURVE_WIDTH - 1)] for i in range(_CURVE_WIDTH)]
    low, high = min(chosen), max(chosen)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return f"{keys[0]} {''.join(_BARS[round((value - low) * scale)] for value in chosen)}"


def mean(figures: Sequence[float]) -> float:
    return sum(figures) / len(figures)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    if wrong := [row for row in rows if len(row) != len(heads)]:
        raise ValueError(f"a table of {len(heads)} columns has a row of {len(wrong[0])}: {wrong[0]}")
    rule = ["---" if column in left else "---:" for column in range(len(heads))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [heads, rule, *rows])
