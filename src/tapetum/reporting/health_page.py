"""The health of a pool as one HTML page that asks nothing of the network: style and pictures are inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tapetum.data.health.health import Group, Health, Part
from tapetum.ops.randomness import make_keys, permutation
from tapetum.reporting.html_page import html_page, text
from tapetum.reporting.pictures import SHEET_IMAGES, contact_sheet, picture

_GROUPS, _OF_A_GROUP = 24, 8  # shown of each kind
_SHEETS = 100  # classes
_ROWS = 200  # of a table
_SIZES = 12  # of images, the most common
_MODES = {"1": "black and white", "L": "grey", "LA": "grey with transparency", "P": "palette", "I;16": "grey, 16 bits"}
"""Pillow's words for how an image is stored, where they are not everyone's."""
_TINY = 40  # pixels up to which an image is shown pixel by pixel


def render(health: Health, title: str, findings: Sequence[str]) -> str:
    """The page, as text. File and class names are escaped, and scripts there are none."""
    sections = {
        "Findings": _findings(findings),
        "Leakage": _groups(health, health.leaks()),
        "Label conflicts": _groups(health, health.conflicts()),
        "Exact duplicates": _groups(health, health.within_pool(exact=True)),
        "Near duplicates": _groups(health, health.within_pool(exact=False)),
        "Images that cannot be read": _unreadable(health),
        "Sizes and modes": _sizes(health),
        "Classes": _classes(health),
    }
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections.items() if content)
    return html_page(text(title), "health.css", f"<h1>{text(title)}</h1>{body}")


def _findings(findings: Sequence[str]) -> str:
    if not findings:
        return '<p class="good">Nothing to mend was found.</p>'
    return f'<ul class="findings">{"".join(f"<li>{text(finding)}</li>" for finding in findings)}</ul>'


def _groups(health: Health, found: Sequence[Group]) -> str:
    if not found:
        return ""
    names, classes = health.names, health.classes
    shown = []
    # Spread over all, for they come in the order of names, and so of classes.
    for number in np.unique(np.linspace(0, len(found) - 1, _GROUPS).astype(np.int64)):
        group = found[number]
        # The test's images come last, and a leak is not to be seen without one.
        members = (
            group.members[: _OF_A_GROUP - 1] + group.members[-1:] if len(group.members) > _OF_A_GROUP else group.members
        )
        pictures = "".join(_figure(health, i, names[i], classes[i]) for i in members)
        more = f'<span class="note">of {len(group.members)}</span>' if len(members) < len(group.members) else ""
        shown.append(f"<li>{pictures}{more}</li>")
    rest = f"{_GROUPS} of {len(found)} groups; check.json has all." if len(found) > _GROUPS else ""
    return f'<p class="note">{rest}</p><ul class="groups">{"".join(shown)}</ul>'


def _figure(health: Health, index: int, name: str, class_name: str | None) -> str:
    part, row = (health.pool, index) if index < health.num_pool else (health.test, index - health.num_pool)
    assert part is not None
    image = picture(part.source.store, row)
    said = "unlabelled" if class_name is None else class_name
    tiny = " class=tiny" if max(image.size) <= _TINY else ""
    return (
        f'<figure><img{tiny} src="{_uri(image)}" alt="{text(name)}">'
        f"<figcaption><strong>{text(said)}</strong><br>{text(name)}</figcaption></figure>"
    )


def _uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _unreadable(health: Health) -> str:
    rows = []
    for part in (health.pool, health.test):
        if part is not None:
            rows += [(part.source.store.names[i], reason) for i, reason in part.seen.unreadable.items()]
    return _table(f'<tr><td class="wide">{text(name)}</td><td>{text(reason)}</td></tr>' for name, reason in rows)


def _table(rows: Iterable[str], limit: int = _ROWS) -> str:
    every = list(rows)
    rest = f'<p class="note">The first {limit} of {len(every)}; check.json has all.</p>' if len(every) > limit else ""
    return f"{rest}<table>{''.join(every[:limit])}</table>" if every else ""


def _sizes(health: Health) -> str:
    shown = []
    parts: Mapping[str, Any] = health.as_dict()
    for name in ("pool", "test"):
        if parts[name] is not None:
            shown.append(f"<h3>{name.capitalize()}: height x width, pixels</h3>{_bars(parts[name]['sizes'], _SIZES)}")
            modes = {_MODES.get(mode, mode): count for mode, count in parts[name]["modes"].items()}
            shown.append(f"<h3>{name.capitalize()}: stored as</h3>{_bars(modes)}")
    return "".join(shown)


def _bars(counts: Mapping[str, int], limit: int = _ROWS) -> str:
    most = max(counts.values(), default=1) or 1
    rows = [
        f'<tr><th scope="row">{text(name)}</th><td class="number">{count}</td>'
        f'<td class="wide"><div class="bar" style="width:{100 * count / most:.1f}%"></div></td></tr>'
        for name, count in counts.items()
    ]
    return _table(rows, limit)


def _classes(health: Health) -> str:
    counts = health.class_counts()
    of_class: dict[str | None, list[int]] = {}
    for i, name in enumerate(health.pool.classes):
        if i not in health.pool.seen.unreadable:
            of_class.setdefault(name, []).append(i)
    sheets = "".join(
        f"<h3>{text('without a label' if name is None else name)} ({len(members)})</h3>"
        f"{_sheet(health.pool, members, name)}"
        for name, members in sorted(of_class.items(), key=lambda item: (item[0] is None, item[0]))[:_SHEETS]
    )
    more = f'<p class="note">Pictures of the first {_SHEETS} classes.</p>' if len(of_class) > _SHEETS else ""
    return (_bars(counts) if counts else "") + more + sheets


def _sheet(part: Part, members: Sequence[int], name: str | None) -> str:
    """A contact sheet of some of a class's images, always the same ones."""
    chosen = np.sort(permutation(make_keys(0, "contact sheet"), len(members))[:SHEET_IMAGES])
    sheet = contact_sheet(part.source.store, [members[int(i)] for i in chosen])
    said = text("images without a label" if name is None else f"images of class {name}")
    return f'<img class="sheet" src="{_uri(sheet)}" alt="{len(chosen)} {said}">'
