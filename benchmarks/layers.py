"""How fast every convolution of a training step can be here, whatever layout and type it is given.

    python benchmarks/layers.py [--recipes paws_cifar10_4000 paws_cifar10_cpu ...] [--threads 2] [--json FILE]

One step of a recipe says which convolutions it computes, and on what shapes. Each is then timed alone, forward and
backward, in every layout and type that may pay, and its best stands beside the matrix peak of that type. A step in
which everything else took no time would reach what the last line says, and no more without kernels of our own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from side_by_side import machine, peaks, save_photographs, write_json
from speed_of_light import POOL, RECIPES, settings_of
from torch import Tensor, nn

import tapetum

LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Layer(NamedTuple):
    """A convolution and the images that it is given."""

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    passes_gradient_on: bool
    """False for the first layer: nobody asks for the gradient of pixels."""

    def name(self) -> str:
        """For people, without the batch."""
        stride = f" / {self.stride}" if self.stride > 1 else ""
        return f"{self.kernel}x{self.kernel}{stride}, {self.in_channels} to {self.out_channels}"

    def gflop(self) -> float:
        """Multiplications and additions, forward and backward, those with the padding counted, in billions."""
        height, width = (
            (size + 2 * self.padding - self.kernel) // self.stride + 1 for size in (self.height, self.width)
        )
        weights = self.in_channels * self.out_channels * self.kernel**2
        return 2 * self.batch * height * width * weights * (3 if self.passes_gradient_on else 2) / 1e9


def layers_of(recipe: str, threads: int) -> Counter[Layer]:
    """The convolutions of one step of a recipe's training, each with how often it is computed."""
    found: Counter[Layer] = Counter()
    convolve = nn.Conv2d._conv_forward

    def noted(self: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_grad_enabled():  # evaluations are not steps
            padding = self.padding[0]
            assert isinstance(padding, int)
            sizes = (images.shape[0], self.in_channels, *images.shape[2:], self.out_channels)
            found[Layer(*sizes, self.kernel_size[0], self.stride[0], padding, images.requires_grad)] += 1
        return convolve(self, images, weight, bias)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(nn.Conv2d, "_conv_forward", noted):
        images = save_photographs(Path(folder), POOL)
        tapetum.train(recipe, Path(folder) / "run", settings_of(recipe, images, 1, threads))
    return found


def seconds_of(layer: Layer, layout: torch.memory_format, kind: torch.dtype, repeats: int) -> float:
    """The best of some forward and backward passes of a convolution alone, after one that builds kernels."""
    images = torch.randn(layer[:4]).to(kind).contiguous(memory_format=layout)
    weight = torch.randn(layer.out_channels, layer.in_channels, layer.kernel, layer.kernel).to(kind)
    weight = weight.contiguous(memory_format=layout)
    settings = ([layer.stride] * 2, [layer.padding] * 2, [1, 1])

    def forward() -> Tensor:
        return torch.nn.functional.conv2d(images, weight, None, *settings)

    gradient = torch.randn_like(forward())
    wanted = [layer.passes_gradient_on, True, False]

    def backward() -> None:
        torch.ops.aten.convolution_backward(gradient, images, weight, None, *settings, False, [0, 0], 1, wanted)

    return best(forward, repeats) + best(backward, repeats)


def best(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of some calls, after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def measure(layers: Counter[Layer], matrix_gflops: dict[str, float], repeats: int) -> list[dict[str, Any]]:
    """Time every layer in every layout, and in the types that this machine multiplies no slower than float32."""
    kinds = {name: kind for name, kind in TYPES.items() if matrix_gflops[name] >= matrix_gflops["float32"]}
    rows = []
    for layer, calls in sorted(layers.items(), key=lambda item: -item[1] * item[0].gflop()):
        ways = {
            f"{name}, {layout}": seconds_of(layer, order, kind, repeats)
            for name, kind in kinds.items()
            for layout, order in LAYOUTS.items()
        }
        way = min(ways, key=lambda name: ways[name])
        row = {"layer": layer.name(), "shape": list(layer), "calls": calls, "gflop": layer.gflop(), "seconds": ways}
        rows.append({**row, "best": way, "gflops": layer.gflop() / ways[way]})
    return rows


def summarise(rows: list[dict[str, Any]], peak: dict[str, float]) -> dict[str, float]:
    """Give every layer its share of its type's peak; return the same of a step that consists of them alone.

    Of a step, the share is that of the faster type's peak: a layer that is best in float32 falls short of it, too.
    """
    for row in rows:
        row["share_of_peak"] = row["gflops"] / peak[row["best"].partition(",")[0]]
    gflop = sum(row["calls"] * row["gflop"] for row in rows)
    seconds = sum(row["calls"] * row["seconds"][row["best"]] for row in rows)
    return {"gflop": gflop, "seconds": seconds, "share_of_peak": gflop / seconds / max(peak.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["paws_cifar10_4000", "paws_cifar10_cpu"], choices=RECIPES)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each layer and way; the best counts")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = peaks(options.threads)
    recipes: dict[str, Any] = {
        recipe: {"layers": measure(layers_of(recipe, options.threads), before, options.repeats)}
        for recipe in options.recipes
    }
    after = peaks(options.threads)
    peak = {name: max(before[name], after[name]) for name in TYPES}
    for recipe, found in recipes.items():
        found |= summarise(found["layers"], peak)
        for row in found["layers"]:
            print(
                f"{row['calls']:>3} x {row['layer']:<22} of {row['shape'][0]:>4} x {row['shape'][2]}x{row['shape'][3]}"
                f"{row['gflops']:8.0f} GFLOP/s{row['share_of_peak']:6.0%}  {row['best']}"
            )
        print(f"{recipe}: {found['share_of_peak']:.0%} of the peak, if nothing else took any time\n")
    result = {"threads": options.threads, "repeats": options.repeats, "recipes": recipes, "machine": machine()}
    write_json(options.json, {**result, "matrix_gflops": {"before": before, "after": after}})


if __name__ == "__main__":
    main()
