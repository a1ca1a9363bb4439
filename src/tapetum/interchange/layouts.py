"""Layouts of published weights: how other tools name the tensors of backbone and heads.

A layout is recognised by its tensors' names alone, below whatever prefix the backbone has in the file ("module.",
"encoder.module.", "state_dict.", ...). To support another one, add it to `LAYOUTS`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How a tool names what stands next to a backbone."""

    title: str
    """What messages call it."""
    marks: tuple[str, ...]
    """Patterns; it is this layout if each of them matches some name whole."""
    heads: tuple[tuple[str, str], ...] = ()
    """(pattern of names, the name in a method of Tapetum, with \\1 and so on)."""
    unused: tuple[tuple[str, str], ...] = ()
    """(pattern of names, why Tapetum has no use for them)."""

    def is_of(self, names: Collection[str]) -> bool:
        """Whether these are the names of this layout."""
        return all(any(re.fullmatch(mark, name) for name in names) for mark in self.marks)

    def own_name(self, name: str) -> str | None:
        """The name in a method of Tapetum; None for tensors that are no part of a head."""
        for pattern, replacement in self.heads:
            if re.fullmatch(pattern, name):
                return re.sub(pattern, replacement, name)
        return None

    def why_unused(self, name: str) -> str | None:
        """Why a tensor is of no use; None if the layout does not say."""
        return next((why for pattern, why in self.unused if re.fullmatch(pattern, name)), None)


_SWAV_HEAD = (
    (r"projection_head\.0\.(.*)", r"projector.fc1.\1"),
    (r"projection_head\.1\.(.*)", r"projector.bn1.\1"),
    (r"projection_head\.3\.(.*)", r"projector.fc2.\1"),
)

TAPETUM = Layout("Tapetum", (), heads=((r"(.*)", r"\1"),))
"""A run's own names; a method from outside may have parts of any name."""

LAYOUTS = (
    Layout(
        "PAWS, SimCLR+CT",
        (r"fc\.fc1\.weight", r"fc\.fc3\.weight"),
        heads=((r"fc\.(.*)", r"projector.\1"), (r"pred\.(.*)", r"predictor.\1")),
    ),
    Layout(
        "PAWS, fine-tuned",
        (r"fc\.fc1\.weight", r"fc\.fc2\.weight"),
        unused=((r"fc\..*", "the classifier of the classes it was fine-tuned on"),),
    ),
    Layout(
        "SwAV",
        (r"projection_head\.0\.weight", r"prototypes\.weight"),
        heads=(*_SWAV_HEAD, (r"prototypes\.weight", "prototypes.0.weight")),
    ),
    Layout(
        "DeepCluster-v2, SeLa-v2, SwAV with several sets of prototypes",
        (r"projection_head\.0\.weight", r"prototypes\.prototypes0\.weight"),
        heads=(*_SWAV_HEAD, (r"prototypes\.prototypes(\d+)\.weight", r"prototypes.\1.weight")),
    ),
    Layout(
        "SwAV, fine-tuned",
        (r"projection_head\.weight",),
        unused=((r"projection_head\..*", "the classifier of the classes it was fine-tuned on"),),
    ),
    Layout("DINO", (r"head\.mlp\..*",), unused=((r"head\..*", "DINO's own head"),)),
    Layout("torchvision", (r"fc\.weight", r"fc\.bias"), unused=((r"fc\..*", "the classifier of ImageNet's classes"),)),
)
"""Layouts with heads or classifiers, the more particular ones first."""


def layout_of(names: Collection[str]) -> Layout:
    """The layout of a file.

    Args:
        names: of the tensors next to the backbone, those of the backbone included, without their common prefix.

    Example:
        >>> layout_of(["conv1.weight", "projection_head.0.weight", "prototypes.weight"]).title
        'SwAV'
    """
    return next((layout for layout in LAYOUTS if layout.is_of(names)), Layout("a backbone", ()))
