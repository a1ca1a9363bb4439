"""The devices of a run and how it computes on them: the `runtime:` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """The devices of a run and the number formats it computes in."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""
    devices: int = 1
    """Number of devices, one process each; on a CPU, number of processes. torchrun and srun override it."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """bf16 runs the forward under bfloat16 autocast; auto does so if the device has hardware units for it."""
    channels_last: bool | None = None
    """Memory format of images and convolutions; None uses channels-last where auto precision would choose bf16."""
    compile: bool = False
    """Compile the backbone with torch.compile: takes a minute or so at the start, and is meant for GPUs. On a CPU,
    steps were slower with it."""
    threads: int | None = None
    """CPU threads per process; None divides all that this process may use among the processes."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the backbone. ddp: each holds all of it. fsdp: each holds a part of its weights, of
    their gradients and of the optimizer's state, and gathers a block's weights while it computes with them."""
    recompute: Literal["none", "blocks"] = "none"
    """Activation (gradient) checkpointing. blocks: the forward pass keeps what goes into each block of the backbone,
    and the backward pass computes the rest again: less memory, about a third more computing. See also
    `support.chunk`."""

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError(f"runtime.devices is {self.devices}: use 1 or more.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"runtime.threads is {self.threads}: use 1 or more, or null for all.")
        for name, usual in (("strategy", "ddp"), ("recompute", "none")):
            if self.compile and getattr(self, name) != usual:
                raise ValueError(
                    f"runtime.compile is true, which does not go with runtime.{name} {getattr(self, name)}: "
                    f"set compile to false, or {name} to {usual}."
                )

    def to_use(self) -> RuntimeConfig:
        """Return the config for using what was trained: nothing is shared out, computed again or compiled.

        Example:
            >>> RuntimeConfig(devices=4, strategy="fsdp").to_use().strategy
            'ddp'
        """
        return replace(self, strategy="ddp", recompute="none", compile=False)
