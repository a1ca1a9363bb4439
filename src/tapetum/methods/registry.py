"""Methods: one file per paper, and the registry that finds them by the `kind` of a recipe's `method:` section.

A method is imported only when its kind is used. A recipe can only choose among registered kinds. Code from outside the
package comes in through an installed distribution with an entry point in the group `tapetum.methods`, or through the
user's own `--plugin MODULE`, never through a name inside a recipe.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from tapetum.methods.base import Method

METHODS = {
    "deepcluster": "tapetum.methods.deepcluster:DeepCluster",
    "finetune": "tapetum.methods.finetune:Finetune",
    "fixmatch": "tapetum.methods.fixmatch:FixMatch",
    "frozen": "tapetum.methods.frozen:Frozen",
    "paws": "tapetum.methods.paws:PAWS",
    "ropaws": "tapetum.methods.ropaws:RoPAWS",
    "sela": "tapetum.methods.sela:SeLa",
    "simclr": "tapetum.methods.simclr:SimCLR",
    "suave": "tapetum.methods.suave:Suave",
    "suncet": "tapetum.methods.suncet:SuNCEt",
    "supervised": "tapetum.methods.supervised:Supervised",
    "swav": "tapetum.methods.swav:SwAV",
}
"""Methods of this package: kind -> "module:Class"."""

ENTRY_POINT_GROUP = "tapetum.methods"
"""Entry points of other distributions: the name is the kind, the value "module:Class"."""

_registered: dict[str, type[Method]] = {}

MethodClass = TypeVar("MethodClass", bound="type[Method]")


class MethodConfig(Protocol):
    """What every method's config has: it is the `method:` section of a recipe, selected by `kind`."""

    @property
    def kind(self) -> str:
        """The registered name of the method."""


def method_kinds() -> tuple[str, ...]:
    """List every kind that a recipe may name now, sorted.

    Example:
        >>> {"paws", "supervised"} <= set(method_kinds())
        True
    """
    return tuple(sorted({*METHODS, *_registered, *_entry_points()}))


def method_class(kind: str) -> type[Method]:
    """Return the class of a method, imported on first use.

    Raises:
        ValueError: no method of this kind is registered, or an entry point's name is not the kind of its class.

    Example:
        >>> method_class("paws").__name__
        'PAWS'
    """
    if kind in METHODS:
        module, _, name = METHODS[kind].partition(":")
        found: type[Method] = getattr(importlib.import_module(module), name)
        return found
    if kind not in _registered:
        points = _entry_points()
        if kind not in points:
            raise ValueError(unknown_kind(kind))
        register(points[kind].load())
        if kind not in _registered:
            raise ValueError(
                f"the entry point {kind!r} of {ENTRY_POINT_GROUP} loads a method of another kind: "
                "name the entry point after the kind in that method's Config."
            )
    return _registered[kind]


def unknown_kind(kind: object) -> str:
    """Return the error message for a kind that is not registered."""
    known = method_kinds()
    near = difflib.get_close_matches(str(kind), known, n=1)
    guess = f"did you mean {near[0]!r}? Known" if near else "known"
    return f"{kind!r} is no known method: {guess} methods are {', '.join(known)}; load others with --plugin MODULE."


def register(method: MethodClass) -> MethodClass:
    """Register a method from outside this package under its Config's `kind`; usable as a class decorator.

    Args:
        method: a subclass of `tapetum.methods.base.Method` with a frozen, keyword-only dataclass `Config` that has
            a field `kind: Literal["name"] = "name"`.

    Returns:
        The class, unchanged.

    Raises:
        ValueError: `method` is not such a class, or its kind is taken.
    """
    from tapetum.methods.base import Method

    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ValueError(f"{method!r} is no method: register a subclass of tapetum.methods.base.Method.")
    name = f"{method.__module__}.{method.__qualname__}"
    kind = _kind_of(getattr(method, "Config", None))
    if kind is None:
        raise ValueError(
            f"{name} has no usable Config: make it a frozen, keyword-only dataclass with a field "
            'kind: Literal["name"] = "name".'
        )
    taken = METHODS.get(kind) or (
        f"{(old := _registered[kind]).__module__}.{old.__qualname__}" if kind in _registered else None
    )
    if taken is not None and taken not in (name, f"{method.__module__}:{method.__qualname__}"):
        raise ValueError(f"the kind {kind!r} of {name} is taken by {taken}: choose another.")
    if kind not in METHODS:
        _registered[kind] = method
    return method


def load_plugins(modules: Sequence[str]) -> None:
    """Import the user's `--plugin` modules, which call `register`; the current folder is searched last.

    Raises:
        ValueError: a module cannot be found.
    """
    for module in modules:
        if "" not in sys.path:
            sys.path.append("")  # a console script, unlike `python -m`, does not look in the current folder
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the plugin was found, but something that it imports was not
            raise ValueError(
                f"the plugin {module!r} cannot be found: give the name of an importable module, "
                "such as my_method for my_method.py in the current folder."
            ) from error


def _kind_of(config: object) -> str | None:
    if not (isinstance(config, type) and is_dataclass(config)):
        return None
    parameters = config.__dataclass_params__  # type: ignore[attr-defined]
    kinds = [field for field in fields(config) if field.name == "kind" and isinstance(field.default, str)]
    return str(kinds[0].default) if kinds and parameters.frozen and kinds[0].kw_only else None


def _entry_points() -> dict[str, EntryPoint]:
    # Other distributions cannot replace a method of this package.
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in METHODS}
