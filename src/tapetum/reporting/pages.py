"""Renders HTML pages from templates; the only file that imports Jinja."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HEAD = 4096
"""The title is in so many of a page's first bytes."""


@cache
def _environment(room: str) -> Environment:
    """Escapes every value that is not `Markup`, so that no file name or recipe can add markup or a script."""
    return Environment(
        loader=FileSystemLoader(Path(str(files(room))) / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _printable(value: Any) -> Any:
    """Show bytes that are not text, which file names may contain, as escapes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return value.encode(errors="backslashreplace").decode()
    return value


def render_page(template: str, title: str, room: str = "tapetum.reporting", **context: Any) -> str:
    """Render a whole page as text.

    Args:
        template: a file in the room's templates/.
        title: title of the page.
        room: the package that has the template.
        context: the values that the template uses.
    """
    return _environment(room).get_template(template).render(title=title, **context)


def is_page(path: Path) -> bool:
    """Whether a file is a page that was made here."""
    with path.open("rb") as file:
        return b"Tapetum</title>" in file.read(_HEAD)
