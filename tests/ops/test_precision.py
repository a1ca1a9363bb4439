"""Every public function of losses/ and ops/ that takes tensors, found by walking: autocast must not reach into it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import tapetum.losses
import tapetum.ops
from tapetum.ops.precision import full_precision
from tapetum.ops.randomness import make_keys

pytestmark = pytest.mark.usefixtures("one_thread")

MOVES_ONLY = ("tapetum.ops.collectives",)
"""Their functions carry values between ranks in the type that they come in, and are the identity when alone."""


def examples() -> dict[str, Any]:
    """Arguments by parameter name: 4 images in 2 large and 1 small view, 6 supports, 3 classes, 5 dimensions.

    Where functions mean different things by one name, "function.name" goes before "name".
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        # Values that bfloat16 holds, so that a copy in it is the same matrix.
        return torch.randn(*shape, generator=generator).bfloat16().float()

    def rows(count: int) -> Tensor:
        return torch.rand(count, 3, generator=generator).softmax(1).bfloat16().float()

    return {
        "queries": normal(12, 5),
        "anchor_views": normal(12, 5),
        "anchor_supports": normal(6, 5),
        "target_views": normal(8, 5),
        "target_supports": normal(6, 5),
        "supports": normal(6, 5),
        "support_labels": rows(6),
        "probabilities": rows(8),
        "targets": rows(8),
        "labels": torch.arange(3).repeat(2),
        "classes": torch.arange(3),
        "suncet_loss.labels": torch.eye(3).repeat(2, 1),
        "projections": normal(6, 5),
        "rows": normal(6, 5),
        "prototypes": normal(4, 5),
        "scores": normal(6, 4),
        "queue_scores": normal(3, 4),
        "codes": torch.rand(1, 6, 4, generator=generator).softmax(2).bfloat16().float(),
        "swapped_prediction_loss.scores": normal(3, 6, 4),
        "assigning_views": (1,),
        "epsilon": 0.1,
        "iterations": 3,
        "value": normal(3),
        "temperature": 0.1,
        "sharpen_temperature": 0.25,
        "smoothing": 0.1,
        "num_small_views": 1,
        "num_views": 2,
        "logits": normal(6, 3),
        "pseudo_labels": torch.arange(3),
        "neighbour_loss.pseudo_labels": torch.eye(3),
        "weights": torch.tensor([1.0, 0.5, 0.0]),
        "class_mean": rows(1)[0],
        "label_smoothing": 0.1,
        "prior_temperature": 0.5,
        "prior_power": 1.0,
        "label_ratio": 5.0,
        "initial": normal(3, 5),
        "count": 3,
        "key": make_keys(0),
        "cluster_loss.scores": normal(3, 6, 4),
        "nearest": normal(8),
        "embeddings": normal(12, 5),
    }


def public_functions() -> Iterator[Callable[..., Any]]:
    for package in (tapetum.losses, tapetum.ops):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, function in inspect.getmembers(module, inspect.isfunction):
                annotations = {k: str(v) for k, v in function.__annotations__.items() if k != "return"}
                takes_tensors = any("Tensor" in annotation for annotation in annotations.values())
                if function.__module__ == module.__name__ and not name.startswith("_") and takes_tensors:
                    yield function


def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
    known = examples()
    required = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    keys = {name: own if (own := f"{function.__qualname__}.{name}") in known else name for name in required}
    lacking = [key for key in keys.values() if key not in known]
    assert not lacking, f"examples() above lacks {lacking}, which {function.__qualname__} takes: add them"
    return {name: known[key] for name, key in keys.items()}


class Watch(TorchFunctionMode):
    """Notes what torch is asked to do while autocast is on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_access = getattr(function, "__name__", "") == "__get__"  # of .dtype, .shape, .T and the like: no arithmetic
        if torch.is_autocast_enabled("cpu") and not is_access:
            self.seen.append(getattr(function, "__name__", str(function)))
        return function(*args, **(kwargs or {}))


def results_of(function: Callable[..., Any], arguments: dict[str, Any]) -> list[Tensor]:
    results = function(**arguments)
    if isinstance(results, dict):
        return list(results.values())
    return list(results) if isinstance(results, tuple) else [results]


def outputs_and_gradients(function: Callable[..., Any], arguments: dict[str, Any], autocast: bool) -> list[Tensor]:
    """Results, then the gradient of each floating argument (None where it takes none)."""
    leaves = {
        name: value.clone().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        results = results_of(function, leaves)
    differentiable = [result for result in results if result.requires_grad]
    if differentiable:
        torch.stack([result.double().square().sum() for result in differentiable]).sum().backward()
    gradients = [leaf.grad for leaf in leaves.values() if isinstance(leaf, Tensor) and leaf.grad is not None]
    return [*results, *gradients]


def faults(function: Callable[..., Any]) -> list[str]:
    """Whatever of a function depends on autocast."""
    arguments = arguments_of(function)
    found = []
    with torch.autocast("cpu", dtype=torch.bfloat16), Watch() as watch:
        function(**arguments)
    if watch.seen:
        found.append(f"runs {watch.seen} inside autocast")
    outside = outputs_and_gradients(function, arguments, autocast=False)
    inside = outputs_and_gradients(function, arguments, autocast=True)
    if not all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(outside, inside, strict=True)):
        found.append("has other bits inside autocast")
    if function.__module__ in MOVES_ONLY:
        return found
    # What a network hands over under autocast: the same numbers, in bfloat16.
    lowered = {k: v.bfloat16() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in arguments.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = results_of(function, lowered)
    for result, expected in zip(results, outside):
        if result.dtype not in (torch.float32, torch.int64) or not torch.equal(result, expected):
            found.append(f"gives other bits in {result.dtype} for bfloat16 arguments")
    return found


FUNCTIONS = sorted(public_functions(), key=lambda function: (function.__module__, function.__qualname__))
NAMES = [f"{function.__module__}.{function.__qualname__}" for function in FUNCTIONS]


def test_the_walk_finds_the_functions():
    assert {"tapetum.losses.paws.paws_loss", "tapetum.ops.soft_neighbours.soft_neighbours"} <= set(NAMES)
    assert len(FUNCTIONS) >= 10


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
def test_autocast_changes_no_bit(function):
    assert faults(function) == []


@pytest.mark.parametrize(
    "function",
    [f for f in FUNCTIONS if f.__module__ not in MOVES_ONLY],
    ids=[name for name in NAMES if not name.startswith(MOVES_ONLY)],
)
def test_without_the_decorator_it_would_be_noticed(function):
    assert hasattr(function, "__wrapped__"), "@full_precision is missing"
    try:
        found = faults(inspect.unwrap(function))
    except RuntimeError as error:  # some operations take no mixture of types
        found = [str(error)]
    assert found != []


def test_double_precision_stays_and_half_is_raised():
    seen = full_precision(lambda *tensors, named: [t.dtype for t in (*tensors, named)])
    kinds = [torch.float64, torch.float32, torch.float16, torch.int64]
    got = seen(*(torch.zeros(1, dtype=kind) for kind in kinds), named=torch.zeros(1, dtype=torch.bfloat16))
    assert got == [torch.float64, torch.float32, torch.float32, torch.int64, torch.float32]


def test_autocast_is_on_again_afterwards():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full_precision(lambda x: x)(torch.zeros(1))
        assert torch.is_autocast_enabled("cpu")
        with pytest.raises(ZeroDivisionError):
            full_precision(lambda x: 1 / 0)(torch.zeros(1))
        assert torch.is_autocast_enabled("cpu")
