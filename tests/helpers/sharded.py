"""Methods trained by several processes that share a backbone out (FSDP), or not (DDP), on the images of `family`.

    python sharded.py FOLDER PROCESSES NAME...

trains each NAME of `CASES` in float64 under both strategies and leaves in FOLDER/NAME-STRATEGY-RANK.pt what it came to;
resume:NAME trains with checkpoints into FOLDER/whole and, broken off and taken up again, into FOLDER/parts;
continue:NAME goes on with FOLDER/whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import family
import torch
from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.engine.runtime import Runtime
from tapetum.engine.state import fingerprint
from tapetum.engine.trainer import Trainer, TrainerConfig
from tapetum.methods.base import Method
from tapetum.methods.registry import method_class
from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, TimmConfig, WideResNetConfig, build_backbone
from tapetum.nn.batch_norm import convert_batch_norm
from tapetum.nn.recompute import recompute_blocks
from tapetum.ops.collectives import leave_group
from tapetum.ops.randomness import torch_seed
from tapetum.optim.optimizers import (
    AdamWConfig,
    LARSConfig,
    OptimizerConfig,
    ScheduleConfig,
    SGDConfig,
    build_optimizer,
    set_schedules,
)

STRATEGIES = ("ddp", "fsdp")
QUICK = ("methods", "transformer", "small_net_recomputed", "not_finite", "resume:transformer")
QUICK_METHODS = ("swav", "deepcluster", "finetune")
"""What belongs to the usual tests: tests/methods/test_family.py."""
LARS = LARSConfig(lr=ScheduleConfig(peak=5.0, shape="constant"), weight_decay=0.01)
SGD = SGDConfig(lr=ScheduleConfig(peak=0.1, shape="constant"), weight_decay=1e-3)
ADAMW = AdamWConfig(lr=ScheduleConfig(peak=1e-3, shape="constant"))


class Transformer(nn.Module):
    """18 features and two heads: rows that do not share out evenly. Of the class token's one row some get none."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features = 18
        self.patches = nn.Conv2d(3, 18, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 18))
        layers = [nn.TransformerEncoderLayer(18, 2, 36, dropout=0.1, batch_first=True, norm_first=True) for _ in "ab"]
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(18)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.patches(images).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(torch.cat([self.token.expand(len(rows), -1, -1), rows], dim=1)))[:, 0]


def timm_transformer() -> nn.Module:
    options = {"img_size": 8, "patch_size": 2, "embed_dim": 18, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
    return build_backbone(TimmConfig(name="vit_tiny_patch16_224", options=options))


def small_net() -> nn.Module:
    return build_backbone(SmallNetConfig(stem=4, widths=(6, 6)))


def wide_resnet() -> nn.Module:
    return build_backbone(WideResNetConfig(depth=10, width=1))


def resnet() -> nn.Module:
    return build_backbone(ResNetConfig(depth=20))


@dataclass(frozen=True)
class Case:
    """A training."""

    kind: str
    backbone: Callable[[], nn.Module]
    optimizer: OptimizerConfig
    steps: int = 5
    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    recompute: bool = False
    support_chunk: int | None = None
    bad_step: int | None = None
    """In it, one image of the last process is not a number."""


CASES = {
    "transformer": Case("paws", Transformer, LARS),
    "small_net_recomputed": Case("paws", small_net, LARS, recompute=True, support_chunk=3),
    "transformer_recomputed": Case("paws", Transformer, ADAMW, recompute=True, support_chunk=4),
    "wide_resnet": Case("paws", wide_resnet, SGD, config={"accumulate": 2}),
    "wide_resnet_recomputed": Case("paws", wide_resnet, LARS, recompute=True, support_chunk=3),
    "not_finite": Case("paws", family.Backbone, LARS, 6, bad_step=2, config={"on_nan": "rollback", "log_every": 1}),
    "prototypes": Case("swav", family.Backbone, SGD, settings={"num_prototypes": (7, 5), "freeze_steps": 2}),
    "bank": Case("deepcluster", family.Backbone, LARS, settings={"num_prototypes": (5, 4), "iterations": 2}),
    "resnet": Case("ropaws", resnet, ADAMW),
    "timm": Case("paws", timm_transformer, LARS),
    "timm_recomputed": Case("suave", timm_transformer, LARS, recompute=True),
    "frozen": Case("finetune", timm_transformer, SGD, settings={"freeze_backbone": True}),
}


def make(case: Case) -> Method:
    """A method of fixed initial weights, in training mode."""
    torch.default_generator.manual_seed(torch_seed(0, "weights"))
    backbone = case.backbone()
    if case.recompute:
        recompute_blocks(backbone)
    kind = method_class(case.kind)
    settings = case.settings if case.kind == "finetune" else {"head": family.HEAD, **case.settings}
    sizes = {"num_classes": family.NUM_CLASSES, "num_images": family.NUM_STORED}
    method = kind(kind.Config(**settings), backbone, **sizes)
    method.support_chunk = case.support_chunk
    return method.double().train()


def trainer(case: Case, on: Runtime, folder: Path | None = None, inexact: bool = False, **config: Any) -> Trainer:
    """Saves every 2 steps if there is a folder."""
    method = make(case)
    if on.world_size > 1:
        convert_batch_norm(method)
    optimizer = build_optimizer(case.optimizer, method)
    parts = case.config.get("accumulate", 1)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start * parts, stop * parts):
            batch = family.batch_of(step, on.rank, on.world_size)
            assert batch.views is not None
            if step == case.bad_step and on.rank == on.world_size - 1:
                batch.views.groups[0][0, 0, 0, 0] = torch.nan
            yield batch

    def evaluate() -> dict[str, float]:
        images = family.pixels(family.np.arange(6 + on.rank), 8, "evaluation")
        with torch.no_grad():  # as many calls as the rank, and one: processes need not keep step
            found = [method.eval().embed(images[i:]) for i in range(on.rank + 1)]
        return {"mean": float(found[0][:6].mean())}

    settings = {"steps": case.steps, "checkpoint_every": 2, "evaluate_every": 2}
    return Trainer(
        method,
        optimizer,
        lambda step: set_schedules(optimizer, case.optimizer, step, family.STEPS_PER_EPOCH, 100),
        batches,
        steps_per_epoch=family.STEPS_PER_EPOCH,
        total_steps=case.steps,
        config=TrainerConfig(**(settings | case.config | config)),
        runtime=on,
        folder=folder,
        fingerprint=fingerprint(on, data="sharded"),
        evaluate=evaluate,
        embed_all=family.embed_all(method),
        inexact=inexact,
        notify=lambda message: None,
    )


def whole_state(method: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers, whole after a training."""
    return {name: value.detach().clone() for name, value in (*method.named_parameters(), *method.named_buffers())}


def train(name: str, on: Runtime, folder: Path) -> None:
    """Under both strategies."""
    for strategy in STRATEGIES:
        on.config = replace(on.config, strategy=strategy)
        run = trainer(CASES[name], on, bits(folder, name, strategy))
        losses = family.losses_of(run.method)
        norms: list[Tensor] = []
        gradient_norm = run._weights.gradient_norm
        run._weights.gradient_norm = noted(gradient_norm, norms)  # type: ignore[method-assign]
        run.fit()
        found = {"losses": torch.stack(losses), "gradient norms": torch.stack(norms), **whole_state(run.method)}
        skipped = run.state.skipped_steps
        torch.save((found, run.method.local_state(), skipped), folder / f"{name}-{strategy}-{on.rank}.pt")


def bits(folder: Path, name: str, strategy: str) -> Path | None:
    """A folder for checkpoints where a case goes back to one."""
    return folder / f"{name}-{strategy}" if CASES[name].bad_step is not None else None


def noted(function: Callable[..., Tensor], results: list[Tensor]) -> Callable[..., Tensor]:
    """The same function, whose results are added to a list."""

    def call(*arguments: Any) -> Tensor:
        results.append(function(*arguments))
        return results[-1]

    return call


def methods(on: Runtime, folder: Path, kinds: Sequence[str]) -> None:
    """As `family.compare`, with the backbone shared out, and channels-last as on machines with bf16 units."""
    on.config, on.channels_last = replace(on.config, strategy="fsdp"), True
    for kind in kinds:
        run = family.trainer(kind, None, 10, on=on)
        losses = family.losses_of(run.method)
        run.fit()
        found = {"losses": torch.stack(losses), **whole_state(run.method)}
        torch.save((found, run.method.local_state()), folder / f"{kind}-fsdp-{on.rank}.pt")


def resume(on: Runtime, folder: Path, case: Case) -> None:
    """To the end; and broken off after a checkpoint, then taken up."""
    on.config = replace(on.config, strategy="fsdp")
    trainer(case, on, folder / "whole", keep_every=2).fit()
    stopped = trainer(case, on, folder / "parts", keep_every=2)
    batches = stopped.batches
    stopped.batches = lambda start, stop: batches(start, 3)
    with suppress(AssertionError):  # no more batches
        stopped.fit()
    assert stopped.state.step == 3
    trainer(case, on, folder / "parts", keep_every=2).fit()


def go_on(on: Runtime, folder: Path, case: Case) -> None:
    """With two more steps of the whole, in any number of processes."""
    on.config = replace(on.config, strategy="fsdp" if on.world_size > 1 else "ddp")
    run = trainer(replace(case, steps=7), on, folder / "whole", inexact=True)
    run.fit()
    torch.save(whole_state(run.method), folder / f"continued-{on.world_size}.pt")


def run(on: Runtime, folder: Path, *names: str) -> None:
    for action, _, name in (name.rpartition(":") for name in names):
        if name == "methods":
            methods(on, folder, QUICK_METHODS)
        elif name == "all_methods":
            family.compare(folder, on)
            methods(on, folder, family.SHARDABLE)
        elif action == "resume":
            resume(on, folder, CASES[name])
        elif action == "continue":
            go_on(on, folder, CASES[name])
        else:
            train(name, on, folder)


def main(folder: Path, processes: int, *names: str) -> None:
    run(family.runtime(devices=processes), folder, *names)
    if processes > 1:  # one that leaves while the others still talk may take them down with it
        torch.distributed.barrier()
        leave_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
