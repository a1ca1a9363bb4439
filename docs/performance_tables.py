"""How fast it is, as tables of Markdown: docs/performance.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from run_tables import ABSENT, METHODS, Result, table

LIGHT_INTRODUCTION = """## Speed of light

How near to the machine's matrix peak the steps of recipes run (an eighth of the batch for `paws_cifar10_4000`), and
where the rest of the time goes; the peak is that of the type in which a recipe computes there. *Network* is the forward
and backward pass with heads and loss, *views* all from the draw to the normalised tensor.
`benchmarks/speed_of_light.py` tells more parts. Of `fixmatch_cifar10_cpu`, these are the steps that see unlabelled
images. *avx2_channels_first*: the same machine before the recipes for CPUs kept the channels of a pixel side by side,
and before memory that is freed was kept for the next step. *avx512_bf16_wide*: a newer processor, whose bfloat16 peak
is twice as high, so that what is no multiplication weighs more.
"""
NETWORK = ("backbone", "heads and loss", "backward")
VIEWS = ("draw", "read", "crop", "colour", "normalise", "views, the rest")

LAYERS_INTRODUCTION = """## The best of every convolution

Each convolution of a step alone, forward and backward, in the faster of both layouts and of the types that the machine
has units for, beside the matrix peak of that type (layers with less than a fiftieth of the operations are left out
of the table, not of the sum). *All of them*: the share of the peak that a step would reach if nothing but convolutions
took any time; what is missing to the peak cannot be had without other kernels. `benchmarks/layers.py`.
"""
SMALL_LAYER = 0.02

SMALL_NET_INTRODUCTION = """## Ways to compute the small network

The forward and backward pass of the network of `paws_cifar10_cpu` on a step's images, alone, in ways that might be
nearer to the peak, taking turns: one thread, CPU seconds, median of rounds; the share is that of the peak of the way's
type. *Pooled by slices*: as the maximum of the four pixels of each square. *Channels last, then first*: the second and
third group compute with channels first, which suits their convolutions when they are alone. *Everything in bfloat16*:
weights and statistics, too, which was not tried in training. *ReLU* instead of GELU and a *wider stem* are other
networks, and show what these cost. `benchmarks/small_net.py`.
"""

SPEED_INTRODUCTION = """## Speed

Measured against the usual way (one PIL image after the other in loader workers, float32, NCHW), taking turns with it;
[benchmarks/](../benchmarks/README.md) explains. Ratios are medians over rounds. Of `views`, which take one thread,
those by CPU seconds are hardly touched by whatever else the machine does; of `step`, with two threads, busy cores touch
both: the file tells the load. *step*: a first measurement, on such cores; *step_avx512_bf16*: the same kind of machine,
quiet.
"""

DISK_INTRODUCTION = """## Views of photographs

The 2 views of 224 and 6 of 96 pixels of `swav_imagenet_400ep` from JPEG files, one core: CPU milliseconds an image, by
part (*colour* ends with normalised float32), and how many times as many images a CPU second takes as the usual way does
(Pillow and torchvision, image after image). `exact` has PIL's values, as published recipes do; `matrix` and `fast` are
settings of `views.*.colour`; ways with `cut` end with uint8 crops, whose colours a GPU distorts.
`benchmarks/views_on_disk.py`.
"""
DISK_PARTS = ("decode_ms", "geometry_ms", "colour_ms")

PROCESSES_INTRODUCTION = """## Two processes or two threads

Images a second of the same training, with the same global batch, on two cores that nothing else used:
`benchmarks/processes.py`. *Efficiency* is over twice the speed of one process of one thread. Two processes exchange
gradients and batch statistics; two threads share out each operation.
"""

GROWTH_INTRODUCTION = """## Growth

How seconds and memory grow when one size grows and the others stay: `benchmarks/growth.py`. Figures go from the
smallest size to the largest; each step of a bar is a doubling. *Doubling* is the factor by which the seconds rise where
the size is doubled, at the end of the curve: 2 is growth in proportion. Memory is the peak of the process, in MB, and
in parentheses what it needed before it began.
"""
BARS = "▁▂▃▄▅▆▇█"

DOCTOR_INTRODUCTION = """## What the collapse doctor costs

Every training is watched (see [tapetum doctor](verbs/doctor.md)). This is the share of a step's time that goes into
it, in small steps, those of recipes for CIFAR-10 on two CPU cores (FixMatch was not measured): the figures (spread of
embeddings, use of codes, length of prototypes), the gradient's norm, which also keeps steps that are not finite from
being taken, and the rules. These look every 10 steps in the runs of 200 steps measured here, and seldomer in longer
ones: every 125 in one of 5,000.
"""

PROBE_INTRODUCTION = """## Linear probe

Seconds of multinomial logistic regression on cached features: scikit-learn's `LogisticRegression` (on standardised
features), ours for the same regularisation, and ours with its choice among eight by cross-validation. Same features,
same process, same number of threads, in turn, median of rounds; accuracy on 10,000 other features. *embedded*: CIFAR-10
(JPEG) as the SwAV run of the [evaluations](results.md#evaluations-side-by-side) embeds it. The objective tells that
neither stopped early.
"""
PROBE_WAYS = ("usual", "fixed", "choice")
PROBE_SETTINGS = ("threads", "regularisation", "machine")


def speed(speed: Mapping[str, Result]) -> str:
    """A line for each benchmark and way."""
    rows = []
    for name, found in speed.items():
        units = ", ".join(found["machine"]["processor_units"]) or "none of them"
        for way, ratio in found["ratio_to_usual"].items():
            rounds = found["rounds"][way]
            cpu = [sample["images_per_cpu_second"] for sample in rounds]
            memory = [sample["peak_memory_mb"] for sample in rounds]
            share = ABSENT
            if "floor" in found:
                share = f"{found['floor']['step_cpu_seconds'] / median(s['step_cpu_seconds'] for s in rounds):.0%}"
            ratios = [f"{ratio[rate]:.2f}" for rate in ("images_per_second", "images_per_cpu_second")]
            link = f"[{name}](results/speed/{name}.json)"
            rows.append([link, way, f"{median(cpu):,.1f}", *ratios, share, f"{median(memory):,.0f}", units])
    heads = ["benchmark", "way", "images per CPU second", "ratio by wall time", "ratio by CPU time"]
    return table([*heads, "share of the floor", "peak memory, MB", "bfloat16 units"], rows, left=(0, 1, 7))


def speed_of_light(light: Mapping[str, Result]) -> str:
    """A line for each machine's file and recipe."""
    rows = []
    for name, found in light.items():
        peaks = (found["matrix_gflops"]["before"], found["matrix_gflops"]["after"])
        for recipe, step in found["recipes"].items():
            kind = "bfloat16" if "bf" in step["precision"] else "float32"
            seconds, parts = step["step_seconds"], step["parts"]
            shares = [sum(parts.get(part, 0.0) for part in group) / seconds for group in (NETWORK, VIEWS)]
            shares += [parts.get("optimiser", 0.0) / seconds]
            rates = [step["gflop_per_step"] / seconds, max(peak[kind] for peak in peaks)]
            cells = [f"{step['gflop_per_step']:.1f}", f"{1000 * seconds:.0f}", *(f"{rate:,.0f}" for rate in rates)]
            cells += [f"**{step['share_of_peak']:.0%}**", *(f"{share:.1%}" for share in (*shares, 1 - sum(shares)))]
            link = f"[{name}](results/speed_of_light/{name}.json)"
            rows.append([link, f"`{recipe}`", kind, *cells])
    heads = ["measured on", "recipe", "type", "GFLOP a step", "step, ms", "GFLOP/s", "matrix peak, GFLOP/s"]
    heads += ["share of the peak", "network", "views", "optimiser", "the rest"]
    return table(heads, rows, left=(0, 1, 2))


def layers(layers: Mapping[str, Result]) -> str:
    """A line for each convolution that counts, and one for all of a recipe's."""
    rows = []
    for name, found in layers.items():
        link = f"[{name}](results/layers/{name}.json)"
        for recipe, step in found["recipes"].items():
            start = [link, f"`{recipe}`"]
            for row in step["layers"]:
                share = row["calls"] * row["gflop"] / step["gflop"]
                if share < SMALL_LAYER:
                    continue
                batch, _, height, width = row["shape"][:4]
                cells = [row["layer"], f"{batch} x {height}x{width}", str(row["calls"]), f"{share:.0%}", row["best"]]
                rows.append([*start, *cells, f"{row['gflops']:,.0f}", f"{row['share_of_peak']:.0%}"])
            calls = sum(row["calls"] for row in step["layers"])
            cells = ["all of them", ABSENT, str(calls), "100%", ABSENT, f"{step['gflop'] / step['seconds']:,.0f}"]
            rows.append([*start, *cells, f"**{step['share_of_peak']:.0%}**"])
    heads = ["measured on", "recipe", "convolution", "images", "times a step", "of the operations", "best way"]
    return table([*heads, "GFLOP/s", "share of the peak"], rows, left=(0, 1, 2, 3, 6))


def small_net(small_net: Mapping[str, Result]) -> str:
    """A line for each machine's file and way."""
    rows = []
    for name, found in small_net.items():
        link, shipped = f"[{name}](results/small_net/{name}.json)", median(found["ways"]["as shipped"]["cpu_seconds"])
        for way, one in found["ways"].items():
            seconds = median(one["cpu_seconds"])
            cells = [f"{one['gflop']:.1f}", f"{1000 * seconds:.0f}", f"{one['share_of_peak']:.0%}"]
            rows.append([link, way, one["type"], *cells, f"**{seconds / shipped:.2f}**"])
    heads = ["measured on", "way", "type", "GFLOP", "CPU ms", "share of the peak", "times the shipped way's"]
    return table(heads, rows, left=(0, 1, 2))


def views_on_disk(views: Mapping[str, Result]) -> str:
    """A line for each machine's file and way."""
    rows = []
    for name, found in views.items():
        link = f"[{name}](results/views_on_disk/{name}.json)"
        for way, samples in found["rounds"].items():
            parts = [
                f"{median(sample[part] for sample in samples):.1f}" if part in samples[0] else ABSENT
                for part in DISK_PARTS
            ]
            whole = f"{median(sample['cpu_ms'] for sample in samples):.1f}"
            memory = f"{median(sample['peak_memory_mb'] for sample in samples):,.0f}"
            ratio = f"**{found['ratio_to_usual'][way]['images_per_cpu_second']:.2f}**"
            rows.append([link, f"`{way}`", whole, *parts, ratio, memory])
    heads = ["measured on", "way", "CPU ms an image", "decoding", "cropping and resizing", "colours"]
    return table([*heads, "times the usual way", "peak memory, MB"], rows, left=(0, 1))


def processes(processes: Mapping[str, Result]) -> str:
    """A line for each machine's file and recipe."""
    rows = []
    for name, found in processes.items():
        link = f"[{name}](results/processes/{name}.json)"
        for recipe, one in found["recipes"].items():
            rates = [f"{one['images_per_second'][way]:,.1f}" for way in ("one", "threads", "processes")]
            shares = [f"{one['efficiency'][way]:.0%}" for way in ("threads", "processes")]
            rows.append([link, f"`{recipe}`", *rates, *shares, f"**{one['processes_over_threads']:.2f}**"])
    heads = ["measured on", "recipe", "one process, one thread", "one process, two threads", "two processes"]
    heads += ["efficiency of two threads", "of two processes", "processes over threads"]
    return table(heads, rows, left=(0, 1))


def growth(growth: Mapping[str, Result]) -> str:
    """A line for each machine's file and curve, and for what a process needs to start."""
    rows = []
    for name, found in growth.items():
        link, threads = f"[{name}](results/growth/{name}.json)", str(found["threads"])
        for what, seconds in found["starts"].items():
            rows.append([link, threads, f"`{what}`", ABSENT, ABSENT, f"{seconds:.2f}", ABSENT, ABSENT])
        for curve in found["curves"].values():
            points = curve["points"]
            sizes, seconds, peaks = ([p[key] for p in points] for key in ("size", "seconds", "peak_memory_mb"))
            start = points[0]["start_memory_mb"]
            shown = [", ".join(f"{size:,}" for size in sizes), ", ".join(f"{value:.3g}" for value in seconds)]
            memory = f"{', '.join(f'{peak:,.0f}' for peak in peaks)} ({start:,.0f}) {bars(peaks)}"
            cells = [shown[0], f"{shown[1]} {bars(seconds)}", doubling(sizes, seconds), memory]
            rows.append([link, threads, curve["what"], curve["axis"], *cells])
    heads = ["measured on", "threads", "what", "what grows", "sizes", "seconds", "doubling", "memory"]
    return table(heads, rows, left=(0, 2, 3, 4, 5, 7))


def bars(values: Sequence[float]) -> str:
    """A bar for each value above 0: the least has the lowest, and every doubling from there adds a step."""
    steps = (round(math.log2(value / min(values))) for value in values)
    return "".join(BARS[min(step, len(BARS) - 1)] for step in steps)


def doubling(sizes: Sequence[float], values: Sequence[float]) -> str:
    """The factor by which values rise where the size is doubled, between the last two of them."""
    if len(sizes) < 2:
        return ABSENT
    slope = math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])
    return f"**{2**slope:.2f}**"


def doctor(doctor: Mapping[str, Result]) -> str:
    """A line for each machine's file and method."""
    rows = []
    for name, found in doctor.items():
        for kind, cost in found["methods"].items():
            norm, rules = (cost["parts"].get(part, 0.0) for part in ("get_total_norm", "on_steps"))
            shares = [f"{share:.2%}" for share in (cost["share"] - norm - rules, norm, rules)]
            link = f"[{name}](results/doctor/{name}.json)"
            step = f"{1000 * cost['step_seconds']:.0f}"
            rows.append([link, METHODS.get(kind, kind), step, *shares, f"**{cost['share']:.2%}**"])
    heads = ["measured on", "method", "step, ms", "figures", "gradient norm", "rules", "together"]
    return table(heads, rows, left=(0, 1))


def linear_probe(probes: Mapping[str, Result]) -> str:
    """A line for each kind of features."""
    rows = []
    for name, found in probes.items():
        link = f"[{name}](results/linear_probe/{name}.json)"
        for kind, measured in ((kind, value) for kind, value in found.items() if kind not in PROBE_SETTINGS):
            middle, size = measured["median"], " x ".join(f"{n:,}" for n in measured["features"])
            seconds = [f"{middle[f'{way}_seconds']:.2f}" for way in PROBE_WAYS]
            accuracies = [f"{middle[f'{way}_accuracy']:.2f}" for way in PROBE_WAYS]
            objectives = [f"{middle[f'{way}_objective']:.5f}" for way in PROBE_WAYS[:2]]
            rows.append([link, kind, size, *seconds, f"**{middle['usual_over_fixed']:.1f}**", *accuracies, *objectives])
    ways = ("scikit-learn", "ours", "ours with choice")
    heads = ["measured", "features", "size", *(f"seconds, {way}" for way in ways), "ratio"]
    heads += [f"top-1, {way}" for way in ways]
    return table([*heads, *(f"objective, {way}" for way in ways[:2])], rows, left=(0, 1))
