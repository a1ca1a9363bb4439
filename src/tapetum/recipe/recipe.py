"""The recipe: everything that determines a run, and the functions that read and write recipes.

    recipe = load_recipe("paws_cifar10_4000", ["data.images=cifar", "trainer.epochs=50"])

A recipe is YAML; each section becomes the frozen dataclass next to the class that it configures. An error in a recipe
is one sentence with file, line, dotted key, value and what would be right. Values are only data: a recipe names
registered kinds, and nothing in it is imported or run. This is the only file that imports pydantic, which checks single
values.
"""

import dataclasses
import difflib
import functools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from tapetum.data.batches.data_config import DataConfig
from tapetum.data.batches.samplers import SupportConfig
from tapetum.data.views.draw import ViewsConfig
from tapetum.engine.runtime import RuntimeConfig
from tapetum.engine.trainer_config import TrainerConfig
from tapetum.methods.registry import MethodConfig, method_class, unknown_kind
from tapetum.nn.backbones import BackboneConfig
from tapetum.optim.optimizers import OptimizerConfig
from tapetum.recipe.fields import (
    admits_null,
    field_notes,
    field_types,
    in_full,
    in_words,
    is_section,
    options,
    required_fields,
    section_class,
    section_item,
    section_kinds,
    show,
    usual_sections,
)
from tapetum.recipe.files import read_recipe, recipe_text
from tapetum.recipe.yaml_with_lines import Node, RecipeError, write_yaml

__all__ = [
    "Recipe",
    "RecipeError",
    "deciding_values",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines a run."""

    description: str = ""
    """One line about the recipe, for people."""
    method: MethodConfig
    """The method, chosen by `kind`; `tapetum recipes --fields METHOD` prints its fields."""
    backbone: BackboneConfig
    """The network below the method's heads, chosen by `kind`."""
    init: str | None = None
    """Start from these weights: the folder of a run, or a file of tensors (.safetensors, .pth); null for random ones.
    They must be of the same backbone; heads are taken if they fit."""
    data: DataConfig
    """Images, labels and batch size."""
    views: ViewsConfig
    """How images are augmented."""
    support: SupportConfig | None = None
    """The labelled images of every step; null for methods that use none."""
    optimizer: OptimizerConfig
    """The optimizer and its schedules, chosen by `kind`."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    """Devices and number formats."""
    trainer: TrainerConfig
    """Length of the run, and how often it logs, evaluates and saves."""
    seed: int = 0
    """Determines initial weights, data order, views and support sets; any whole number."""

    def __post_init__(self) -> None:
        kind = self.method.kind
        if self.support is None and method_class(kind).uses_support:
            raise ValueError(
                f"support is null, but {kind} draws labelled images: give it images_per_class or batch_size."
            )
        is_alone = self.support is not None and self.support.images_per_class == 1 and self.views.support_views == 1
        if is_alone and (kind == "suncet" or bool(getattr(self.method, "suncet_weight", 0.0))):
            raise ValueError(
                "support.images_per_class is 1, but SuNCEt compares the labelled images of a class with each other: "
                "set it to 2 or more, or views.support_views to 2."
            )
        if self.data.folds is not None and self.runtime.devices > 1:
            raise ValueError(
                f"data.folds is {self.data.folds}, for which runtime.devices must be 1: change one of them."
            )
        if self.trainer.keep_best and self.data.folds is not None and self.data.fold is None:
            raise ValueError(
                f"trainer.keep_best is true, but data.folds is {self.data.folds}, with which the training holds out no "
                "labels to choose a checkpoint by: set keep_best to false, or folds to null."
            )


def load_recipe(name_or_path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        name_or_path: the name of a shipped recipe (`tapetum recipes` lists them) or the path of a YAML file.
        overrides: `key.path=value` each, with the value as in YAML; applied in order. Setting a section's `kind`
            drops those of its values that the new kind cannot have; `key=null` removes an optional section.

    Raises:
        RecipeError: the recipe or an override is wrong; one sentence with the place, the value and what would be right.

    Example:
        >>> load_recipe("paws_cifar10_4000", ["trainer.epochs=50"]).trainer.epochs
        50.0
    """
    text, name = recipe_text(name_or_path)
    return parse_recipe(text, name, overrides)


def parse_recipe(text: str, name: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """As `load_recipe`, but from text; `name` appears in errors, and extended files are looked up in its folder."""
    root = read_recipe(text, name, _keeps, overrides)
    return cast(Recipe, _build(Recipe, root, ()))


def dump_recipe(recipe: Recipe) -> str:
    """Write the recipe as YAML, with every field; `parse_recipe` reads it back to an equal recipe."""
    return write_yaml(_plain(recipe))


def deciding_values(recipe: Recipe) -> dict[str, str]:
    """Return the values that decide the bits of a step, by dotted key; image paths and logging, for example, do not.

    Lengths and the seed are left to the trainer, which knows their resolved values.

    Example:
        >>> deciding_values(load_recipe("paws_cifar10_4000"))["optimizer.momentum"]
        '0.9'
    """
    found = {"data.batch_size": str(recipe.data.batch_size)}
    for name in ("method", "backbone", "views", "support", "optimizer"):
        found |= _flat(_plain(getattr(recipe, name)), name)
    return found


def _flat(value: Any, key: str) -> dict[str, str]:
    if not isinstance(value, dict):
        return {key: in_full(value)}
    return {deep: text for name, item in value.items() for deep, text in _flat(item, f"{key}.{name}").items()}


def find_config(wanted: str) -> tuple[str, type]:
    """Find the config class of a method, of another `kind`, or of a recipe's section, and how a recipe selects it.

    Raises:
        ValueError: nothing has this name, or it is a section with several kinds.

    Example:
        >>> find_config("lars")[0]
        'optimizer: {kind: lars}'
    """
    sections = field_types(Recipe)
    for section, annotation in sections.items():
        if wanted in section_kinds(annotation):
            return f"{section}: {{kind: {wanted}}}", section_class(annotation, wanted)
    if wanted in sections and is_section(sections[wanted]):
        kinds = section_kinds(sections[wanted])
        if kinds:
            raise ValueError(f"{wanted} has several kinds: ask for the fields of one of {', '.join(kinds)}.")
        return f"{wanted}:", section_class(sections[wanted], None)
    raise ValueError(unknown_kind(wanted))


def _build(annotation: Any, node: Node, path: tuple[str, ...], usual: Any = None) -> Any:
    """Build a value; of a section, fields that the recipe leaves out stay as in the section that is usual there."""
    if not is_section(annotation):
        item = section_item(annotation)
        if item is not None and isinstance(node.value, list):
            return tuple(_build(item, each, (*path, str(i))) for i, each in enumerate(node.value))
        return _value(annotation, node, path)
    if node.value is None and admits_null(annotation):
        return None
    if not isinstance(node.value, dict):
        raise _wrong(node, path, f"is {show(node.plain())}: expected {in_words(annotation)}.")
    config = _choose(annotation, node, path)
    hints = field_types(config)
    for key, value in node.value.items():
        if key not in hints:
            raise _unknown(key, value, path, hints)
    values = {key: getattr(usual, key) for key in hints} if type(usual) is config else {}
    for key in required_fields(config):
        if key not in node.value and key not in values:
            raise _wrong(node, (*path, key), f"is missing: give {in_words(hints[key])}.")
    sections = usual_sections(config)
    values |= {key: _build(hints[key], value, (*path, key), sections.get(key)) for key, value in node.value.items()}
    try:
        return config(**values)
    except ValueError as error:
        raise _refused(error, config, node, path) from error


def _choose(annotation: Any, node: Node, path: tuple[str, ...]) -> type:
    assert isinstance(node.value, dict)
    kinds = section_kinds(annotation)
    if not kinds or (len(kinds) == 1 and "kind" not in node.value):
        return section_class(annotation, None)
    if "kind" not in node.value:
        raise _wrong(node, (*path, "kind"), f"is missing: choose one of {', '.join(kinds)}.")
    kind = node.value["kind"]
    if kind.value in kinds:
        return section_class(annotation, cast(str, kind.value))
    if MethodConfig in options(annotation):
        raise RecipeError(f"{kind.place}: {'.'.join((*path, 'kind'))}: {unknown_kind(kind.plain())}")
    near = difflib.get_close_matches(str(kind.value), kinds, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise _wrong(kind, (*path, "kind"), f"is {show(kind.plain())}: {guess}Choose one of {', '.join(kinds)}.")


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config={"allow_inf_nan": False})


def _value(annotation: Any, node: Node, path: tuple[str, ...]) -> Any:
    # Strict, and as JSON, so that "5", 5.0 and yes are not accepted as 5, 5 and true, but a list still makes a tuple.
    try:
        return _adapter(annotation).validate_json(json.dumps(node.plain()), strict=True)
    except ValidationError as error:
        raise _wrong(node, path, f"is {show(node.plain())}: expected {in_words(annotation)}.") from error


def _wrong(node: Node, path: tuple[str, ...], message: str) -> RecipeError:
    return RecipeError(f"{node.place}: {'.'.join(path) or 'the recipe'} {message}")


def _unknown(key: str, value: Node, path: tuple[str, ...], known: dict[str, Any]) -> RecipeError:
    near = [f"'{name}'" for name in difflib.get_close_matches(key, known, n=1, cutoff=0.8)]
    near = near or [note.key for note in field_notes(Recipe) if note.key.endswith(f".{key}")]
    near = near or [f"'{name}'" for name in difflib.get_close_matches(key, known, n=1, cutoff=0.5)]
    advice = f"did you mean {' or '.join(near)}?" if near else f"known keys here are {', '.join(known)}."
    return _wrong(value, (*path, key), f"(value {show(value.plain())}) is not a known key: {advice}")


def _refused(error: ValueError, config: type, node: Node, path: tuple[str, ...]) -> RecipeError:
    """Add place and dotted key to a config class's error; its message begins with a field's name if it blames one."""
    if isinstance(error, RecipeError):
        return error
    assert isinstance(node.value, dict)
    dotted = ".".join(path)
    message = " ".join(str(error).split()).removeprefix(f"{dotted}.")
    word = re.match(r"\w+", message)
    key = word.group() if word else ""
    if key in field_types(config):
        place = node.value[key].place if key in node.value else node.place
        return RecipeError(f"{place}: {'.'.join((*path, message))}")
    subject = "" if dotted and message.startswith(f"{dotted} ") else f"{dotted or 'the recipe'}: "
    return RecipeError(f"{node.place}: {subject}{message}")


def _keeps(root: Node, path: tuple[str, ...], kind: str, key: str) -> bool:
    """Return whether a section's value stays when its kind changes: it does if the new kind can have it."""
    annotation: Any = Recipe
    node = root
    try:
        for step in path:
            annotation = field_types(_choose(annotation, node, ()))[step]
            node = cast(dict[str, Node], node.value)[step]
        if kind not in section_kinds(annotation):
            return True  # an error that names the kind will follow
        config = section_class(annotation, kind)
        _build(field_types(config)[key], cast(dict[str, Node], node.value)[key], ())
    except (KeyError, RecipeError):
        return False
    return True


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
