"""Reads YAML with the place of every value, so that errors can name the line. The only file that imports YAML.

It differs from PyYAML's reader in four ways: 1e-6 is a number; on, off, yes, no and dates stay words (YAML 1.2);
repeated keys are errors; tags and aliases are errors, so a file can never construct Python objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

Place = Callable[[int], str]
"""Turns a line number, counted from 1, into the beginning of an error, e.g. "my.yaml, line 3"."""


class RecipeError(ValueError):
    """A recipe or an override that cannot be used; the message is one sentence with place, problem and fix."""


@dataclass
class Node:
    """A value and the place where it is written."""

    value: bool | int | float | str | list[Node] | dict[str, Node] | None
    place: str

    def plain(self) -> Any:
        """Return the value as Python's own dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in the parent

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"*{event.anchor} repeats another value: write the value itself", event.start_mark
            )
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes every word that this reader or a YAML 1.1 reader would mistake for another type."""

    yaml_implicit_resolvers = {key: list(found) for key, found in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012


_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PATTERNS = {  # YAML 1.2, core schema
    "null": (re.compile(r"~|null|Null|NULL|"), [*"~nN", ""]),
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), [*"tTfF"]),
    "int": (re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), [*"-+0123456789"]),
    "float": (_FLOAT, [*"-+.0123456789"]),
}
for _name, (_pattern, _first) in _PATTERNS.items():
    _exact = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _exact, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _exact, _first)
_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, True))


def read_yaml(text: str, place: Place) -> Node:
    """Read one YAML document.

    Raises:
        RecipeError: the text is not YAML, has a repeated key, or uses tags or aliases.

    Example:
        >>> read_yaml("lr: 1e-6\\nflip: on", lambda line: f"line {line}").plain()
        {'lr': 1e-06, 'flip': 'on'}
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        return Node(None, place(1)) if root is None else _convert(root, place, place(root.start_mark.line + 1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = place(mark.line + 1) if mark else place(1)
        raise RecipeError(f"{where}: this is not valid YAML here: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{place(1)}: the file is not text: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise RecipeError(f"{place(1)}: the values are nested too deeply.") from error


def write_yaml(value: Any) -> str:
    """Write dicts, lists and scalars as block-style YAML that `read_yaml` reads back to the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True, default_flow_style=False)


def _convert(node: yaml.Node, place: Place, where: str) -> Node:
    # `where` is the line of a value's key: a section begins where it is named, not one line below.
    if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key_where = place(key_node.start_mark.line + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError(f"{key_where}: a key must be a single word.")
            if key_node.value in entries:
                first = entries[key_node.value].place
                raise RecipeError(
                    f"{key_where}: the key {key_node.value!r} is given twice, first in {first}: keep one."
                )
            entries[key_node.value] = _convert(value_node, place, key_where)
        return Node(entries, where)
    if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
        return Node([_convert(item, place, place(item.start_mark.line + 1)) for item in node.value], where)
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if not isinstance(node, yaml.ScalarNode) or tag not in (*_PATTERNS, "str"):
        raise RecipeError(f"{where}: the tag {node.tag!r} is not allowed: write the plain value.")
    try:
        return Node(_scalar(tag, node.value), where)
    except ValueError as error:
        raise RecipeError(f"{where}: {node.value[:40]!r} is no {tag} that can be read.") from error


def _scalar(tag: str, text: str) -> bool | int | float | str | None:
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if tag == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
