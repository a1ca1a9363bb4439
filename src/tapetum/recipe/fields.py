"""What a config lets one set: its fields, those of its sections included, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from tapetum.recipe.field_types import (
    field_docstrings,
    field_types,
    in_words,
    is_section,
    section_class,
    section_kinds,
    show,
)


class FieldNote(NamedTuple):
    """What there is to know about a config field."""

    key: str
    """Dotted, e.g. "head.output"."""
    type: str
    """In words."""
    default: str
    """As in YAML; "required" where there is none."""
    text: str
    """The docstring under the field: meaning, unit, source."""


def field_notes(config: type, prefix: str = "") -> Iterator[FieldNote]:
    """Every field of a config dataclass, those of the sections in it included."""
    described = field_docstrings(config)
    for entry in dataclasses.fields(config):
        annotation = field_types(config)[entry.name]
        default = "required"
        if entry.default is not dataclasses.MISSING:
            default = show(entry.default)
        elif entry.default_factory is not dataclasses.MISSING:
            made = entry.default_factory()
            default = "that of each field" if dataclasses.is_dataclass(made) else show(made)
        kinds = section_kinds(annotation)
        words = in_words(annotation)
        if is_section(annotation):
            words = f"a section{', kind ' if kinds else ''}{' or '.join(kinds)}"
        yield FieldNote(f"{prefix}{entry.name}", words, default, described.get(entry.name, ""))
        if is_section(annotation) and not kinds:
            yield from field_notes(section_class(annotation, None), f"{prefix}{entry.name}.")
