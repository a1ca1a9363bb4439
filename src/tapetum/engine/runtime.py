"""Devices, processes and precision: the only module that uses Lightning Fabric.

Fabric launches processes, picks devices and wraps the model for several devices. Its precision plugins are not used:
they cast everything that crosses the wrapper (labels smoothed in float32 would come back rounded). Instead, autocast is
entered here, around the forward alone, and parameters stay in float32.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tapetum.data.batch import Batch, Views
from tapetum.engine.runtime_config import RuntimeConfig
from tapetum.engine.sharding import shard
from tapetum.methods.base import Method
from tapetum.ops.collectives import gather_on_first, leave_group, sum_over_ranks
from tapetum.optim.muon import Muon
from tapetum.optim.optimizers import fuse
from tapetum.system.launcher import Launched, launched
from tapetum.system.machine import available_threads, chosen_threads, keep_freed_memory
from tapetum.system.notices import notify

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment
    from lightning_fabric.wrappers import _FabricModule

__all__ = ["Runtime", "RuntimeConfig", "cpu_has", "has_bf16_units"]

T = TypeVar("T")
COMPILED_SHAPES = 64
"""So many shapes of batches a compiled backbone may meet; torch's own limit is 8."""


def has_bf16_units(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices faster than float32: AMX or AVX512_BF16, Ampere or newer."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return any(cpu_has(unit) for unit in ("amx_tile", "avx512_bf16"))
    return False


def cpu_has(unit: str) -> bool:
    """Whether torch finds an instruction set, e.g. "amx_tile" or "avx512_bf16", on this CPU."""
    # These functions are private in torch and renamed between releases, so they may not exist.
    probe: Callable[[], bool] | None = getattr(torch.cpu, f"_is_{unit}_supported", None)
    return bool(probe()) if probe is not None else False


class Runtime:
    """The device and number formats of one process: a `RuntimeConfig` with every `None` and "auto" resolved.

    Attributes:
        device: this process's torch.device.
        rank, world_size: of this process; valid after `launch`.
        precision: "float32" or "bf16".
        channels_last, compile: as in the config, resolved.

    Example:
        >>> runtime = Runtime(RuntimeConfig(accelerator="cpu", precision="float32", threads=1))
        >>> runtime.launch()
        >>> runtime.device.type, runtime.world_size, runtime.precision
        ('cpu', 1, 'float32')
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self.config = config
        self._place = launched()
        self._fabric = _fabric(config, self._place)
        self.device: torch.device = self._fabric.device
        units = has_bf16_units(self.device)
        automatic = "bf16" if units else "float32"
        self.precision: str = automatic if config.precision == "auto" else config.precision
        self.channels_last: bool = units if config.channels_last is None else config.channels_last
        self.compile: bool = config.compile

    @property
    def rank(self) -> int:
        return self._fabric.global_rank

    @property
    def world_size(self) -> int:
        return self._fabric.world_size

    def launch(self) -> None:
        """Start the other processes, join them and set this one's thread count. Call once, before building anything.

        With several devices, this process's command line is run once more for each further device, unless torchrun
        or srun has already started all processes.
        """
        threads, is_unset = available_threads(), "OMP_NUM_THREADS" not in os.environ
        atexit.register(leave_group)
        self._fabric.launch()
        if is_unset:  # Fabric leaves this process's share there, which the next launch would divide again
            os.environ.pop("OMP_NUM_THREADS", None)
        self.device = self._fabric.device
        place = self._place
        if place is not None and place.world_size != self.config.devices:
            was = f"runtime.devices={self.config.devices}"
            notify(f"training in the {place.world_size} processes that {place.by} started, in place of {was}")
        # Processes that compute on the CPU share what OMP_NUM_THREADS says; beside a GPU, each has as many.
        is_for_each = self.device.type == "cuda" and chosen_threads() is not None
        own = threads if is_for_each else threads // self.config.devices
        share = own if place is None else place.threads or threads // place.local_size
        torch.set_num_threads(self.config.threads or max(1, share))
        if self.config.strategy == "fsdp" and self.world_size == 1:
            raise ValueError(
                "runtime.strategy is fsdp, which shares a network among processes, but there is one process: "
                "set runtime.devices to 2 or more, or strategy to ddp."
            )
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.device.type == "cuda":
            # cuDNN's timing trials can pick another algorithm, and so other bits, in each process.
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True

    def resolved(self) -> RuntimeConfig:
        """Return the config with the detected values filled in, as a recipe stores it."""
        precision: Literal["float32", "bf16"] = "bf16" if self.precision == "bf16" else "float32"
        return replace(
            self.config,
            devices=self.world_size,
            precision=precision,
            channels_last=self.channels_last,
            threads=torch.get_num_threads(),
        )

    def setup(self, method: Method, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Move a method to the device, set its memory format, and compile and wrap it.

        Args:
            method: changed in place (device, memory format, compiled `backbone`); its state-dict names stay.
            optimizer: over the method's parameters, which stay the same objects; with FSDP it gets this process's rows.

        Returns:
            The module to call for a forward (call hooks on `method` itself) and the optimizer to step.

        Raises:
            ValueError: `compile` is true or `strategy` fsdp, but the method has no `backbone`.
        """
        self.equip(method)
        if self.device.type == "cuda":
            fuse(optimizer)
        if self.precision == "bf16" and isinstance(optimizer, Muon):
            optimizer.products = torch.bfloat16
        if self.config.strategy == "fsdp":
            shard(method, optimizer, self.device)
            return method, optimizer
        module, wrapped = self._fabric.setup(method, optimizer)
        return module, wrapped

    def equip(self, method: Method) -> None:
        """As `setup`, for a method that will not be trained: nothing is wrapped for several processes."""
        if self.channels_last:
            method.to(memory_format=torch.channels_last)
        if self.compile:
            backbone = getattr(method, "backbone", None)
            if not isinstance(backbone, nn.Module):
                raise ValueError(f"runtime.compile is true, but {type(method).__name__} has no backbone: use false.")
            # Every shape of a batch is compiled for itself: labelled images, views, each size of an evaluation, and
            # last, smaller batches. Past the usual 8, training would go on uncompiled, and other bits come of a resume.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_SHAPES)
            # In place: a wrapper would put `_orig_mod.` into the names of the state dict.
            backbone.compile(dynamic=False)
        method.to(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for every forward, in training and in evaluation."""
        # Weights that are gathered for a block only must not live on as bfloat16 copies in autocast's cache.
        settings: dict[str, Any] = {"cache_enabled": False} if self.config.strategy == "fsdp" else {}
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16", **settings)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss, averaged over ranks."""
        self._fabric.backward(loss)

    def without_reduction(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager[Any]:
        """Return a context that postpones averaging over ranks: for all micro-batches of a step but the last."""
        if not enabled or self.world_size == 1 or self.config.strategy == "fsdp":
            return nullcontext()  # FSDP would have to keep the gradients of all rows
        return self._fabric.no_backward_sync(cast("_FabricModule", module))

    def seed(self, seed: int) -> None:
        """Reseed torch's generators for the CPU and this device (takes 1 us; `torch.manual_seed` takes 200 us)."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def place(self, batch: Batch) -> Batch:
        """Move a batch to this device, its images in this run's memory format."""
        return Batch(
            views=self._views_here(batch.views),
            index=self._here(batch.index),
            support=self._views_here(batch.support),
            support_labels=self._here(batch.support_labels),
            support_classes=self._here(batch.support_classes),
        )

    def place_images(self, images: Tensor) -> Tensor:
        """Move (N, C, H, W) images to this device, in this run's memory format."""
        if self.channels_last:
            return images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return images.to(self.device, non_blocking=True)

    def _views_here(self, views: Views | None) -> Views | None:
        if views is None:
            return None
        return Views(groups=tuple(self.place_images(g) for g in views.groups), counts=views.counts)

    def _here(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self.device, non_blocking=True)

    def gather(self, value: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        """Return every rank's tensors, on the CPU and in rank order, on rank 0; an empty list on the others."""
        local: Mapping[str, Tensor] = {name: tensor.detach().cpu() for name, tensor in value.items()}
        return gather_on_first(local)

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every rank."""
        return self._fabric.broadcast(value)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(sum_over_ranks(torch.tensor(float(flag), device=self.device)) > 0)

    def barrier(self) -> None:
        """Wait until every rank gets here."""
        self._fabric.barrier()


def _fabric(config: RuntimeConfig, place: Launched | None) -> Fabric:
    # Imported here because importing Fabric takes seconds, and reading a recipe should not.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment
    from lightning_fabric.strategies import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it prints a greeting in each process
    if config.accelerator in ("auto", "gpu", "cuda"):
        # cuBLAS reads this when CUDA starts; without it, matrix products may differ from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    wanted = config.devices if place is None else place.world_size
    # Without this flag, DDP regroups its buckets after the first step, so a resumed run sums in another order.
    strategy = DDPStrategy(find_unused_parameters=True) if wanted > 1 else "auto"
    shared: dict[str, Any] = {"accelerator": config.accelerator, "strategy": strategy, "precision": "32-true"}
    try:
        if place is None:
            # Passed explicitly: otherwise Fabric takes a single process inside a Slurm job for one of many.
            return Fabric(devices=config.devices, plugins=[LightningEnvironment()], **shared)
        # Fabric sees each process as a machine with one device, so real machines may run any number of processes.
        devices = _device_of(place, config.accelerator)
        return Fabric(devices=devices, num_nodes=place.world_size, plugins=[_environment(place)], **shared)
    except (MisconfigurationException, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"runtime asks for {wanted} x {config.accelerator}, which this machine does not have ({error}):"
            " set accelerator to auto or cpu."
        ) from error


def _environment(place: Launched) -> LightningEnvironment:
    from lightning_fabric.plugins.environments import LightningEnvironment

    class Environment(LightningEnvironment):
        creates_processes_externally = True
        main_address = place.address
        main_port = place.port

        def local_rank(self) -> int:
            return 0

        def node_rank(self) -> int:
            return place.rank

    return Environment()


def _device_of(place: Launched, accelerator: str) -> list[int] | int:
    """Return a list with the number of the process's GPU, or 1 if it computes on the CPU."""
    count = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    if count == 0:
        return 1
    if place.local_rank < count:
        return [place.local_rank]
    if place.by == "srun" and count == 1:
        return [0]  # Slurm shows each task only its own GPU
    raise ValueError(f"{place.by} started {place.local_size} processes on a machine that shows {count} GPUs")
