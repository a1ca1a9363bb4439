"""The package is built as docs/design.md draws it."""

import importlib
import re
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def house(root):
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        structure = importlib.import_module("structure")
    finally:
        sys.path.pop(0)
    return structure.house(root / "src" / "tapetum")


def test_eight_floors_and_no_circle(house):
    height, circles, known = house
    assert max(height.values()) <= 8
    assert circles == []
    assert {name for name in known if "." not in name and known[name].name != "__init__.py"} == {"__main__"}


def test_the_drawing_shows_every_room_on_its_floor(house, root):
    height, _, _ = house
    page = (root / "docs/design.md").read_text(encoding="utf-8")
    drawn, floor = {}, 0
    for number, name in re.findall(r"^ {6}(\d| ) {3}([a-z][a-z/_.]*?)/? {2,}", page, re.MULTILINE):
        floor = int(number.strip() or floor)
        drawn[name.removesuffix(".py").replace("/", ".")] = floor
    assert drawn == height


def test_every_room_states_its_rule(house):
    _, _, known = house
    for name, path in known.items():
        if name and path.name == "__init__.py":
            text = path.read_text(encoding="utf-8")
            assert re.match(r'"""\S.*\.\n\n(?:.|\n)*\b([Ii]mports?|[Dd]epends on)\b', text), (
                f"{name} says not what it may import"
            )
            assert text.count('"""') == 2, f"{name}/__init__.py holds more than its rule"


def test_public_names_stay_when_every_module_is_imported():
    """A package of a verb's name would take the verb's place."""
    program = (
        "import importlib, pkgutil, types, tapetum\n"
        "for info in pkgutil.walk_packages(tapetum.__path__, 'tapetum.'):\n"
        "    if not info.name.endswith('__main__'): importlib.import_module(info.name)\n"
        "print([name for name in tapetum.__all__ if isinstance(getattr(tapetum, name), types.ModuleType)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
