"""Entry point to optimizers: one config union, a builder, and the function that sets a step's learning rate.

    optimizer = build_optimizer(config, model)
    for step in range(first, total_steps):
        set_schedules(optimizer, config, step, steps_per_epoch, total_steps)
        ...
        optimizer.step()

Learning rate and weight decay depend only on the step, so a resumed run uses exactly those of an uninterrupted one.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from tapetum.optim.lars import LARS
from tapetum.optim.muon import Muon, is_kernel
from tapetum.optim.parameter_groups import group_parameters
from tapetum.optim.schedules import ScheduleConfig, value

__all__ = [
    "LARS",
    "AdamWConfig",
    "LARSConfig",
    "Muon",
    "MuonConfig",
    "OptimizerConfig",
    "SGDConfig",
    "ScheduleConfig",
    "build_optimizer",
    "fuse",
    "group_parameters",
    "set_schedules",
]


@dataclass(frozen=True, kw_only=True)
class LARSConfig:
    """LARS for large batches, as in PAWS and SwAV; see `tapetum.optim.lars.LARS`."""

    kind: Literal["lars"] = "lars"
    """Selects LARS."""
    lr: ScheduleConfig
    """Learning rate over training."""
    momentum: float = 0.9
    """Momentum (0.9 in PAWS and SwAV)."""
    nesterov: bool = False
    """Nesterov's form of momentum (on in the fine-tuning of PAWS)."""
    weight_decay: float = 1e-6
    """L2 coefficient of weights (1e-6 in PAWS and SwAV); biases and normalisation layers follow `exclude`."""
    weight_decay_schedule: ScheduleConfig | None = None
    """Weight decay over training, in place of `weight_decay`."""
    backbone_lr: float = 1.0
    """Learning rate of the backbone as a multiple of `lr`; use less than 1 if it starts from good weights."""
    trust_coefficient: float = 0.001
    """Ratio of step to weight norm at learning rate 1 (0.001 in PAWS and SwAV)."""
    eps: float = 1e-8
    """Added to the denominator of the trust ratio (1e-8 in PAWS and SwAV)."""
    lr_in_buffer: bool = True
    """True multiplies the learning rate into the momentum buffer, as in PAWS; false, into the step, as in SwAV."""
    exclude: bool = True
    """True leaves biases and normalisation layers out of decay and trust ratios (PAWS); false includes them (SwAV)."""

    def __post_init__(self) -> None:
        _check(momentum=self.momentum, weight_decay=self.weight_decay, backbone_lr=self.backbone_lr)
        _check(trust_coefficient=self.trust_coefficient, eps=self.eps)


@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """Stochastic gradient descent with momentum (`torch.optim.SGD`)."""

    kind: Literal["sgd"] = "sgd"
    """Selects SGD."""
    lr: ScheduleConfig
    """Learning rate over training."""
    momentum: float = 0.9
    """Momentum."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: float = 0.0
    """L2 coefficient of weights; biases and normalisation layers follow `exclude`."""
    weight_decay_schedule: ScheduleConfig | None = None
    """Weight decay over training, in place of `weight_decay`."""
    backbone_lr: float = 1.0
    """Learning rate of the backbone as a multiple of `lr`; use less than 1 if it starts from good weights."""
    exclude: bool = True
    """True leaves biases and normalisation layers out of decay; false includes them (SwAV's linear evaluation)."""

    def __post_init__(self) -> None:
        _check(momentum=self.momentum, weight_decay=self.weight_decay, backbone_lr=self.backbone_lr)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is on, but momentum is 0: raise momentum or switch nesterov off.")


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """Adam with decoupled weight decay (`torch.optim.AdamW`), the usual choice for vision transformers."""

    kind: Literal["adamw"] = "adamw"
    """Selects AdamW."""
    lr: ScheduleConfig
    """Learning rate over training."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.05
    """Decoupled weight decay per step, before the factor `lr`; biases and normalisation layers are never decayed."""
    weight_decay_schedule: ScheduleConfig | None = None
    """Weight decay over training, in place of `weight_decay`."""
    backbone_lr: float = 1.0
    """Learning rate of the backbone as a multiple of `lr`; use less than 1 if it starts from good weights."""

    def __post_init__(self) -> None:
        _check(weight_decay=self.weight_decay, eps=self.eps, backbone_lr=self.backbone_lr)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}: use two numbers of 0 or more and less than 1.")


@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon for the kernels of convolutions, SGD with Nesterov's momentum for the rest; see `tapetum.optim.muon.Muon`.

    For networks that normalise after each convolution, such as `small_net`, `resnet` and `wide_resnet`.
    """

    kind: Literal["muon"] = "muon"
    """Selects Muon."""
    lr: ScheduleConfig
    """Learning rate over training, of SGD."""
    kernel_lr: float = 0.05
    """Muon's learning rate where `lr` is at its peak, relative to the length of a kernel; it follows the same schedule.
    """
    momentum: float = 0.9
    """Momentum of SGD."""
    kernel_momentum: float = 0.6
    """Momentum of Muon."""
    weight_decay: float = 0.0
    """L2 coefficient of weights that SGD trains; biases and normalisation layers are never decayed."""
    weight_decay_schedule: ScheduleConfig | None = None
    """Weight decay over training, in place of `weight_decay`."""
    backbone_lr: float = 1.0
    """Learning rate of the backbone as a multiple of its own; use less than 1 if it starts from good weights."""

    def __post_init__(self) -> None:
        _check(momentum=self.momentum, weight_decay=self.weight_decay, backbone_lr=self.backbone_lr)
        _check(kernel_lr=self.kernel_lr)
        if not 0 <= self.kernel_momentum < 1:
            raise ValueError(f"kernel_momentum is {self.kernel_momentum}: use 0 or more and less than 1.")
        if self.lr.peak <= 0:
            raise ValueError(f"lr.peak is {self.lr.peak}: Muon's learning rate follows it, so use more than 0.")


OptimizerConfig = LARSConfig | SGDConfig | AdamWConfig | MuonConfig
"""The `optimizer:` section of a recipe; `kind` selects one of them."""


def _check(**values: float) -> None:
    for name, number in values.items():
        if number < 0 or (name == "momentum" and number >= 1):
            limit = "0 or more and less than 1" if name == "momentum" else "0 or more"
            raise ValueError(f"{name} is {number}: use {limit}.")


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    """Build an optimizer for the model's trainable parameters; learning rates are 0 until `set_schedules`.

    Each of its groups lists the sorted names of its parameters under "param_names"; "decayed" is True if weight decay
    applies to them.

    Raises:
        ValueError: the model has no trainable parameter.

    Example:
        >>> config = SGDConfig(lr=ScheduleConfig(peak=0.1))
        >>> [group["param_names"] for group in build_optimizer(config, nn.Linear(2, 2)).param_groups]
        [['weight'], ['bias']]
    """
    if isinstance(config, LARSConfig):
        groups = group_parameters(model, exclude=config.exclude, backbone_lr=config.backbone_lr)
        return LARS(
            [{**group, "adapt": group["decayed"]} for group in groups],
            lr=0.0,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            trust_coefficient=config.trust_coefficient,
            eps=config.eps,
            lr_in_buffer=config.lr_in_buffer,
        )
    if isinstance(config, SGDConfig):
        return torch.optim.SGD(
            group_parameters(model, exclude=config.exclude, backbone_lr=config.backbone_lr),
            lr=0.0,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            foreach=True,
        )
    if isinstance(config, MuonConfig):
        groups = _with_kernels(group_parameters(model, backbone_lr=config.backbone_lr), config)
        return Muon(groups, lr=0.0, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(
        group_parameters(model, backbone_lr=config.backbone_lr),
        lr=0.0,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        foreach=True,
    )


def _with_kernels(groups: list[dict[str, Any]], config: MuonConfig) -> list[dict[str, Any]]:
    """Move the kernels of each group into one of its own, which Muon trains."""
    found = []
    for group in groups:
        kernels = [(name, p) for name, p in group["params"] if is_kernel(p)]
        rest = [(name, p) for name, p in group["params"] if not is_kernel(p)]
        rate = group.get("lr_factor", 1.0) * config.kernel_lr / config.lr.peak
        orthogonal = {"orthogonal": True, "momentum": config.kernel_momentum, "lr_factor": rate, "decayed": False}
        found += [{**group, "params": rest}] if rest else []
        found += [{**group, "params": kernels, **orthogonal}] if kernels else []
    return found


def fuse(optimizer: Optimizer) -> None:
    """Let SGD and AdamW update all parameters in one kernel, which reads each of them once; others stay.

    For GPUs, where the several passes of `foreach` cost launches and memory traffic. On a CPU it would move the last
    bits. Call it before the first step: AdamW then counts its steps on the device, too.

    Example:
        >>> config = SGDConfig(lr=ScheduleConfig(peak=0.1))
        >>> fuse(optimizer := build_optimizer(config, nn.Linear(2, 2)))
        >>> [(group["fused"], group["foreach"]) for group in optimizer.param_groups]
        [(True, False), (True, False)]
    """
    for group in optimizer.param_groups:
        if "fused" in group:
            group.update(fused=True, foreach=False)


def set_schedules(
    optimizer: Optimizer, config: OptimizerConfig, step: int, steps_per_epoch: int, total_steps: int
) -> tuple[float, float]:
    """Write the learning rate and weight decay of one step into the optimizer's groups.

    Args:
        optimizer: from `build_optimizer`, possibly wrapped; groups without "decayed" count as decayed.
        config: the config that built it.
        step: number of steps finished before this one, from 0.
        steps_per_epoch: steps in an epoch.
        total_steps: length of the training, in steps.

    Returns:
        The learning rate and the weight decay (of the decayed parameters), e.g. for logging.

    Example:
        >>> config = SGDConfig(lr=ScheduleConfig(peak=0.1, shape="constant"), weight_decay=0.01)
        >>> set_schedules(build_optimizer(config, nn.Linear(2, 2)), config, 0, 10, 100)
        (0.1, 0.01)
    """
    lr = value(config.lr, step, steps_per_epoch, total_steps)
    decay = config.weight_decay
    if config.weight_decay_schedule is not None:
        decay = value(config.weight_decay_schedule, step, steps_per_epoch, total_steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
        group["weight_decay"] = decay if group.get("decayed", True) else 0.0
    return lr, decay
