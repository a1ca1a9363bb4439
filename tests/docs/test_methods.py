"""What a method's page quotes of the code stands there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("methods/swav.py", "losses/swav.py", "ops/sinkhorn.py")


def test_swav_is_read_beside_its_formulas():
    page = (ROOT / "docs/methods/swav.md").read_text()
    section = page.partition("## The formulas beside the code\n")[2].partition("\n## ")[0]
    files = [(ROOT / "src/tapetum" / name).read_text() for name in SOURCES]
    said = [int(number) for number in re.findall(r"\d+", section.partition("|")[0])]
    assert said == [len(text.splitlines()) for text in files]
    quoted = re.findall(r"`([^`]+)`", section.partition("|")[2])
    assert len(quoted) >= 15
    assert [code for code in quoted if not any(code in text for text in files)] == []
