"""What a step would cost on many GPUs: operations and bytes counted, seconds reckoned on paper. Nothing is measured.

    python benchmarks/cost_model.py        # writes the tables of docs/performance_gpu.md anew

The step of a recipe runs on tensors without values, as the first of 64 processes (`exchange.py`), so operations and
collectives are those of the code as it is; other numbers of GPUs follow from these, because sizes in a recipe are
global. What DistributedDataParallel sends is added by its own rules. Only the seconds rest on the assumptions below.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from exchange import Exchange, pretended
from torch.utils.flop_counter import FlopCounterMode

from tapetum.data.batch import Batch, Views
from tapetum.losses import paws as paws_losses
from tapetum.methods.base import Method, Progress
from tapetum.methods.registry import method_class
from tapetum.nn import batch_norm
from tapetum.nn.backbones import build_backbone
from tapetum.ops import sinkhorn, soft_neighbours
from tapetum.recipe.recipe import Recipe, load_recipe

PAGE = Path(__file__).parents[1] / "docs" / "performance_gpu.md"
RECIPES = ("paws_imagenet_10percent_100ep", "swav_imagenet_400ep")
COUNTED, GPUS = 64, (1, 8, 64, 512)
"""The number of processes for which a step is counted, and those that the tables show."""
NUM_CLASSES, NUM_IMAGES = 1000, 1_281_167

PEAKS = {"A100": 312e12, "H100": 989e12}
"""Operations a second in bfloat16, dense, of the data sheets."""
SHARE = 0.4
"""Share of the peak that forward and backward reach."""
PER_MACHINE = 8
INSIDE, BETWEEN = 300e9, 25e9
"""Bytes a second that a GPU sends: to others of its machine (NVLink), and to other machines (200 Gb/s for each GPU)."""
LATENCY = 20e-6
"""Seconds that a collective takes however little it sends."""
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20
"""Bytes of the gradients that DistributedDataParallel sends together."""
PUBLISHED = {"recipe": "swav_imagenet_400ep", "gpus": 64, "peak": 125e12, "epoch_seconds": 220.0}
"""SwAV's README: 3 min 40 s an epoch on 64 V100 with 16 GB, whose peak in float16 is 125 TFLOP/s."""

GRADIENTS, FLAGS, BUFFERS = "gradients", "which parameters were used", "running statistics"
SHARED = "supports and their labels"
"""Its results have as many rows for any number of GPUs; other results of an all-gather have a row of each."""
PLACES: tuple[tuple[Any, str, str], ...] = (
    (batch_norm, "gather_rows", "BatchNorm, forward"),
    (batch_norm, "sum_over_ranks", "BatchNorm, backward"),
    (soft_neighbours, "gather_rows", SHARED),
    (paws_losses, "mean_over_ranks", "mean entropy"),
    (sinkhorn, "gather_rows", "Sinkhorn"),
)
REST = "supports, backward"
"""Collectives of a loss's backward pass, which starts in torch: only `gather_rows` has any."""


@dataclass
class Step:
    """What one process does in one step."""

    gpus: int
    images: int
    """Unlabelled images of this process."""
    forward: float = 0.0
    backward: float = 0.0
    """Floating-point operations: multiplications and additions of convolutions and matrix products."""
    sent: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    """What for -> collectives in order, with the bytes of their results."""

    def among(self, gpus: int) -> Step:
        """The same step with other numbers of GPUs: queries meet the anchors of all, so operations are shared out."""
        share = self.gpus / gpus
        step = Step(gpus, round(self.images * share), self.forward * share, self.backward * share)
        for what, calls in self.sent.items() if gpus > 1 else ():
            for kind, size in calls:
                grows = kind == "all-gather" and what != SHARED
                step.sent[what].append((kind, round(size / share) if grows else size))
        return step

    def bytes_sent(self, what: str) -> float:
        """Bytes that a process sends in a ring: a result of n parts passes n - 1 times, in an all-reduce twice."""
        return sum(_factor(kind, self.gpus) * size for kind, size in self.sent.get(what, ()))

    def seconds(self, what: str) -> float:
        """Time on the wire and the latencies."""
        speed = INSIDE if self.gpus <= PER_MACHINE else BETWEEN
        return self.bytes_sent(what) / speed + LATENCY * len(self.sent.get(what, ()))

    def shares(self, peak: float) -> tuple[float, float, float]:
        """Seconds of computing; shares of the step in communication if nothing is overlapped, and if gradients are."""
        rate = SHARE * peak
        computing = (self.forward + self.backward) / rate
        gradients = self.seconds(GRADIENTS)
        waiting = sum(self.seconds(what) for what in self.sent if what != GRADIENTS)
        # The last bucket is only full when the backward pass has ended.
        left = max(gradients - self.backward / rate, gradients / max(1, len(self.sent.get(GRADIENTS, ()))))
        plain, hidden = waiting + gradients, waiting + left
        return computing, plain / (computing + plain), hidden / (computing + hidden)


def _factor(kind: str, gpus: int) -> float:
    return (2 if kind == "all-reduce" else 1) * (gpus - 1) / gpus


def batch_of(recipe: Recipe, gpus: int) -> Batch:
    """A process's share, without values."""
    assert recipe.data.batch_size is not None
    images, views = recipe.data.batch_size // gpus, recipe.views
    kinds = [kind for kind in (views.large, views.small) if kind is not None]

    def of(count: int, size: int) -> torch.Tensor:
        return torch.empty(count, 3, size, size, device="meta")

    groups = tuple(of(kind.count * images, kind.size) for kind in kinds)
    batch = Batch(Views(groups, tuple(kind.count for kind in kinds)), torch.empty(images, device="meta"))
    if recipe.support is not None and recipe.support.images_per_class is not None:
        classes = recipe.support.classes_per_batch or NUM_CLASSES
        supports = classes * recipe.support.images_per_class // gpus
        batch.support = Views((of(views.support_views * supports, views.large.size),), (views.support_views,))
        batch.support_labels = torch.empty(supports, dtype=torch.int64, device="meta")
        batch.support_classes = torch.empty(classes, dtype=torch.int64, device="meta")
    return batch


def _named(exchange: Exchange, step: Step, stack: ExitStack) -> None:
    """Have every collective say what it is for."""
    current = [REST]

    def around(function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def named(*args: Any) -> Any:
            current.append(what)
            try:
                return function(*args)
            finally:
                current.pop()

        return named

    for owner, name, what in PLACES:
        stack.enter_context(mock.patch.object(owner, name, around(getattr(owner, name), what)))
    exchange.note = lambda kind, size: step.sent[current[-1]].append((kind, size))


def count(recipe: Recipe, gpus: int = COUNTED) -> Step:
    """Run a step of a process without values, long after the start, and count."""
    assert recipe.data.batch_size is not None
    batch = batch_of(recipe, gpus)
    step = Step(gpus, recipe.data.batch_size // gpus)
    with pretended(gpus) as exchange, ExitStack() as stack:
        _named(exchange, step, stack)
        with torch.device("meta"):
            backbone = build_backbone(recipe.backbone)
            method = method_class(recipe.method.kind)(
                recipe.method, backbone, num_classes=NUM_CLASSES, num_images=NUM_IMAGES
            )
        if gpus > 1:
            batch_norm.convert_batch_norm(method)
        per_epoch = NUM_IMAGES // recipe.data.batch_size
        with FlopCounterMode(display=False) as forward:
            loss = method(batch, Progress(50 * per_epoch, per_epoch, 100 * per_epoch)).loss
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    step.forward, step.backward = forward.get_total_flops(), backward.get_total_flops()
    if gpus > 1:
        add_ddp(step, method)
    return step


def add_ddp(step: Step, method: Method) -> None:
    """What DistributedDataParallel sends: gradients in buckets, a flag a parameter, and rank 0's buffers by type."""
    gradients = [p.grad.nbytes for p in method.parameters() if p.grad is not None]
    total = sum(gradients)
    sizes = [FIRST_BUCKET, *[BUCKET] * math.ceil((total - FIRST_BUCKET) / BUCKET)]
    sizes[-1] -= sum(sizes) - total
    step.sent[GRADIENTS] = [("all-reduce", size) for size in sizes]
    step.sent[FLAGS] = [("all-reduce", 4 * len(gradients))]
    buffers: dict[torch.dtype, int] = defaultdict(int)
    for buffer in method.buffers():
        buffers[buffer.dtype] += buffer.nbytes
    step.sent[BUFFERS] = [("broadcast", size) for size in buffers.values()]


def table(heads: list[str], rows: list[list[str]], left: int) -> str:
    """Markdown, with so many columns aligned to the left."""
    rule = ["---" if i < left else "---:" for i in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def bytes_table(steps: Mapping[int, Step]) -> str:
    """A line for each purpose."""
    many = [step for gpus, step in steps.items() if gpus > 1]
    rows = []
    for what, calls in many[0].sent.items():
        kinds = " and ".join(sorted({kind for kind, _ in calls}))
        rows.append([what, kinds, str(len(calls)), *(f"{step.bytes_sent(what) / 1e6:,.3f}" for step in many)])
    together = [f"{sum(step.bytes_sent(what) for what in step.sent) / 1e6:,.3f}" for step in many]
    rows.append(["together", "", str(sum(map(len, many[0].sent.values()))), *together])
    heads = ["what for", "collective", "calls", *(f"MB, {step.gpus} GPUs" for step in many)]
    return table(heads, rows, left=2)


def seconds_table(steps: Mapping[int, Step]) -> str:
    """A line for each number of GPUs and kind of GPU."""
    rows = []
    for name, peak in PEAKS.items():
        for gpus, step in steps.items():
            computing, plain, hidden = step.shares(peak)
            parts = [sum(step.seconds(w) for w in step.sent if w in group) for group in ((GRADIENTS,), _norms(step))]
            parts.append(sum(step.seconds(what) for what in step.sent) - sum(parts))
            sizes = [f"{step.images:,}", f"{(step.forward + step.backward) / 1e12:,.2f}"]
            times = [f"{1000 * seconds:,.1f}" for seconds in (computing, *parts)]
            rows.append([name, str(gpus), *sizes, *times, f"{plain:.0%}", f"**{hidden:.0%}**"])
    heads = ["GPU", "GPUs", "images each", "TFLOP each", "computing, ms", "gradients, ms", "BatchNorm, ms"]
    return table([*heads, "the rest, ms", "share, nothing overlapped", "share, gradients overlapped"], rows, left=1)


def _norms(step: Step) -> tuple[str, ...]:
    return tuple(what for what in step.sent if what.startswith("BatchNorm"))


def yardstick(steps: Mapping[int, Step]) -> str:
    """How far the published training was from the assumed share of the peak."""
    step, seconds = steps[PUBLISHED["gpus"]], PUBLISHED["epoch_seconds"]
    work = (step.forward + step.backward) * (NUM_IMAGES // (step.images * step.gpus))
    share = work / seconds / PUBLISHED["peak"]
    text = (
        f"How optimistic {SHARE:.0%} is: the published SwAV took {seconds:.0f} s an epoch on {step.gpus} V100. By the"
        f" same count of operations that is **{share:.1%}** of their peak, with reading images, communication and"
        " everything else. Slower computing makes the shares of communication smaller than below."
    )
    return textwrap.fill(text, 120)


def tables() -> dict[str, str]:
    """Name of a place in the page -> what belongs there."""
    made: dict[str, str] = {}
    for name in RECIPES:
        counted = count(load_recipe(name))
        steps = {gpus: counted.among(gpus) for gpus in GPUS}
        made[f"bytes of {name}"], made[f"seconds of {name}"] = bytes_table(steps), seconds_table(steps)
        if name == PUBLISHED["recipe"]:
            made["yardstick"] = yardstick(steps)
    return made


def filled(page: str, made: Mapping[str, str]) -> str:
    """The page with every table in its place.

    Raises:
        ValueError: the page lacks a place.
    """
    for name, text in made.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, found, after = page.partition(begin)
        if not found or end not in after:
            raise ValueError(f"docs/performance_gpu.md has no place for {name!r}: add {begin!r} and {end!r}.")
        page = before + begin + text + "\n" + after[after.index(end) :]
    return page


if __name__ == "__main__":
    try:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"cost_model: error: {error}")
    print(f"Written: {PAGE.name}")
