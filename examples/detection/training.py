"""The training of a detector: steps, measurements, and a checkpoint from which an interrupted training goes on.

What is drawn in a step (images, crops, regions, dropout) follows from the seed and the step, and the checkpoint holds
the rest (weights, the optimizer's state), so on a CPU with the same number of threads a training that was interrupted
ends with the same bits as one that was not. On a GPU, pooling regions sums in any order, so it does not.
"""

import csv
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from backbone import build_network, normalisation
from coco import Coco, Example, Examples, average_precision, batches, load_image, read_coco
from detr import DetrDetector
from faster_rcnn import FasterRCNNDetector
from recipe import FasterRCNNConfig, OptimizerConfig, Recipe
from tapetum.system.files import whole_file, write_text

CHECKPOINT = "checkpoint.safetensors"
Detector = FasterRCNNDetector | DetrDetector
Row = dict[str, float]


@dataclass
class Training:
    """A detector in training; `prepare` makes one."""

    recipe: Recipe
    folder: Path
    detector: Detector
    optimizer: Optimizer
    train: Coco
    test: Coco
    steps: int
    device: torch.device
    weights: str
    """What the backbone began with, in one line."""
    step: int = 0
    """Steps taken."""
    seconds: float = 0.0
    """Time that these steps took."""
    losses: list[Row] = field(default_factory=list)
    measured: list[Row] = field(default_factory=list)

    def run(self) -> Row:
        """Train to the end, and return the last measurement."""
        trainer, start = self.recipe.trainer, self.step
        examples = Examples(self.train.pictures, self.recipe.data, self.recipe.seed)
        began, before = time.monotonic(), self.seconds
        for batch in batches(examples, trainer.batch_size, range(start, self.steps), trainer.workers):
            row = self._step(batch)
            self.step += 1
            self.seconds = before + time.monotonic() - began
            if self.step % trainer.log_every == 0 or self.step in (1, self.steps):
                self._log(row, (self.seconds - before) / (self.step - start))
            pause = time.monotonic()
            if trainer.evaluate_every and self.step % trainer.evaluate_every == 0 and self.step < self.steps:
                self.measure()
            if self.step % trainer.save_every == 0 or self.step == self.steps:
                self.save()
            began += time.monotonic() - pause
        if not self.measured or self.measured[-1]["step"] < self.steps:
            self.measure()
        return self.measured[-1]

    def _step(self, batch: Sequence[Example]) -> Row:
        """One step of the optimizer; returns the parts of its loss."""
        optimizer = self.recipe.optimizer
        factor = learning_rate_factor(optimizer, self.step, self._in_steps(optimizer.drops))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        _seed(self.recipe.seed, self.step)
        self.detector.train()
        self.optimizer.zero_grad()
        size = self.recipe.trainer.micro_batch or len(batch)
        row = {"step": self.step + 1.0, "lr": optimizer.lr * factor}
        for part in (batch[start : start + size] for start in range(0, len(batch), size)):
            share = len(part) / len(batch)
            images, targets = self._on_device(part)
            losses = self.detector(images, targets)
            (losses["loss"] * share).backward()
            for name, value in losses.items():
                row[name] = row.get(name, 0.0) + share * float(value.detach())
        if not math.isfinite(row["loss"]):
            raise ValueError(
                f"the loss is {row['loss']} in step {self.step + 1}: lower optimizer.lr, or warm up longer."
            )
        if optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.detector.parameters(), optimizer.clip_norm)
        self.optimizer.step()
        return row

    def _on_device(self, part: Sequence[Example]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        images = [image.to(self.device) for image, _ in part]
        return images, [{name: value.to(self.device) for name, value in target.items()} for _, target in part]

    def _in_steps(self, times: Sequence[float]) -> list[float]:
        return [_steps(self.recipe, time, len(self.train.pictures)) for time in times]

    def _log(self, row: Row, pace: float) -> None:
        self.losses.append({**row, "seconds": round(self.seconds, 1)})
        parts = "  ".join(f"{name} {value:.3f}" for name, value in row.items() if name not in ("step", "lr"))
        left = pace * (self.steps - self.step)
        print(f"step {self.step}/{self.steps}  {parts}  {pace:.2f} s/step  {left / 60:.0f} min left", flush=True)

    def measure(self) -> None:
        """Find objects in the test images and keep COCO's figures."""
        self.detector.eval()
        found = ((p.id, self.detector.detect([load_image(p.path).to(self.device)])[0]) for p in self.test.pictures)
        figures = average_precision(self.test, found)
        self.measured.append({"step": float(self.step), **figures})
        print("  ".join(f"{name} {value:.1f}" for name, value in figures.items()), flush=True)
        self._write_tables()

    def _write_tables(self) -> None:
        write_text(self.folder / "metrics.csv", _as_csv(self.losses))
        write_text(self.folder / "evaluations.csv", _as_csv(self.measured))

    def save(self) -> None:
        """Write the checkpoint over the last one."""
        tensors = {f"detector.{name}": value.contiguous() for name, value in self.detector.state_dict().items()}
        for name, state in self._optimizer_state().items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items() if value is not None}
        note = {"step": self.step, "seconds": self.seconds, "losses": self.losses, "measured": self.measured}
        self._write_tables()
        with whole_file(self.folder / CHECKPOINT) as partial:
            save_file(tensors, partial, metadata={"training": json.dumps(note)})

    def load(self) -> None:
        """Go back to the checkpoint, if there is one."""
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        with safe_open(path, framework="pt") as file:
            note = json.loads(file.metadata()["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        start = len("detector.")
        self.detector.load_state_dict({n[start:]: t for n, t in tensors.items() if n.startswith("detector.")})
        for name, parameter in self._trained().items():
            prefix = f"optimizer.{name}."
            state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            if state:  # AdamW counts steps on the CPU
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
                }
        self.step, self.seconds = note["step"], note["seconds"]
        self.losses, self.measured = note["losses"], note["measured"]

    def _optimizer_state(self) -> dict[str, Mapping[str, Tensor]]:
        return {name: self.optimizer.state.get(parameter, {}) for name, parameter in self._trained().items()}

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.detector.named_parameters() if p.requires_grad}


def prepare(recipe: Recipe, folder: Path) -> Training:
    """Read the data, build the detector with its backbone's weights, and go back to a checkpoint if there is one.

    Raises:
        ValueError: something in the recipe does not fit; one sentence.
    """
    data = recipe.data
    train = read_coco(data.train_images, data.train_annotations).with_boxes
    test = read_coco(data.test_images, data.test_annotations)
    if test.categories != train.categories:
        raise ValueError(f"{test.annotations} has other categories than {train.annotations}: give files of one set.")
    torch.manual_seed(recipe.seed)
    network, weights = build_network(recipe.backbone)
    settings = (recipe.backbone, data, network, len(train.categories), normalisation(recipe.backbone, data))
    detector: Detector
    if isinstance(recipe.detector, FasterRCNNConfig):
        detector = FasterRCNNDetector(recipe.detector, *settings)
    else:
        detector = DetrDetector(recipe.detector, *settings)
    device = pick_device(recipe.trainer.device)
    detector.to(device)
    length = recipe.trainer.steps or _steps(recipe, recipe.trainer.epochs or 0, len(train.pictures))
    optimizer = make_optimizer(recipe.optimizer, detector)
    training = Training(recipe, folder, detector, optimizer, train, test, int(length), device, weights)
    training.load()
    return training


def pick_device(wanted: str) -> torch.device:
    """The device that a recipe asks for.

    Raises:
        ValueError: it asks for a GPU and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise ValueError("trainer.device is cuda, but torch finds no GPU here: use auto or cpu.")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


def make_optimizer(config: OptimizerConfig, detector: Detector) -> Optimizer:
    """Two groups of parameters: those of the backbone, and the others."""
    own = {id(parameter) for parameter in detector.backbone.parameters()}
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if id(p) in own], "lr": config.backbone_lr, "initial_lr": config.backbone_lr},
        {"params": [p for p in trained if id(p) not in own], "lr": config.lr, "initial_lr": config.lr},
    ]
    if config.kind == "sgd":
        return SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    return AdamW(groups, weight_decay=config.weight_decay)


def learning_rate_factor(config: OptimizerConfig, step: int, drops: Sequence[float]) -> float:
    """What the learning rates are multiplied with in a step, counted from 0."""
    warmup = min(1.0, 0.001 + 0.999 * step / config.warmup_steps) if config.warmup_steps else 1.0
    return float(warmup * 0.1 ** sum(step >= drop for drop in drops))


def _steps(recipe: Recipe, length: float, num_pictures: int) -> float:
    """A length of the recipe, in steps."""
    return length if recipe.trainer.steps else math.ceil(length * num_pictures / recipe.trainer.batch_size)


def _seed(seed: int, step: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence([seed, 2, step]).generate_state(1)[0]))


def _as_csv(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
    return text.getvalue()
