"""Names of places: paths on this machine, and addresses on others such as `s3://bucket/folder`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.DOTALL)


@dataclass(frozen=True, order=True)
class Address:
    """Where something lies on another machine; used like a `Path`."""

    text: str
    """e.g. "s3://bucket/folder", without a slash at its end."""

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.text}/{name}") if name else self

    @property
    def name(self) -> str:
        return self.text.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1]

    @property
    def parent(self) -> Address:
        return Address(self.text.rpartition("/")[0])


Place = Path | Address


def place_of(given: str | os.PathLike[str]) -> Place:
    """Return a path on this machine or an address; `file://` names the former.

    Raises:
        ValueError: an address is chained or holds credentials, which it does not repeat.

    Example:
        >>> place_of("s3://bucket/folder/").name
        'folder'
    """
    text = os.fspath(given)
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return Path(text).expanduser()
    protocol, rest = found.groups()
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if (at and ":" in user) or "?" in rest:
        raise ValueError(
            f"the {protocol}:// address holds a password or a query, which would be written into files: leave them "
            "out, and give credentials by the environment"
        )
    if "::" in text:
        raise ValueError(f"{text} chains addresses: give the address of the file alone")
    return Path(rest) if protocol in ("file", "local") else Address(text.rstrip("/"))
