"""The methods of the family on images made from hashed keys: trained by the engine, in one process or several.

    python family.py compare FOLDER PROCESSES

trains each of `CASES` for 10 steps in float64 and leaves losses, weights and local state of each process in FOLDER; two
processes then also do what `sharded.QUICK` names.

    python family.py break-off FOLDER PROCESSES METHOD...
    python family.py resume FOLDER PROCESSES METHOD...

trains each METHOD in float32 into FOLDER/METHOD/whole and, up to a death inside an epoch, into FOLDER/METHOD/parts;
other processes then go on with the parts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tapetum.data.batch import Batch, Views
from tapetum.data.batches.samplers import batch_indices
from tapetum.engine.runtime import Runtime, RuntimeConfig
from tapetum.engine.state import fingerprint
from tapetum.engine.trainer import Trainer, TrainerConfig
from tapetum.methods.base import EmbedAll, Method, Progress, StepOutput
from tapetum.methods.registry import method_class
from tapetum.nn.batch_norm import convert_batch_norm
from tapetum.nn.heads import HeadConfig
from tapetum.ops.collectives import leave_group, rank, world_size
from tapetum.ops.randomness import make_keys, torch_seed, uniform

NUM_IMAGES, NUM_CLASSES, NUM_SUPPORTS, BATCH_SIZE, NUM_SMALL = 34, 3, 12, 8, 2
NUM_STORED = NUM_IMAGES + 2  # two are held out of everything
STEPS_PER_EPOCH = NUM_IMAGES // BATCH_SIZE  # two images are left over in every epoch
HEAD = HeadConfig(hidden=12, output=6, layers=2)

CASES: dict[str, dict[str, Any]] = {
    "swav": {"num_prototypes": (7, 5), "freeze_steps": 2, "queue_length": 16, "queue_start_epoch": 1, "head": HEAD},
    "deepcluster": {"num_prototypes": (5, 4, 3), "iterations": 4, "head": HEAD},
    "paws": {"head": HEAD, "supervised_weight": 0.5, "suncet_weight": 0.5, "paws_ramp": 0.1},
    "ropaws": {"head": HEAD},
    "suave": {"queue_length": 16, "queue_start_epoch": 1, "head": HEAD},
    "sela": {"num_prototypes": (5, 4, 3), "head": HEAD},
    "simclr": {"head": HEAD},
    "suncet": {"head": HEAD, "supervised_epochs": 1.5},
    "fixmatch": {
        "head": HEAD,
        "threshold": None,
        "unlabelled_ramp": 0.1,
        "even_classes": True,
        "teacher_decay": 0.9,
        "suncet_weight": 0.5,
        "neighbour_weight": 0.3,
    },
    "finetune": {"projector_layers": 1, "projector_hidden": 12},
}
"""Settings with which every kind of state of a method comes into play within 9 steps."""
SHARDABLE = tuple(kind for kind in CASES if kind != "fixmatch")
"""Those that FSDP can train with these settings: a teacher averages whole weights."""
TRAINED = (*CASES, "supervised")
"""All methods that train."""


class Backbone(nn.Module):
    """Takes any size, has running statistics, and calls that can be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.num_features = 8
        self.calls: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return torch.relu(self.norm(self.conv(images))).mean((2, 3))


def make(kind: str, dtype: torch.dtype = torch.float64, **settings: Any) -> Method:
    """A method of fixed initial weights, in training mode."""
    torch.default_generator.manual_seed(torch_seed(0, "weights"))
    found = method_class(kind)
    config = found.Config(**CASES.get(kind, {}) | settings)
    return found(config, Backbone(), num_classes=NUM_CLASSES, num_images=NUM_STORED).to(dtype).train()


def pixels(index: np.ndarray, size: int, *view: Any) -> Tensor:
    """(len(index), 3, size, size): a pattern for the class, one for the image, one for the view."""

    def pattern(*key: Any) -> np.ndarray:
        return uniform(make_keys("family", *key), 3 * 8 * 8).reshape(-1, 3, 8, 8)[..., :size, :size]

    parts = pattern("class", index % NUM_CLASSES), pattern("image", index), pattern("view", index, *view)
    return torch.from_numpy(parts[0] + parts[1] + 0.5 * parts[2] - 1.25)


def batch_of(step: int, rank: int = 0, world_size: int = 1, dtype: torch.dtype = torch.float64) -> Batch:
    """Views of this process's share of 8 images in 2 large and 2 small views, and of the supports in 2."""
    shape = (BATCH_SIZE, NUM_IMAGES, 0, rank, world_size)
    index = batch_indices(step, STEPS_PER_EPOCH, *shape)
    epoch = step // STEPS_PER_EPOCH
    large, small = (
        torch.cat([pixels(index, size, epoch, size, view) for view in range(count)]).to(dtype)
        for size, count in ((8, 2), (6, NUM_SMALL))
    )
    labels = np.tile(np.arange(NUM_CLASSES), NUM_SUPPORTS // NUM_CLASSES)
    images = np.split(np.arange(NUM_SUPPORTS) + 6 * (step % 3), world_size)[rank]
    support = torch.cat([pixels(images, 8, step, "support", view) for view in range(2)]).to(dtype)
    return Batch(
        views=Views((large, small), (2, NUM_SMALL)),
        index=torch.from_numpy(index),
        support=Views((support,), (2,)),
        support_labels=torch.from_numpy(np.split(labels, world_size)[rank]),
        support_classes=torch.arange(NUM_CLASSES),
    )


def embed_all(method: Method) -> EmbedAll:
    """The pool's images, in evaluation mode."""
    index = np.arange(NUM_IMAGES)

    def embed(then: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        images = pixels(index[rank() :: world_size()], 8, "evaluation").to(next(method.parameters()).dtype)
        was_training = method.training
        with torch.no_grad():
            rows = then(method.eval().embed(images))
        method.train(was_training)
        return torch.from_numpy(index), rows

    return embed


def joined(name: str, parts: list[Tensor]) -> Tensor:
    """The local state of one process from that of several."""
    if name == "queue":  # of each step, the first process's images come first
        steps = [part.unflatten(1, (-1, BATCH_SIZE // len(parts))) for part in parts]
        return torch.cat(steps, dim=2).flatten(1, 2)
    if name == "bank":  # of two processes, the first one has the images 0, 2, 4, ... of the pool
        whole = parts[0].new_empty(len(parts[0]), sum(part.shape[1] for part in parts), parts[0].shape[2])
        for rank, part in enumerate(parts):
            whole[:, rank :: len(parts)] = part
        return whole
    assert name in ("pool", "labels"), name
    assert all(torch.equal(part, parts[0]) for part in parts)
    return parts[0]


def progress_of(step: int) -> Progress:
    return Progress(step, STEPS_PER_EPOCH, 100)


def runtime(**changes: Any) -> Runtime:
    made = Runtime(RuntimeConfig(**{"accelerator": "cpu", "threads": 1, "precision": "float32", **changes}))
    made.launch()
    return made


def trainer(
    kind: str, folder: Path | None, steps: int, *, on: Runtime | None = None, dtype: torch.dtype = torch.float64
) -> Trainer:
    """Saves every 3 steps: inside epochs of 4."""
    on = on or runtime()
    method = make(kind, dtype)
    if on.world_size > 1:
        convert_batch_norm(method)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        return (batch_of(step, on.rank, on.world_size, dtype) for step in range(start, stop))

    return Trainer(
        method,
        optimizer,
        lambda step: None,
        batches,
        steps_per_epoch=STEPS_PER_EPOCH,
        total_steps=steps,
        config=TrainerConfig(steps=steps, log_every=2, checkpoint_every=3),
        runtime=on,
        folder=folder,
        fingerprint=fingerprint(on, data="family"),
        embed_all=embed_all(method),
    )


def state_of(run: Trainer) -> dict[str, Tensor]:
    """Everything that training changes, cloned."""
    from tapetum.engine.checkpoint import capture

    return dict(capture(run.method, run.optimizer, [run.method.local_state()], {"step": 0}).tensors)


def losses_of(method: Method) -> list[Tensor]:
    """The list to which every later forward adds its loss."""
    losses: list[Tensor] = []

    def note(module: nn.Module, arguments: object, output: StepOutput) -> None:
        losses.append(output.loss.detach().clone())

    method.register_forward_hook(note)
    return losses


def break_off(kind: str, folder: Path, on: Runtime | None = None) -> None:
    """Die in step 11, two steps after the last checkpoint, which is inside an epoch."""
    stopped = trainer(kind, folder, 14, on=on, dtype=torch.float32)
    batches = stopped.batches
    stopped.batches = lambda start, stop: batches(start, 11)
    with suppress(AssertionError):  # no more batches
        stopped.fit()
    assert stopped.state.step == 11


def train(kind: str, folder: Path, on: Runtime | None = None) -> None:
    """To the end, from whatever the folder holds."""
    trainer(kind, folder, 14, on=on, dtype=torch.float32).fit()


def compare(folder: Path, on: Runtime) -> None:
    for kind in CASES:
        run = trainer(kind, None, 10, on=on)
        losses = losses_of(run.method)
        run.fit()
        parts = {"losses": torch.stack(losses), **run.method.state_dict()}
        torch.save((parts, run.method.local_state()), folder / f"{kind}-{on.rank}.pt")


def main(action: str, folder: Path, processes: int, *kinds: str) -> None:
    on = runtime(devices=processes)
    if action == "compare":
        compare(folder, on)
    if action == "compare" and processes == 2:  # these processes are there, and starting others takes long
        import sharded

        sharded.run(on, folder, *sharded.QUICK)
    for kind in kinds:
        if action == "break-off":
            train(kind, folder / kind / "whole", on)
            break_off(kind, folder / kind / "parts", on)
        else:
            train(kind, folder / kind / "parts", on)
    if processes > 1:  # one that leaves while the others still talk may take them down with it
        torch.distributed.barrier()
        leave_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
