"""For the site: indented lines below a sentence in a docstring, such as formulas, stay lines of their own.

In Markdown a block of code needs empty lines around it, which the docstrings do without.
"""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(Args|Attributes|Example|Examples|Raises|Returns|Yields):")


def with_blocks(text: str) -> str:
    """Put an empty line before and after each part that is indented below a line of its own paragraph.

    Example:
        >>> with_blocks("For each p:\\n    p <- p + 1\\nand so on.\\n\\nArgs:\\n    p: it.")
        'For each p:\\n\\n    p <- p + 1\\n\\nand so on.\\n\\nArgs:\\n    p: it.'
    """
    lines: list[str] = []
    in_block = in_section = False
    for line in text.split("\n"):
        in_section = bool(_SECTION.fullmatch(line)) or (in_section and line[:1] in ("", " "))
        is_block = line.startswith("    ") and not in_section
        if is_block != in_block and line and lines and lines[-1]:
            lines.append("")
        in_block = is_block
        lines.append(line)
    return "\n".join(lines)


class FormulaBlocks(griffe.Extension):
    """Applies `with_blocks` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_blocks(obj.docstring.value)
