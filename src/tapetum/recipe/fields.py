"""Config fields: what their types mean in a recipe (a section, a choice by `kind`, a value), and their descriptions."""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from tapetum.methods.registry import MethodConfig, method_class, method_kinds


@functools.cache
def field_types(config: type) -> dict[str, Any]:
    """Return the types of a config dataclass's fields, in order, with every forward reference resolved."""
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}


@functools.cache
def field_docstrings(config: type) -> dict[str, str]:
    """Return the text under each field of a class and of the config classes that it extends, each on one line."""
    texts: dict[str, str] = {}
    for part in reversed(config.__mro__):
        texts |= _own_docstrings(part) if dataclasses.is_dataclass(part) else {}
    return texts


def _own_docstrings(config: type) -> dict[str, str]:
    """Read the text under each field, as pydantic's `use_attribute_docstrings` does."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]
    except OSError:  # a class typed at a Python prompt has no source
        return {}
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for entry, below in itertools.pairwise(body.body):
        match entry, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


def required_fields(config: type) -> list[str]:
    """List the fields without a default."""
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(config) if f.default is missing and f.default_factory is missing]


def usual_sections(config: type) -> dict[str, Any]:
    """Return the sections that a config has where a recipe says nothing of them, by field."""
    made = {
        field.name: field.default_factory()
        for field in dataclasses.fields(config)
        if field.default_factory is not dataclasses.MISSING
    }
    return {name: value for name, value in made.items() if dataclasses.is_dataclass(value)}


def options(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union; for any other type, the type itself."""
    if get_origin(annotation) is Annotated:
        return options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(option for member in get_args(annotation) for option in options(member))
    return (annotation,)


def admits_null(annotation: Any) -> bool:
    return type(None) in options(annotation)


def is_section(annotation: Any) -> bool:
    """Return whether recipes write this type as a section: a dataclass, chosen by `kind` if there are several."""
    return any(option is MethodConfig or dataclasses.is_dataclass(option) for option in options(annotation))


def section_item(annotation: Any) -> Any:
    """Return X if the type is `tuple[X, ...]` and X is written as a section; else None."""
    for option in options(annotation):
        items = get_args(option) if get_origin(option) is tuple else ()
        if len(items) == 2 and items[1] is Ellipsis and is_section(items[0]):
            return items[0]
    return None


def section_kinds(annotation: Any) -> tuple[str, ...]:
    """Return the kinds that a section of this type can have; empty if it has no `kind`."""
    kinds: list[str] = []
    for option in options(annotation):
        if option is MethodConfig:
            kinds.extend(method_kinds())
        elif dataclasses.is_dataclass(option) and "kind" in field_types(option):  # type: ignore[arg-type]
            kinds.extend(get_args(field_types(option)["kind"]))  # type: ignore[arg-type]
    return tuple(kinds)


def section_class(annotation: Any, kind: str | None) -> type:
    """Return the config dataclass of `kind`, which is one of `section_kinds`; if None, return the only one."""
    for option in options(annotation):
        if option is MethodConfig:
            if kind is not None and kind in method_kinds():
                return method_class(kind).Config
        elif dataclasses.is_dataclass(option):
            found: type = option  # type: ignore[assignment]
            if kind is None or kind in get_args(field_types(found).get("kind", Literal[""])):
                return found
    raise AssertionError(f"{kind!r} is not one of {section_kinds(annotation)}")


def in_words(annotation: Any) -> str:
    """Describe a type in the words of a recipe's author.

    Example:
        >>> in_words(tuple[float, float] | None)
        'a list of 2 numbers or null'
    """
    return _or([_one_in_words(option) for option in options(annotation)])


def _one_in_words(option: Any) -> str:
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if option in plain:
        return plain[option]
    origin, arguments = get_origin(option), get_args(option)
    if origin is Literal:
        return _or([show(argument) for argument in arguments])
    if origin in (tuple, list):
        items = [item for item in arguments if item is not Ellipsis]
        many = {"a whole number": "whole numbers", "a number": "numbers", "text": "words"}
        words = {many.get(in_words(item), f"values ({in_words(item)})") for item in items}
        count = "" if origin is list or Ellipsis in arguments else f"{len(items)} "
        return f"a list of {count}{' and '.join(sorted(words))}"
    if is_section(option):
        return "a section of indented key: value lines"
    return "a mapping of names to values" if origin is dict else str(option)


def _or(words: list[str]) -> str:
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_YAML_WORDS = {"None": "null", "True": "true", "False": "false"}


def show(value: Any) -> str:
    """Format a value as a recipe writes it, cut to a readable length."""
    text = in_full(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def in_full(value: Any) -> str:
    """Format a value as a recipe writes it, however long."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(in_full(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {in_full(item)}' for key, item in value.items())}}}"
    return _YAML_WORDS.get(repr(value), repr(value))


class FieldNote(NamedTuple):
    """The description of a config field."""

    key: str
    """Dotted, e.g. "head.output"."""
    type: str
    """The type in words."""
    default: str
    """As in YAML; "required" if there is none."""
    text: str
    """The docstring under the field: meaning, unit, source."""


def field_notes(config: type, prefix: str = "", usual: Any = None) -> Iterator[FieldNote]:
    """Describe every field of a config dataclass, including the fields of its sections.

    Args:
        config: the class.
        prefix: of the keys.
        usual: the section as it is where recipes say nothing of it.
    """
    described, sections = field_docstrings(config), usual_sections(config)
    for entry in dataclasses.fields(config):
        annotation = field_types(config)[entry.name]
        default = "required"
        if entry.name in sections:
            default = "that of each field"
        elif usual is not None:
            default = show(getattr(usual, entry.name))
        elif entry.default is not dataclasses.MISSING:
            default = show(entry.default)
        elif entry.default_factory is not dataclasses.MISSING:
            default = show(entry.default_factory())
        kinds = section_kinds(annotation)
        words = in_words(annotation)
        if is_section(annotation):
            words = f"a section{', kind ' if kinds else ''}{' or '.join(kinds)}"
        yield FieldNote(f"{prefix}{entry.name}", words, default, described.get(entry.name, ""))
        if is_section(annotation) and not kinds:
            yield from field_notes(section_class(annotation, None), f"{prefix}{entry.name}.", sections.get(entry.name))
