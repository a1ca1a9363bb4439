"""Reads recipe files: finds them by name or path, merges in the recipes that they extend, and applies overrides."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from tapetum.recipe.yaml_with_lines import Node, RecipeError, read_yaml

Keeps = Callable[[Node, tuple[str, ...], str, str], bool]
"""(whole recipe, path of a section, its new kind, a key of it): whether the new kind can keep the key's value."""

_ALTERNATIVES: dict[tuple[str, ...], tuple[str, ...]] = {("trainer",): ("epochs", "steps", "minutes")}
"""Keys of which a section has only one: setting one replaces the others."""

RECIPE = "recipe.yaml"
"""Name of a run's own recipe, in its folder."""
_SUFFIXES = (".yaml", ".yml")
_LARGEST = 2**16  # bytes; a recipe has some thousands
_DEEPEST = 20  # recipes of which each extends the next


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes in the package, sorted."""
    return tuple(sorted(p.name.removesuffix(".yaml") for p in _shipped().iterdir() if p.name.endswith(".yaml")))


def recipe_text(name_or_path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the text of a recipe, and the name that errors use for it.

    Raises:
        RecipeError: there is no such recipe, or it cannot be read.
    """
    given = os.fspath(name_or_path)
    if given in shipped_recipes() and not given.endswith(_SUFFIXES):
        return (_shipped() / f"{given}.yaml").read_text(encoding="utf-8"), f"{given}.yaml"
    if not given.endswith(_SUFFIXES) and os.sep not in given and not os.path.isfile(given):
        near = difflib.get_close_matches(given, shipped_recipes(), n=1, cutoff=0.5)
        guess = f"did you mean {near[0]!r}?" if near else "`tapetum recipes` lists them."
        raise RecipeError(f"{given!r} is neither a shipped recipe nor a file: {guess}")
    try:
        return _text(Path(given)), given
    except FileNotFoundError as error:
        raise RecipeError(
            f"the recipe {given!r} does not exist: give a file or a name that `tapetum recipes` lists."
        ) from error
    except IsADirectoryError as error:
        raise RecipeError(
            f"the recipe {given!r} is a folder: give a YAML file, such as the recipe.yaml of a run."
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {given!r} is not text in UTF-8: give a YAML file.") from error
    except OSError as error:
        raise RecipeError(f"the recipe {given!r} cannot be read ({error.strerror}): give a file that can.") from error


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise RecipeError(f"the recipe {str(path)!r} has more than {_LARGEST:,} bytes: give a YAML file of a recipe.")
    return content.decode("utf-8").replace("\r\n", "\n")


def read_recipe(text: str, name: str, keeps: Keeps, overrides: Sequence[str] = ()) -> Node:
    """Parse a recipe's text into nodes, merge in the recipe that it extends, and apply overrides in order.

    `extends: NAME` at the top names a shipped recipe or a file next to this one. Sections are merged key by key; if
    both recipes set a value, this recipe's is used.

    Raises:
        RecipeError: the text is not a YAML mapping, recipes extend each other in a circle, or an override is malformed.
    """
    root = _extended(text, name, keeps, seen={os.path.realpath(name): name})
    for override in overrides:
        _override(root, override, keeps)
    return root


def _shipped() -> Path:
    return Path(str(files("tapetum.recipe"))) / "shipped"


def _extended(text: str, name: str, keeps: Keeps, seen: Mapping[str, str]) -> Node:
    """Merge a recipe into those that it extends; `seen` has the names of the recipes on the way here.

    They are told apart by real path or, if shipped, by name: a file may be called like the recipe that it extends.
    """
    root = read_yaml(text, lambda line: f"{name}, line {line}")
    if not isinstance(root.value, dict):
        raise RecipeError(f"{root.place}: a recipe is a mapping: begin with a line such as `description: ...`.")
    extends = root.value.pop("extends", None)
    if extends is None:
        return root
    if not isinstance(extends.value, str):
        raise RecipeError(f"{extends.place}: extends names one recipe: a shipped one or a file next to this one.")
    parent = extends.value
    if parent not in shipped_recipes():
        parent = os.path.normpath(os.path.join(os.path.dirname(name), parent))
        # The command line may name a pipe, which a shell makes of <(...); a file that somebody else wrote may not.
        if os.path.exists(parent) and not os.path.isfile(parent) and not os.path.isdir(parent):
            raise RecipeError(f"{extends.place}: extends: {parent!r} is no file: give a recipe.")
    try:
        parent_text, parent_name = recipe_text(parent)
    except RecipeError as error:
        raise RecipeError(f"{extends.place}: extends: {error}") from error
    identity = parent if parent in shipped_recipes() else os.path.realpath(parent)
    if identity in seen or len(seen) > _DEEPEST:
        circle = " -> ".join([*seen.values(), parent_name][:9])
        raise RecipeError(f"{extends.place}: recipes extend each other in a circle: {circle}.")
    base = _extended(parent_text, parent_name, keeps, {**seen, identity: parent_name})
    _merge(base, base, root, (), keeps)
    return base


def _merge(root: Node, base: Node, child: Node, path: tuple[str, ...], keeps: Keeps) -> None:
    assert isinstance(base.value, dict)
    assert isinstance(child.value, dict)
    _make_room(base, path, child)
    if "kind" in child.value:
        _set(root, base, path, "kind", child.value["kind"], keeps)
    for key, node in child.value.items():
        old = base.value.get(key)
        if old is not None and isinstance(old.value, dict) and isinstance(node.value, dict):
            _merge(root, old, node, (*path, key), keeps)
            old.place = node.place
        else:
            base.value[key] = node


def _make_room(base: Node, path: tuple[str, ...], child: Node) -> None:
    assert isinstance(base.value, dict)
    assert isinstance(child.value, dict)
    names = _ALTERNATIVES.get(path, ())
    if any(name in child.value and child.value[name].value is not None for name in names):
        for name in names:
            base.value.pop(name, None)


def _override(root: Node, override: str, keeps: Keeps) -> None:
    place = f"override {override!r}"
    dotted, equals, text = override.partition("=")
    path = tuple(dotted.strip().split("."))
    if not equals or not all(path):
        raise RecipeError(f"{place}: an override is written key=value, for example optimizer.lr.peak=0.1.")
    section = root
    for depth, key in enumerate(path[:-1], start=1):
        assert isinstance(section.value, dict)
        section = section.value.setdefault(key, Node(None, place))
        if section.value is None:
            section.value, section.place = {}, place
        if not isinstance(section.value, dict):
            raise RecipeError(f"{place}: {'.'.join(path[:depth])} is a single value: set it as a whole.")
    node = read_yaml(text, lambda _: place)
    _make_room(section, path[:-1], Node({path[-1]: node}, place))
    _set(root, section, path[:-1], path[-1], node, keeps)


def _set(root: Node, section: Node, path: tuple[str, ...], key: str, node: Node, keeps: Keeps) -> None:
    """Set a value; a new `kind` clears the section, except for values that the new kind can keep."""
    assert isinstance(section.value, dict)
    old = section.value.get(key)
    section.value[key] = node
    if key == "kind" and isinstance(node.value, str) and old is not None and old.value != node.value:
        kind = node.value
        kept = {name: value for name, value in section.value.items() if keeps(root, path, kind, name)}
        section.value.clear()
        section.value.update(kept)
