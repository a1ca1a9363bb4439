"""The health of a pool as one HTML page: turns what was found into the values that templates/health.html shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tapetum.data.health.health import Group, Health, Part
from tapetum.ops.randomness import make_keys, permutation
from tapetum.reporting.pages import render_page
from tapetum.reporting.pictures import SHEET_IMAGES, Thumbnails, contact_sheet, data_uri

_GROUPS, _OF_A_GROUP = 24, 8  # groups shown of each kind, and images shown of each group
_SHEETS = 100  # number of classes shown
_ROWS = 200  # rows of a table
_SIZES = 12  # number of image sizes shown, the most common ones
_MODES = {"1": "black and white", "L": "grey", "LA": "grey with transparency", "P": "palette", "I;16": "grey, 16 bits"}
"""Pillow's image modes in plain words."""


def render(health: Health, title: str, findings: Sequence[str]) -> str:
    """Render the page as text."""
    shown = _Shown(health)
    of_class: dict[str | None, list[int]] = {}
    for i, name in enumerate(health.pool.classes):
        if i not in health.pool.seen.unreadable:
            of_class.setdefault(name, []).append(i)
    sheets = sorted(of_class.items(), key=lambda item: (item[0] is None, item[0]))[:_SHEETS]
    about = health.as_dict()
    parts = {name: about[name.lower()] for name in ("Pool", "Test") if about[name.lower()] is not None}
    return render_page(
        "health.html",
        title,
        findings=findings,
        group_sections=[
            ("Leakage", shown.groups(health.leaks())),
            ("Label conflicts", shown.groups(health.conflicts())),
            ("Exact duplicates", shown.groups(health.within_pool(exact=True))),
            ("Near duplicates", shown.groups(health.within_pool(exact=False))),
        ],
        unreadable=[
            (part.source.store.names[i], reason)
            for part in (health.pool, health.test)
            if part is not None
            for i, reason in part.seen.unreadable.items()
        ],
        parts=[
            {"name": name, "sizes": part["sizes"], "modes": {_MODES.get(m, m): n for m, n in part["modes"].items()}}
            for name, part in parts.items()
        ],
        class_counts=health.class_counts(),
        sheets=[_sheet(health.pool, members, name) for name, members in sheets],
        num_sheets=len(of_class),
        row_limit=_ROWS,
        size_limit=_SIZES,
    )


class _Shown:
    """Groups of copies as the page shows them, with pictures."""

    def __init__(self, health: Health) -> None:
        self._health, self._names, self._classes = health, health.names, health.classes
        parts = [part for part in (health.pool, health.test) if part is not None]
        self._thumbnails = [Thumbnails(part.source.store, side=128) for part in parts]

    def groups(self, found: Sequence[Group]) -> dict[str, Any]:
        """Choose some groups, spread over all, because these are sorted by name and so by class."""
        spread = np.unique(np.linspace(0, len(found) - 1, _GROUPS).astype(np.int64)).tolist() if found else []
        return {"total": len(found), "shown": [self._group(found[number].members) for number in spread]}

    def _group(self, members: tuple[int, ...]) -> dict[str, Any]:
        # Test images come last, and a leak is visible only if one of them is shown.
        some = members[: _OF_A_GROUP - 1] + members[-1:] if len(members) > _OF_A_GROUP else members
        return {"size": len(members), "members": [self._member(i) for i in some]}

    def _member(self, index: int) -> dict[str, Any]:
        part, row = (0, index) if index < self._health.num_pool else (1, index - self._health.num_pool)
        picture = self._thumbnails[part].of(row)
        return {"picture": picture, "name": self._names[index], "label": self._classes[index]}


def _sheet(part: Part, members: Sequence[int], name: str | None) -> dict[str, Any]:
    """Make a contact sheet of some of a class's images, always the same ones."""
    chosen = np.sort(permutation(make_keys(0, "contact sheet"), len(members))[:SHEET_IMAGES])
    sheet = contact_sheet(part.source.store, [members[int(i)] for i in chosen])
    return {"label": name, "size": len(members), "shown": len(chosen), "uri": data_uri(sheet)}
