"""What readers of label files yield and writers take, and checks of values that come from outside."""

import json
import reprlib
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Naming = Literal["path", "beside", "stem", "name", "tail", "upload"]
"""How a label file names an image (`tapetum.data.labels.name_matcher.NameMatcher.find`)."""

LONGEST_NAME = 4096
"""Characters of a path; systems take no longer one, and to look for it or to compose its accents would take long."""

_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 2, 80, 80


class Entry(NamedTuple):
    """One image and its label, as a label file has them."""

    place: str
    """Position in the file, e.g. "line 3"."""
    image: str
    label: str
    naming: Naming = "path"


class Item(NamedTuple):
    """An image to write."""

    name: str
    """Relative path with `/` between parts."""
    label: str | None = None
    size: tuple[int, int] | None = None
    """(width, height) in pixels, if it is known."""
    prediction: tuple[str, float | None] | None = None
    """A model's label and its confidence, from 0 to 1, if it has one."""


class JsonObject(dict[str, Any]):
    """A JSON object in which a key is repeated; `pairs` has all keys and values in their order."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def parse_json(text: str) -> tuple[Any, str | None]:
    """Parse JSON; return its content, and a key that is there twice in one object, or None.

    Raises:
        ValueError, RecursionError: the text is no JSON, or nested too deeply.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        ({'a': 2}, 'a')
    """
    repeated: list[str] = []

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        seen: set[str] = set()
        repeated.extend(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return JsonObject(pairs)

    content = json.loads(text, object_pairs_hook=as_object)
    return content, next(iter(repeated), None)


def shown(value: object) -> str:
    """Return a value from a file for an error, short however large it is."""
    return _SHOWN.repr(value)


def is_printable(text: str) -> bool:
    """Return whether a text can be shown and written as UTF-8; joiners and other blanks are part of some scripts."""
    return not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text)


def composed(name: str) -> str:
    """Return a name with each letter and its accents as one sign (NFC), as macOS does not store it."""
    return unicodedata.normalize("NFC", name) if len(name) <= LONGEST_NAME else name


def as_label(value: object, where: str) -> str:
    """Return a label, text or a whole number, without blanks around it.

    Raises:
        ValueError: it is neither, is blank, or holds control characters; begins with `where`.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {shown(value)} is no label: write its name as text")
    label = value.strip()
    if not is_printable(label):
        raise ValueError(f"{where}: label {shown(value)} cannot be printed: use letters, digits and punctuation")
    return label


def as_name(value: object, where: str) -> str:
    """Check the name of an image.

    Raises:
        ValueError: it is no text, or empty; begins with `where`.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: {shown(value)} is no name of an image: write its path as text")
    return value


def as_kind(value: object, kind: type, where: str, what: str) -> Any:
    """Return a value of a JSON file if it is of the right kind, `dict` or `list`.

    Raises:
        ValueError: it is not; begins with `where`.
    """
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ValueError(f"{where}: {what} is {shown(value)}: make it {wanted}, or export the file again")
    return value


def no_field(field: str | None) -> None:
    """Refuse the name of a field for a format that has one label for each image.

    Raises:
        ValueError: there is a field.
    """
    if field is not None:
        raise ValueError(f"this format has no fields to choose from: leave out ':{field}'")


def chosen_field(fields: Sequence[str], usual: Sequence[str], field: str | None) -> str:
    """Return which field holds the labels: the named one, else the first usual one, else the only one.

    Args:
        fields: all that may hold labels, each once.
        usual: names by which labels are known.
        field: the user's choice, or None.

    Raises:
        ValueError: there is no such field, none at all, or several.

    Example:
        >>> chosen_field(["caption", "label"], ["label", "labels"], None)
        'label'
    """
    if field is not None:
        if field in fields:
            return field
        raise ValueError(f"there is no field {shown(field)}: choose one of {_listed(fields)}")
    for name in usual:
        if name in fields:
            return name
    if len(fields) == 1:
        return fields[0]
    if not fields:
        raise ValueError(f"there are no labels: add them as {usual[0]!r}")
    raise ValueError(
        f"the labels may be {_listed(fields)}: write which one after the file's name, as in FILE:{fields[0]}"
    )


def _listed(fields: Sequence[str]) -> str:
    more = f" and {len(fields) - 5} others" if len(fields) > 5 else ""
    return (", ".join(shown(name) for name in fields[:5]) or "none") + more
