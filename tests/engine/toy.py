"""A method with every kind of state the engine must keep, on images made from hashed keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from tapetum.data.batch import Batch, Views
from tapetum.engine.runtime import Runtime, RuntimeConfig
from tapetum.engine.state import fingerprint
from tapetum.engine.trainer import Trainer, TrainerConfig
from tapetum.methods.base import EmbedAll, Method, Progress, StepOutput
from tapetum.ops.collectives import rank, world_size
from tapetum.ops.randomness import make_keys, torch_seed, uniform

NUM_CLASSES = 3
STEPS_PER_EPOCH = 7


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    kind: Literal["toy"] = "toy"
    """Selects the toy."""


class Toy(Method):
    """BatchNorm, dropout, a rank-local queue with a pointer, centroids set each epoch."""

    Config = ToyConfig

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.default_generator.manual_seed(torch_seed(seed, "weights"))
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(16, NUM_CLASSES)
        self.centroids: Tensor
        self.register_buffer("centroids", torch.zeros(NUM_CLASSES, 16))
        self.queue = torch.zeros(0, 16)
        self.num_queued = torch.zeros((), dtype=torch.int64)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        assert batch.views is not None
        assert batch.support_labels is not None
        features = self.backbone(batch.views.groups[0]).float()
        anchors = torch.cat([self.centroids, self.queue.to(features.device)])
        pull = (normalize(features, dim=1) @ anchors.T).square().mean()
        loss = cross_entropy(self.head(features).float(), batch.support_labels) + pull
        return StepOutput(loss, {"pull": pull.detach()}, carry=features.detach())

    def embed(self, images: Tensor) -> Tensor:
        return self.backbone(images)

    def before_epoch(self, progress: Progress, embed_all: EmbedAll) -> None:
        noise = 0.01 * torch.randn(NUM_CLASSES, 16)
        self.centroids.copy_(normalize(self.head.weight.detach() + noise.to(self.centroids.device), dim=1))

    def after_step(self, output: StepOutput, batch: Batch) -> None:
        self.queue = torch.cat([normalize(output.carry, dim=1), self.queue])[:24]
        self.num_queued = self.num_queued + output.carry.shape[0]

    def local_state(self) -> dict[str, Tensor]:
        return {"queue": self.queue, "num_queued": self.num_queued}

    def load_local_state(self, state: Mapping[str, Tensor]) -> None:
        self.queue, self.num_queued = state["queue"], state["num_queued"]


def batch_of(step: int, part: int = 0, batch_size: int = 8) -> Batch:
    images = [(step * batch_size + i) * world_size() + rank() for i in range(batch_size)]
    pixels = uniform(make_keys("toy", part, images), 3 * 8 * 8).reshape(batch_size, 3, 8, 8)
    labels = torch.tensor([i % NUM_CLASSES for i in images])
    tensor = torch.from_numpy(pixels).float() + 0.2 * labels[:, None, None, None]
    return Batch(views=Views((tensor,), (1,)), index=torch.tensor(images), support_labels=labels)


def batches(start: int, stop: int, accumulate: int = 1) -> Iterator[Batch]:
    for step in range(start, stop):
        for part in range(accumulate):
            yield batch_of(step, part)


def nan_batches(*bad_steps: int) -> Callable[[int, int], Iterator[Batch]]:
    def make(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            batch = batch_of(step)
            if step in bad_steps:
                assert batch.views is not None
                batch.views.groups[0][0, 0, 0, 0] = float("nan")
            yield batch

    return make


def sgd(method: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def runtime(**changes: Any) -> Runtime:
    made = Runtime(RuntimeConfig(**{"accelerator": "cpu", "threads": 1, **changes}))
    made.launch()
    return made


def trainer(
    folder: Path | None,
    steps: int,
    *,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd,
    method: Method | None = None,
    on: Runtime | None = None,
    config: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Trainer:
    """A toy run: evaluated every 5 steps, saved every 6, unless `config` or `changes` say otherwise."""
    method = method or Toy()
    optimizer = make_optimizer(method)
    on = on or runtime()

    def schedule(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / steps)

    def evaluate() -> dict[str, float]:
        method.eval()
        with torch.no_grad(), on.autocast():
            images = on.place(batch_of(10**6))
            assert images.views is not None
            return {"mean": float(method.embed(images.views.groups[0]).float().mean())}

    settings = {"steps": steps, "log_every": 4, "evaluate_every": 5, "checkpoint_every": 6, **(config or {})}
    arguments: dict[str, Any] = {
        "steps_per_epoch": STEPS_PER_EPOCH,
        "total_steps": steps,
        "config": TrainerConfig(**settings),
        "runtime": on,
        "folder": folder,
        "seed": 3,
        "fingerprint": fingerprint(on, data="toy"),
        "evaluate": evaluate,
        **changes,
    }
    return Trainer(method, optimizer, schedule, arguments.pop("batches", batches), **arguments)


def state_of(run: Trainer) -> dict[str, Tensor]:
    """Everything that training changes, cloned."""
    from tapetum.engine.checkpoint import capture

    return dict(capture(run.method, run.optimizer, [run.method.local_state()], {"step": 0}).tensors)


def assert_same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    assert sorted(left) == sorted(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert left[name].stride() == right[name].stride(), name
        assert torch.equal(left[name], right[name]), name


def metrics_without_time(folder: Path) -> list[list[str]]:
    """Rows of metrics.csv, header first, without the last two columns."""
    return [line.split(",")[:-2] for line in (folder / "metrics.csv").read_text().splitlines()]
