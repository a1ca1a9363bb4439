"""Rows of a CSV with a header, and JSON lines, as mappings of names to values."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from tapetum.data.label_formats.entries import parse_json

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""
Row = tuple[str, Mapping[str, Any] | None]
"""A place in the file, and what is there; None for a line that is no JSON object."""


def safe_path(path: str) -> str:
    """Write a relative path so that no spreadsheet takes it for a formula."""
    return f"./{path}" if path.startswith(FORMULA_SIGNS) else path


def safe_class(name: str) -> str:
    """Write a class so that no spreadsheet takes it for a formula; a whole number is none."""
    return f"'{name}" if name.lstrip("'").startswith(FORMULA_SIGNS) and not name[1:].isdigit() else name


def without_apostrophe(name: str) -> str:
    """Read a class that `safe_class` wrote."""
    return name[1:] if name.startswith("'") and name.lstrip("'").startswith(FORMULA_SIGNS) else name


def rows_of_csv(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a CSV with a header.

    Raises:
        ValueError: a row has another number of fields than the header, or the header repeats a field; names the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    header: list[str] = []
    try:
        for fields in reader:
            place = f"line {reader.line_num}"
            if not header:
                header = fields
                if len(set(header)) < len(header):
                    raise ValueError(f"{place}: a column is there twice: rename one of the two")
            elif fields:
                if len(fields) != len(header):
                    raise ValueError(f"{place}: it has {len(fields)} fields, but the header {len(header)}: correct it")
                yield place, dict(zip(header, fields))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: it is no CSV ({error}): save the file anew") from None


def rows_of_lines(text: str) -> Iterator[Row]:
    """Yield the lines of a file of JSON objects, without blank ones.

    Raises:
        ValueError: an object repeats a key; names the line.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"line {number}"
            try:
                content, repeated = parse_json(line)
            except (ValueError, RecursionError):
                content, repeated = None, None
            if repeated is not None:
                raise ValueError(f"{place}: the key {repeated[:80]!r} is there twice: delete one of the two")
            yield place, content if isinstance(content, dict) else None


def whole(rows: Iterator[Row]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows, all of which must be objects.

    Raises:
        ValueError: a line is no JSON object; names it.
    """
    for place, row in rows:
        if row is None:
            raise ValueError(f"{place}: it is no JSON object: correct it, or delete the line")
        yield place, row
