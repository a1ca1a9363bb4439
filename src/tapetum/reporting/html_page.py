"""The shell of an HTML page that asks nothing of the network: style and pictures are inside."""

from __future__ import annotations

from html import escape
from importlib.resources import files


def text(value: str) -> str:
    """Escaped, and file names that are no Unicode made printable."""
    return escape(value.encode(errors="backslashreplace").decode())


def html_page(title: str, style: str, body: str) -> str:
    """A whole page, as text.

    Args:
        title: escaped already.
        style: file of what this page alone looks like, beside page.css, which all share.
        body: what is in <body>.
    """
    folder = files("tapetum.reporting")
    styles = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", style))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        # Whatever a file name may hold, nothing is fetched and nothing runs.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} – Tapetum</title><style>{styles}</style></head><body>{body}</body></html>\n"
    )
