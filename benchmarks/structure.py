"""How the package is built: rooms, floors, circles, loose modules, and how long its files are.

    python benchmarks/structure.py [FOLDER]

FOLDER is src/tapetum of any commit. A room is a folder of modules; in a folder that has packages in it, every module
is a room of its own, and so are modules at the root, except `__init__` and `__main__`. A room's floor is one above the
highest room that it imports, type-checking imports and those inside functions included; verbs, which the command line
imports by name, count as imported by it.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "tapetum"
BY_NAME = {"cli.app": "verbs", "app": "verbs"}
"""Modules that import a whole room by name."""


def modules(root: Path) -> dict[str, Path]:
    """Dotted names below the package, "" being the package itself."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            base = node.module.partition(".")[2]
            for alias in node.names:
                deeper = f"{base}.{alias.name}".strip(".")
                yield deeper if deeper in known else base
        elif isinstance(node, ast.Import):
            yield from (a.name.partition(".")[2] for a in node.names if a.name.split(".")[0] == PACKAGE)


def rooms(known: dict[str, Path]) -> dict[str, str]:
    """The room of each module; the roof, `__init__` and `__main__`, is in none."""
    packages = {name for name, path in known.items() if path.name == "__init__.py"}
    split = {name.rpartition(".")[0] for name in packages if "." in name} | {""}
    found = {}
    for name in known:
        folder = name if name in packages else name.rpartition(".")[0]
        if name not in ("", "__main__") and not (name in packages and name in split):
            found[name] = name if folder in split else folder
    return found


def floors(arrows: dict[str, set[str]]) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """The floor of each room, from 1, and the circles that were met (and cut)."""
    height: dict[str, int] = {}
    circles: list[tuple[str, ...]] = []

    def climb(room: str, path: tuple[str, ...]) -> int:
        if room in path:
            circles.append((*path[path.index(room) :], room))
            return 0
        if room not in height:
            height[room] = 1 + max((climb(below, (*path, room)) for below in sorted(arrows[room])), default=0)
        return height[room]

    for room in arrows:
        climb(room, ())
    return height, circles


def house(root: Path) -> tuple[dict[str, int], list[tuple[str, ...]], dict[str, Path]]:
    """The floor of each room, circles, and all modules."""
    known = modules(root)
    room_of = rooms(known)
    arrows: dict[str, set[str]] = {room: set() for room in room_of.values()}
    for name, path in known.items():
        below = {room_of[other] for other in imported(path, known) if other in room_of}
        below |= {BY_NAME[name]} if name in BY_NAME else set()
        if name in room_of:
            arrows[room_of[name]] |= below - {room_of[name]}
    return *floors(arrows), known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1] / "src" / PACKAGE)
    root = parser.parse_args().folder
    height, circles, known = house(root)
    for floor in range(max(height.values()), 0, -1):
        print(f"floor {floor:2}  {'  '.join(sorted(room for room in height if height[room] == floor))}")
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in known.values()}
    files = {path.relative_to(root).as_posix(): count for path, count in lines.items()}
    folders = {path.parent for path in lines}
    sizes = {folder: sum(p.parent == folder and p.name != "__init__.py" for p in lines) for folder in folders}
    fullest = sorted(sizes, key=lambda folder: -sizes[folder])[:3]
    loose = [name for name in known if name and "." not in name and known[name].parent == root and name != "__main__"]
    print(f"rooms {len(height)}, floors {max(height.values())}, circles {len(circles)}, loose modules {len(loose)}")
    print("fullest folders: " + ", ".join(f"{folder.relative_to(root)} {sizes[folder]} files" for folder in fullest))
    longest = sorted(files, key=lambda name: -files[name])[:3]
    print("longest files: " + ", ".join(f"{name} {files[name]}" for name in longest))
    pages = sum(len(p.read_text(encoding="utf-8").splitlines()) for s in ("html", "css") for p in root.rglob(f"*.{s}"))
    print(f"{len(files)} files, {sum(files.values())} lines; {pages} lines of templates and style sheets")


if __name__ == "__main__":
    main()
