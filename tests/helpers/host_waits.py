"""Finds what would make the host wait for a GPU, on a machine without one.

Tensors on torch's `meta` device have no values. They stand for a GPU's, and those on the CPU for the host's: reading a
value back raises an error, and `host_waits` lists the operations that wait without reading anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {
    "_linalg_check_errors": "reads whether a matrix was singular",
    "nonzero": "has as many rows as it finds",
    "masked_select": "has as many rows as it finds",
    "bincount": "reads the largest value",
    "_unique2": "has as many rows as it finds",
    "unique_dim": "has as many rows as it finds",
    "unique_consecutive": "has as many rows as it finds",
    "equal": "reads the answer",
    "_local_scalar_dense": "reads a value",
    "is_nonzero": "reads a value",
}
"""Operations after which a GPU's stream is waited for, although none of them returns to Python what it read."""


class _Operations(TorchDispatchMode):
    """Every operation that reaches a kernel, of the backward pass too."""

    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        result = func(*args, **(kwargs or {}))
        why = _why(name, args, kwargs or {}, result)
        if why is not None:
            self.found.add(f"{name}: {why}")
        return result


class _Lists(TorchFunctionMode):
    """Lists and arrays of Python that become tensors on the device: the copy happens where no kernel is called."""

    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and _is_on_device(result) and not _is_on_device(args[0]):
            self.found.add("tensor: copies a list from the host, and the host waits")
        if func in (Tensor.__getitem__, Tensor.__setitem__) and _is_on_device(args[0]):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, (list, np.ndarray)) for part in parts):
                self.found.add("index: its indices are a list on the host")
        return result


@contextmanager
def host_waits() -> Iterator[set[str]]:
    """Collects what would wait, of forward and backward passes alike."""
    found: set[str] = set()
    with _Operations(found), _Lists(found):
        yield found


def _why(name: str, args: Any, kwargs: Any, result: Any) -> str | None:
    tensors = [a for a in args if isinstance(a, Tensor)]
    on_device = any(_is_on_device(tensor) for tensor in (*tensors, result))
    if not on_device:
        return None
    if name in WAITS:
        return WAITS[name]
    from_host = any(t.device.type == "cpu" for t in tensors)
    is_copy = name in ("_to_copy", "copy_") and from_host
    if is_copy and not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])):
        return "copies from the host, and the host waits"
    if name in ("index", "index_put", "index_put_") and any(_is_on_host(i) for i in args[1]):
        return "its indices are on the host"
    return None


def _is_on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "meta"


def _is_on_host(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu"


def to_meta(value: Any) -> Any:
    """The tensors of a tensor, mapping, sequence or dataclass, without their values."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {name: to_meta(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(to_meta(part) for part in value)
    if hasattr(value, "__dataclass_fields__"):
        return type(value)(**{name: to_meta(getattr(value, name)) for name in value.__dataclass_fields__})
    return value


@torch.no_grad()
def method_to_meta(method: Any) -> Any:
    """Move a method to `meta` together with the state that its process keeps."""
    state = method.local_state()
    method.to("meta")
    method.load_local_state(to_meta(state))
    return method
