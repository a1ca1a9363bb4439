"""Ways to compute the small network's forward and backward pass, taking turns: which of them comes nearer to the peak.

    python benchmarks/small_net.py [--rounds 5] [--json docs/results/small_net/MACHINE.json]

The network and images are those of a step of `paws_cifar10_cpu`. One thread, CPU seconds: other programs hardly touch
these. Some ways compute something else (float32, ReLU, a wider stem, statistics in bfloat16); they show what keeps the
time. Without a C++ compiler, the compiled way is left out.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import torch
from side_by_side import machine, peaks, write_json
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tapetum.nn.small_net import SmallNet, SmallNetConfig

IMAGES = 2 * 64 + 80
"""Two views of each of the batch's images, and a view of 8 supports of each of ten classes."""
PIXELS = 24
WIDTHS = (32, 128, 128)
PASSES = 4
"""Passes of each round."""


class Way(NamedTuple):
    """How the network computes, and what it is."""

    images: torch.dtype = torch.float32
    autocast: bool = True
    layout: torch.memory_format = torch.channels_last
    compiled: bool = False
    last_groups_first: bool = False
    """The second and third group compute on maps with the channels first."""
    slices: bool = False
    """Pool by the maximum of the map's four quarters, instead of by torch's pooling."""
    config: SmallNetConfig = SmallNetConfig(widths=WIDTHS)


WAYS = {
    "as shipped": Way(),
    "compiled": Way(compiled=True),
    "channels first": Way(layout=torch.contiguous_format),
    "channels last, then first": Way(last_groups_first=True),
    "pooled by slices": Way(slices=True),
    "everything in bfloat16": Way(images=torch.bfloat16, autocast=False),
    "float32": Way(autocast=False),
    "ReLU": Way(config=SmallNetConfig(widths=WIDTHS, activation="relu")),
    "stem of 32 channels": Way(config=SmallNetConfig(widths=WIDTHS, stem=32)),
}


class ChannelsFirst(nn.Module):
    """Lays a map out anew."""

    def forward(self, images: Tensor) -> Tensor:
        return images.contiguous()


def slices_pooled(images: Tensor, size: int) -> Tensor:
    """Maximum over squares of 2 x 2 pixels; gradients of equal maxima are shared out."""
    assert size == 2
    height, width = (side // 2 * 2 for side in images.shape[-2:])
    corners = [images[..., top:height:2, left:width:2] for top in (0, 1) for left in (0, 1)]
    return torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))


def network_of(way: Way) -> nn.Module:
    """A new network that computes in this way."""
    torch.manual_seed(0)
    network = SmallNet(way.config).to(way.images)
    if way.last_groups_first:
        network.stem.to(memory_format=way.layout)
        network.groups[0].to(memory_format=way.layout)
        network.groups.insert(1, ChannelsFirst())
    else:
        network.to(memory_format=way.layout)
    if way.compiled:
        network.compile(dynamic=False)
    return network


@contextmanager
def pooling(way: Way) -> Iterator[None]:
    """Meanwhile, maps are pooled in this way."""
    if not way.slices:
        yield
        return
    with mock.patch("torch.nn.functional.max_pool2d", slices_pooled):
        yield


def pass_of(way: Way, images: int) -> Callable[[], None]:
    """One forward and backward pass of a new network."""
    network = network_of(way)
    pixels = torch.randn(images, 3, PIXELS, PIXELS).to(way.images, memory_format=way.layout)

    def step() -> None:
        with pooling(way), torch.autocast("cpu", torch.bfloat16, enabled=way.autocast):
            embeddings = network(pixels)
        embeddings.float().square().mean().backward()

    return step


def gflop_of(way: Way, images: int) -> float:
    """Multiplications and additions of a pass, in billions."""
    step = pass_of(way._replace(compiled=False), images)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


def measure(ways: dict[str, Way], images: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Way -> its GFLOP and CPU seconds of a pass, round by round, after some that build kernels."""
    steps = {name: pass_of(way, images) for name, way in ways.items()}
    found: dict[str, dict[str, Any]] = {
        name: {"gflop": gflop_of(way, images), "cpu_seconds": []} for name, way in ways.items()
    }
    for number in range(rounds + 1):
        for name, step in steps.items():
            began = time.thread_time()
            for _ in range(PASSES):
                step()
            if number > 0:
                found[name]["cpu_seconds"].append((time.thread_time() - began) / PASSES)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=IMAGES, help="of a pass")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = {name: way for name, way in WAYS.items() if not way.compiled or shutil.which("g++") or shutil.which("clang")}
    before = peaks(threads=1)
    found = measure(ways, options.images, options.rounds)
    after = peaks(threads=1)
    for name, one in found.items():
        kind = "float32" if ways[name].images == torch.float32 and not ways[name].autocast else "bfloat16"
        peak = max(each[f"{kind}_per_cpu_second"] for each in (before, after))
        seconds = median(one["cpu_seconds"])
        one |= {"type": kind, "share_of_peak": one["gflop"] / seconds / peak}
        print(
            f"{name:<28} {one['gflop']:6.1f} GFLOP {1000 * seconds:8.1f} ms  {one['share_of_peak']:.0%} "
            f"of the {kind} peak"
        )
    settings = {"images": options.images, "pixels": PIXELS, "widths": list(WIDTHS)}
    result = {**settings, "ways": found, "machine": machine()}
    write_json(options.json, {**result, "matrix_gflops": {"before": before, "after": after}})


if __name__ == "__main__":
    main()
