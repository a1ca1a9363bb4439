"""Build the documentation site into site/, from the pages that a reader of the repository sees and from docstrings.

    python docs/make_site.py [FOLDER]

Pages are copied to build/ with the folders that they have in the repository, so their relative links hold in both
places. Added to them: what they link to, a reference of each room of the package, the notebooks as pages, and an index
of each folder that is linked and has no page. mkdocs does the rest, strictly (mkdocs.yml).
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tapetum"
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
START = ("README.md", "docs/install.md", "docs/gallery.md")
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def lay_out(pages: Path) -> None:
    """Copy pages, and what they link to, into a new folder."""
    sources = [*(ROOT / name for name in (*PROJECT, "README.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    while sources:
        source = sources.pop()
        target = pages / source.relative_to(ROOT)
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix != ".md":
            shutil.copyfile(source, target)
            if source.suffix == ".ipynb":
                target.with_suffix(".md").write_text(notebook(source), encoding="utf-8")
            continue
        text = LINK.sub(lambda link, page=source: linked_page(page, link[1]), source.read_text(encoding="utf-8"))
        target.write_text(text, encoding="utf-8")
        sources += linked(source)


def linked(page: Path) -> Iterator[Path]:
    """The files that a page links to; of a folder without a page, all of them."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve()
        if target.is_dir():
            yield from (path for path in target.rglob("*") if path.suffix in (".json", ".md"))
        elif target.is_file() and target.is_relative_to(ROOT):
            yield target


def linked_page(page: Path, link: str) -> str:
    """The link as the site needs it: a folder is its README, a notebook its page."""
    if link.endswith(".ipynb"):
        return link.removesuffix(".ipynb") + ".md"
    return f"{link.rstrip('/')}/README.md" if "://" not in link and (page.parent / link).is_dir() else link


def index_folders(pages: Path) -> None:
    """Write a list of its files into each folder that a page links to and that has no page."""
    for page in pages.rglob("*.md"):
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.name == "README.md" and target.parent.is_dir() and not target.exists():
                files = sorted(path for path in target.parent.rglob("*") if path.is_file())
                names = [path.relative_to(target.parent).as_posix() for path in files]
                lines = [f"# {target.parent.name}\n", *(f"- [{name}]({name})" for name in names)]
                target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def notebook(path: Path) -> str:
    """A notebook as Markdown: its texts and its code."""
    parts = [f"*A notebook: [download it]({path.name}).*"]
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title = next(part for part in parts if part.startswith("# ")).splitlines()[0]
    return "\n\n".join([title, parts[0], *(part.removeprefix(title).strip() for part in parts[1:])]) + "\n"


def reference(pages: Path) -> None:
    """Write a page for each room: its rule, and the docstrings of its modules."""
    folder = pages / "reference"
    folder.mkdir()
    index = ["# Reference\n", "Every room of the package, from its docstrings ([how they fit](../docs/design.md)).\n"]
    for room in sorted(path.parent for path in PACKAGE.rglob("__init__.py")):
        modules = sorted(path.stem for path in room.glob("[!_]*.py"))
        if room == PACKAGE or not modules:
            continue
        name = ".".join(("tapetum", *room.relative_to(PACKAGE).parts))
        rule = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
        members = [f"::: {name}.{module}" for module in modules]
        (folder / f"{name}.md").write_text("\n\n".join([f"# {name}", rule, *members]) + "\n", encoding="utf-8")
        index.append(f"- [{name}]({name}.md): {rule.splitlines()[0]}")
    (folder / "README.md").write_text("\n".join(index) + "\n", encoding="utf-8")


def navigation(pages: Path) -> list[dict[str, list[str]]]:
    """The order of pages: named ones first, all others after them."""
    found = sorted(path.relative_to(pages).as_posix() for path in pages.rglob("*.md"))
    links = LINK.findall((pages / "docs/verbs/README.md").read_text(encoding="utf-8"))
    verbs = [f"docs/verbs/{link}" for link in dict.fromkeys(links) if "/" not in link]
    groups = {
        "Start": [*START, *(page for page in found if page.startswith("docs/notebooks/"))],
        "Verbs": ["docs/verbs/README.md", *verbs],
        "Methods": [page for page in found if page.startswith("docs/methods/")],
        "Reference": ["reference/README.md", *(page for page in found if page.startswith("reference/tapetum"))],
        "Project": list(PROJECT),
    }
    named = {page for group in groups.values() for page in group}
    groups["Guides and results"] = [page for page in found if page not in named]
    order = ("Start", "Verbs", "Guides and results", "Methods", "Reference", "Project")
    return [{name: [page for page in groups[name] if page in found]} for name in order]


def main() -> None:
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").absolute()
    build = ROOT / "build" / f"site-{os.getpid()}"
    try:
        pages = build / "pages"
        lay_out(pages)
        index_folders(pages)
        reference(pages)
        config = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": str(pages), "nav": navigation(pages)}
        shutil.copyfile(ROOT / "docs" / "formula_blocks.py", build / "formula_blocks.py")
        (build / "mkdocs.yml").write_text(yaml.safe_dump({**config, "site_dir": str(site)}), encoding="utf-8")
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--clean"]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}  # for mkdocstrings, which imports nothing
        code = subprocess.run([*command, "--config-file", str(build / "mkdocs.yml")], env=environment).returncode
    finally:
        shutil.rmtree(build, ignore_errors=True)
    if code:
        sys.exit(code)
    print(f"Written: {site / 'index.html'}")


if __name__ == "__main__":
    main()
