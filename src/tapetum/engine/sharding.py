"""Who holds a method's weights: every process all of them, or each process a part of the backbone's (FSDP2).

Sharded are the weights of the backbone, their gradients and the optimizer's state of them, by rows (dimension 0):
`torch.distributed.fsdp.fully_shard` gathers the weights of one block (`tapetum.ops.blocks`) at a time, in float32, for
the forward and again for the backward pass, and sums each block's gradients so that every process gets those of its
rows. Heads and prototypes, a few percent of the weights, stay whole everywhere: methods read and change them in hooks.

The optimizer never sees a distributed tensor. It updates this process's rows as plain tensors, which is right for
everything that it does element by element; norms of whole tensors (LARS, the gradient's norm) add up the squares of
all processes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from tapetum.engine.checkpoint import Checkpoint
from tapetum.engine.sharded_checkpoint import ROWS
from tapetum.methods.base import Method
from tapetum.ops.blocks import blocks_of
from tapetum.ops.collectives import rank, sum_over_ranks, world_size
from tapetum.optim.lars import LARS
from tapetum.optim.muon import Muon


class Weights:
    """Every process holds all weights: one process, or several under DistributedDataParallel."""

    is_sharded = False

    def __init__(self, method: Method) -> None:
        self.stored = method
        """What checkpoints hold: the method, or what this process has of it."""

    def gradient_norm(self, optimizer: Optimizer) -> Tensor:
        """Return the Euclidean norm over all parameters, 0-d; called once between the backward pass and the step."""
        return torch.nn.utils.get_total_norm(_gradients(_with_gradient(optimizer)))

    def gather(self) -> None:
        """Make all weights whole in every process, until `scatter`. All processes must call it."""

    def scatter(self) -> None:
        """Keep this process's part alone, as training needs it."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within this context all weights are whole, so each process may run the method as often as it likes."""
        self.gather()
        try:
            yield
        finally:
            self.scatter()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights and buffers of a state dict of the whole method."""
        self.stored.load_state_dict(dict(tensors))

    def own_part(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return what this process keeps of a checkpoint of the whole."""
        return checkpoint

    def rows_of(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return what this process writes of its own checkpoint: all, or its rows with their place in the whole."""
        return checkpoint


def weights_of(method: Method) -> Weights:
    """Return who holds the weights of a method that a runtime has set up."""
    found: Weights | None = getattr(method, "_sharded_weights", None)
    return found or Weights(method)


def shard(method: Method, optimizer: Optimizer, device: torch.device) -> None:
    """Shard a method's backbone over all processes, in place, and hand the optimizer this process's rows.

    Raises:
        ValueError: the method has no backbone, or torch cannot shard it.
    """
    if not weights_of(method).is_sharded:
        method._sharded_weights = ShardedWeights(method, optimizer, device)  # type: ignore[assignment]


class ShardedWeights(Weights):
    """Each process holds some rows of every weight of the backbone."""

    is_sharded = True

    def __init__(self, method: Method, optimizer: Optimizer, device: torch.device) -> None:
        backbone = getattr(method, "backbone", None)
        if not isinstance(backbone, nn.Module):
            raise ValueError(f"runtime.strategy is fsdp, but {type(method).__name__} has no backbone: use ddp.")
        if isinstance(optimizer, Muon):
            raise ValueError(
                "runtime.strategy is fsdp, which splits the kernels that optimizer.kind muon needs whole: use ddp, or "
                "another optimizer."
            )
        if getattr(method, "teacher", None) is not None:
            raise ValueError(
                "runtime.strategy is fsdp, which splits the weights that the teacher averages: use ddp, or set "
                "method.teacher_decay to 0."
            )
        names = {id(parameter): name for name, parameter in method.named_parameters()}
        self._sharded = _fully_shard(method, backbone, device)
        self._own = {name: _rows_here(parameter) for name, parameter in self._sharded.items()}
        self._own_ids = {id(parameter) for parameter in self._own.values()}
        for group in optimizer.param_groups:
            group["params"] = [self._own.get(names[id(p)], p) for p in group["params"]]
        if isinstance(optimizer, LARS):
            optimizer.norms = self.norms
        for name, parameter in method.named_parameters():
            if name not in self._sharded and parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_average_gradient)
        self._backbone: Any = backbone
        self._units: list[Any] = [*blocks_of(backbone), backbone]
        self._is_whole = False
        # It has of a method what checkpoints need.
        self.stored = cast(Method, ShardedMethod(method, self._own, self))

    def norms(self, parameters: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the norm of each whole tensor, 0-d, given the optimizer's parameters that the tensors belong to."""
        found = list(torch._foreach_norm(list(tensors)))
        sharded = [i for i, parameter in enumerate(parameters) if id(parameter) in self._own_ids]
        if sharded:
            squares = torch.stack([found[i] for i in sharded]).double().square()
            for i, norm in zip(sharded, sum_over_ranks(squares).sqrt().unbind()):
                found[i] = norm.to(found[i].dtype)
        return found

    def gradient_norm(self, optimizer: Optimizer) -> Tensor:
        for name, parameter in self._sharded.items():
            gradient: Any = parameter.grad
            self._own[name].grad = None if gradient is None else gradient.to_local()
            parameter.grad = None
        parameters = _with_gradient(optimizer)
        return torch.linalg.vector_norm(torch.stack(self.norms(parameters, _gradients(parameters))))

    def gather(self) -> None:
        if not self._is_whole:
            self._backbone.set_reshard_after_forward(False)
            for unit in self._units:
                unit.unshard()
        self._is_whole = True

    def scatter(self) -> None:
        if self._is_whole:
            for unit in self._units:
                unit.reshard()
                unit.set_reshard_after_forward(unit is not self._backbone, recurse=False)
        self._is_whole = False

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        was_whole = self._is_whole
        part = self.own_part(Checkpoint({f"method.{name}": tensor for name, tensor in tensors.items()}, {}))
        self.stored.load_state_dict(part.part("method"))
        if was_whole:
            self.gather()

    def own_part(self, checkpoint: Checkpoint) -> Checkpoint:
        tensors = dict(checkpoint.tensors)
        for name, tensor in tensors.items():
            parameter = self._parameter_of(name)
            if parameter in self._sharded and tensor.shape == self._sharded[parameter].shape:
                rows = len(self._own[parameter])
                start = min(len(tensor), rank() * -(-len(tensor) // world_size()))
                tensors[name] = tensor[start : start + rows].clone(memory_format=torch.contiguous_format)
        return replace(checkpoint, tensors=tensors)

    def rows_of(self, checkpoint: Checkpoint) -> Checkpoint:
        rows = {}
        for name, tensor in checkpoint.tensors.items():
            parameter = self._parameter_of(name)
            if parameter in self._own and tensor.shape == self._own[parameter].shape:
                rows[name] = len(self._sharded[parameter])
        is_written = [name for name in checkpoint.tensors if rank() == 0 or name in rows or name.startswith("local.")]
        tensors = {name: checkpoint.tensors[name] for name in is_written}
        return Checkpoint(tensors, {**checkpoint.scalars, ROWS: rows})

    def _parameter_of(self, name: str) -> str:
        """Return the parameter that a checkpoint's tensor belongs to, as method.NAME or optimizer.NAME.KEY."""
        kind, _, rest = name.partition(".")
        return rest.rpartition(".")[0] if kind == "optimizer" else rest if kind == "method" else ""


class ShardedMethod:
    """What this process has of a sharded method, as checkpoints see it: its rows, and everything that is whole."""

    def __init__(self, method: Method, own: Mapping[str, nn.Parameter], weights: Weights) -> None:
        self._method, self._own, self._weights = method, own, weights
        self.local_state, self.load_local_state = method.local_state, method.load_local_state

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, self._own.get(name, parameter)) for name, parameter in self._method.named_parameters())

    def parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def state_dict(self) -> dict[str, Any]:
        self._weights.scatter()
        return {name: self._own.get(name, value) for name, value in self._method.state_dict().items()}

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        here = self.state_dict()
        for name in sorted(here.keys() ^ tensors.keys()):
            raise RuntimeError(f"{'Missing' if name in here else 'Unexpected'} key in state_dict: {name}")
        for name, tensor in tensors.items():
            if here[name].shape != tensor.shape:
                raise RuntimeError(f"size mismatch for {name}: {tuple(tensor.shape)} is not {tuple(here[name].shape)}")
            here[name].copy_(tensor)


def _fully_shard(method: Method, backbone: nn.Module, device: torch.device) -> dict[str, nn.Parameter]:
    """Shard a backbone block by block; return its parameters by their names in the method."""
    # Imported here because few runs need it.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    with torch.no_grad():
        for tensor in (*method.parameters(), *method.buffers()):
            dist.broadcast(tensor, 0)  # as DistributedDataParallel does
    # An in-place operation on a view would drop the hook that gathers weights for the backward pass.
    backbone.register_forward_hook(lambda module, inputs, output: output.clone() if output._is_view() else output)
    backbone.to(memory_format=torch.contiguous_format)  # FSDP shards no other layout; images may still be channels-last
    mesh = init_device_mesh(device.type, (world_size(),))
    try:
        for block in blocks_of(backbone):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        whole: Any = fully_shard(backbone, mesh=mesh, reshard_after_forward=False)
    except (ValueError, NotImplementedError, AssertionError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        message = f"runtime.strategy is fsdp, but torch cannot shard this backbone ({reason}): use ddp."
        raise ValueError(message) from error
    if device.type == "cpu":
        whole.set_force_sum_reduction_for_comms(True)  # gloo knows no averages
    return {name: p for name, p in method.named_parameters() if isinstance(p, DTensor)}


@torch.no_grad()
def _rows_here(parameter: Any) -> nn.Parameter:
    """This process's rows of a sharded parameter, which share its memory."""
    return nn.Parameter(parameter.detach().to_local(), requires_grad=parameter.requires_grad)


def _average_gradient(parameter: Tensor) -> None:
    """Average the gradient of a parameter that every process has over the processes.

    With several batches for a step it is averaged after each of them; what was averaged before stays as it is.
    """
    assert parameter.grad is not None
    parameter.grad.div_(world_size())
    dist.all_reduce(parameter.grad)


def _with_gradient(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]
