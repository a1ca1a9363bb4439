"""What sharding a network's weights, and computing its activations again, save in memory: measured, and on paper.

    python benchmarks/sharding.py [--processes 1 2 4] [--network vit_small_patch16_224] [--json FILE]

*Measured*, on CPUs: PAWS with AdamW trains a vision transformer for some steps in 1, 2 and 4 processes with as many
images each, under both strategies (`runtime.strategy`), and with activations kept or computed again
(`runtime.recompute`). Bytes of weights, gradients and optimizer state are counted from the tensors of the first
process; its peak memory is what the operating system says, less what it had before it built anything.

*On paper*: the same parts of a step of a ViT-L, counted on tensors without values, for many GPUs (`paper`). No GPU was
measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from side_by_side import machine, write_json
from torch._subclasses.fake_tensor import FakeTensorMode

from tapetum.data.batch import Batch, Views
from tapetum.engine.runtime import Runtime, RuntimeConfig
from tapetum.engine.sharding import weights_of
from tapetum.engine.trainer import Trainer, TrainerConfig
from tapetum.methods.paws import PAWS, PAWSConfig
from tapetum.nn.backbones import TimmConfig, build_backbone
from tapetum.nn.batch_norm import convert_batch_norm
from tapetum.nn.heads import HeadConfig
from tapetum.nn.recompute import recompute_blocks
from tapetum.ops.blocks import blocks_of
from tapetum.optim.optimizers import AdamWConfig, ScheduleConfig, build_optimizer, set_schedules

MB = 1e6
STEPS = 4
NUM_CLASSES = 4
WAYS = (("ddp", "none"), ("ddp", "blocks"), ("fsdp", "none"), ("fsdp", "blocks"))

LARGE = "vit_large_patch16_224"
GPUS = (8, 64)
IMAGES, SUPPORTS = 64, 105
"""Of each GPU: those of 64 with the batches of the published PAWS on ImageNet, 4,096 images and 6,720 supports."""
VIEWS = {224: 2 * IMAGES + SUPPORTS, 96: 6 * IMAGES}
"""Pixels -> rows of each GPU: two large views and the supports, six small views."""


def images_of(rows: int, size: int) -> torch.Tensor:
    return torch.randn(rows, 3, size, size)


def batch_of(images: int, size: int) -> Batch:
    """Two large and two small views of some images, and a support image of each class."""
    small = size // 2
    return Batch(
        views=Views((images_of(2 * images, size), images_of(2 * images, small)), (2, 2)),
        index=torch.arange(images),
        support=Views((images_of(NUM_CLASSES, size),), (1,)),
        support_labels=torch.arange(NUM_CLASSES),
        support_classes=torch.arange(NUM_CLASSES),
    )


def method_of(network: str, size: int, head: int = 128, recompute: str = "none") -> PAWS:
    options: dict[str, bool | int | float | str] = {"img_size": size, "dynamic_img_size": True}
    backbone = build_backbone(TimmConfig(name=network, options=options))
    if recompute == "blocks":
        recompute_blocks(backbone)
    return PAWS(PAWSConfig(head=HeadConfig(output=head)), backbone, num_classes=NUM_CLASSES, num_images=1)


def peak_mb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def train(arguments: argparse.Namespace) -> None:
    """Train in as many processes as asked for; the first of them writes what it found."""
    settings: dict[str, Any] = {"accelerator": "cpu", "precision": "float32", "channels_last": False, "threads": 1}
    settings |= {"devices": arguments.processes[0], "strategy": arguments.strategy, "recompute": arguments.recompute}
    runtime = Runtime(RuntimeConfig(**settings))
    runtime.launch()
    start, peaks = peak_mb(), []
    torch.manual_seed(0)
    method = method_of(arguments.network, arguments.size, recompute=arguments.recompute)
    if runtime.world_size > 1:
        convert_batch_norm(method)
    config = AdamWConfig(lr=ScheduleConfig(peak=1e-4, shape="constant"))
    optimizer = build_optimizer(config, method)

    def batches(first: int, last: int) -> Iterator[Batch]:
        for _ in range(first, last):
            peaks.append(peak_mb())
            yield batch_of(arguments.images, arguments.size)

    lengths: dict[str, Any] = {"steps_per_epoch": STEPS, "total_steps": STEPS, "config": TrainerConfig(steps=STEPS)}
    Trainer(
        method,
        optimizer,
        lambda step: set_schedules(optimizer, config, step, STEPS, STEPS),
        batches,
        runtime=runtime,
        notify=lambda message: None,
        **lengths,
    ).fit()
    if runtime.rank == 0:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state = [value for values in optimizer.state.values() for value in values.values()]
        found = {
            "weights_mb": sum(p.nbytes for p in weights_of(method).stored.parameters()) / MB,
            "gradients_mb": sum(p.grad.nbytes for p in parameters if p.grad is not None) / MB,
            "optimizer_mb": sum(value.nbytes for value in state if isinstance(value, torch.Tensor)) / MB,
            # Before the last step: at the end of a training the weights are gathered for what follows.
            "peak_mb": peaks[-1] - start,
        }
        arguments.json.write_text(json.dumps(found))
    runtime.barrier()


def measured(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every way, each in processes of its own."""
    own = ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for processes in arguments.processes:
            for strategy, recompute in WAYS[:2] if processes == 1 else WAYS if processes == 2 else WAYS[::2]:
                path = Path(folder) / "found.json"
                command = [sys.executable, __file__, "--way", strategy, recompute, "--processes", str(processes)]
                command += ["--network", arguments.network, "--size", str(arguments.size)]
                command += ["--images", str(arguments.images), "--json", str(path)]
                subprocess.run(command, env=environment, check=True)
                found = {name: round(value, 1) for name, value in json.loads(path.read_text()).items()}
                runs.append({"processes": processes, "strategy": strategy, "recompute": recompute, **found})
                print(runs[-1], flush=True)
    return runs


def saved_bytes(forward: Any, images: torch.Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass, but for weights; each memory once."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage()._cdata for p in forward.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = forward(images)
        del output
    return sum(kept.values())


def per_image(network: Any, size: int) -> tuple[float, float]:
    """Bytes kept for one image of so many pixels, and for however many: bfloat16 copies of weights."""
    one, three = (saved_bytes(network, images_of(rows, size)) for rows in (1, 3))
    return (three - one) / 2, one - (three - one) / 2


def paper(network: str = LARGE, views: dict[int, int] = VIEWS) -> dict[str, Any]:
    """MB of each part of a step of each GPU, by number of GPUs and way.

    Weights, gradients and AdamW's two moments are float32. Activations are what the backward pass needs under bfloat16
    autocast, and while a block is computed again, the activations of that block. With fsdp, two blocks' weights are
    gathered at a time, and the gradients of one.
    """
    size = max(views)
    with torch.device("meta"):
        plain, again = (method_of(network, size, 2048, recompute) for recompute in ("none", "blocks"))
    # Tensors of a CPU without values: `meta` itself has no autocast.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for method in (plain, again):
            method.to_empty(device="cpu")
        backbone: Any = plain.backbone
        blocks = blocks_of(backbone)
        kept, lean = ({s: per_image(m.backbone, s) for s in views} for m in (plain, again))
    sharded = 4 * sum(p.numel() for p in backbone.parameters())
    whole = 4 * sum(p.numel() for p in plain.parameters()) - sharded
    block = 4 * max(sum(p.numel() for p in b.parameters()) for b in blocks)
    everything = {s: rows * kept[s][0] for s, rows in views.items()}
    leanest = {s: rows * lean[s][0] for s, rows in views.items()}
    one_block = max((everything[s] - leanest[s]) / len(blocks) for s in views)
    activations = {"none": sum(everything.values()), "blocks": sum(leanest.values()) + one_block}
    copies = {"none": max(k[1] for k in kept.values()), "blocks": max(k[1] for k in lean.values())}
    rows = []
    for gpus in GPUS:
        for strategy, recompute in WAYS:
            share = 1 if strategy == "ddp" else 1 / gpus
            own = whole + share * sharded
            parts = {
                "weights": own,
                "gradients": own,
                "optimizer": 2 * own,
                "gathered": sharded + whole if strategy == "ddp" else 3 * block,
                "copies": copies[recompute],
                "activations": activations[recompute],
            }
            together = sum(parts.values())
            numbers = {name: round(value / MB) for name, value in (parts | {"together": together}).items()}
            rows.append({"gpus": gpus, "strategy": strategy, "recompute": recompute, **numbers})
    return {"network": network, "parameters": (sharded + whole) // 4, "views": views, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4], help="numbers of processes")
    parser.add_argument("--network", default="vit_small_patch16_224", help="timm's name of a vision transformer")
    parser.add_argument("--size", type=int, default=64, help="pixels of large views; small ones have half of them")
    parser.add_argument("--images", type=int, default=4, help="of each process in a step")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way is not None:
        arguments.strategy, arguments.recompute = arguments.way
        train(arguments)
        return
    found = {"network": arguments.network, "size": arguments.size, "images": arguments.images}
    found |= {"runs": measured(arguments), "paper": paper(), "machine": machine()}
    write_json(arguments.json, found)


if __name__ == "__main__":
    main()
