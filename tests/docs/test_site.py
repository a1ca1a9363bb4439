"""The documentation site builds strictly, holds every page and loads nothing from elsewhere; the gallery is whole."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def make_site(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "docs"))
    return importlib.import_module("make_site")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("mkdocs", "material", "mkdocstrings", "l2m4m"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    script = Path(__file__).parents[2] / "docs" / "make_site.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=900)
    return folder


def test_the_gallery_shows_every_picture(root: Path) -> None:
    shown = set(re.findall(r"\]\(images/([^)]+)\)", (root / "docs/gallery.md").read_text()))
    assert shown == {path.name for path in (root / "docs/images").iterdir()}


def test_formulas_of_docstrings_stay_lines(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("griffe", reason="griffe is not installed: pip install -e '.[docs]'")
    monkeypatch.syspath_prepend(str(root / "docs"))
    with_blocks = importlib.import_module("formula_blocks").with_blocks
    text = "For p:\n    p <- p + 1\n    p <- 2 * p\nand so on.\n\n    alone\n\nArgs:\n    p: it,\n        or not."
    expected = text.replace("For p:\n", "For p:\n\n").replace("\nand so on", "\n\nand so on")
    assert with_blocks(text) == expected
    assert with_blocks(expected) == expected


def test_links_are_laid_out_as_in_the_repository(make_site: ModuleType, root: Path, tmp_path: Path) -> None:
    make_site.lay_out(tmp_path)
    make_site.index_folders(tmp_path)
    make_site.reference(tmp_path)
    for page in tmp_path.rglob("*.md"):
        for link in make_site.LINK.findall(page.read_text(encoding="utf-8")):
            if "://" not in link and page.parent.name != "reference":
                assert (page.parent / link).is_file(), f"{page.relative_to(tmp_path)}: {link}"
    assert "](docs/verbs/README.md)" in (tmp_path / "README.md").read_text()
    assert (
        (tmp_path / "docs/methods/README.md").read_text().startswith("# methods\n\n- [deepcluster.md](deepcluster.md)")
    )
    named = {page for group in make_site.navigation(tmp_path) for pages in group.values() for page in pages}
    assert named == {page.relative_to(tmp_path).as_posix() for page in tmp_path.rglob("*.md")}


def test_a_notebook_becomes_a_page(make_site: ModuleType, tmp_path: Path) -> None:
    cells = [("markdown", "# Title\n\nText"), ("code", "print(1)"), ("markdown", "## More")]
    content = {"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]}
    (tmp_path / "book.ipynb").write_text(json.dumps(content))
    assert make_site.notebook(tmp_path / "book.ipynb") == (
        "# Title\n\n*A notebook: [download it](book.ipynb).*\n\nText\n\n```python\nprint(1)\n```\n\n## More\n"
    )


@pytest.mark.slow
def test_it_builds_strictly_with_search_and_reference(site: Path) -> None:
    assert "One command trains a classifier" in (site / "index.html").read_text()
    words = (site / "search/search_index.json").read_text()
    assert "tapetum.losses.paws" in words
    reference = (site / "reference/tapetum.verbs.html").read_text()
    assert "tapetum.verbs.fit.fit" in reference
    assert "<math" in (site / "docs/methods/sela.html").read_text()
    assert (site / "docs/images/report_cifar10.png").is_file()


@pytest.mark.slow
def test_its_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:[^\s\">]+)", text)
        loaded += re.findall(r"<link\b(?![^>]*\brel=\"?canonical)[^>]*\bhref=\"?(https?:[^\s\">]+)", text)
        loaded += re.findall(r"url\((https?:[^)]+)\)", text)
        assert loaded == [], page
