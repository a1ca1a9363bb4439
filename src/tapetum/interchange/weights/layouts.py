"""Layouts of published weights: how other tools name the tensors of backbone and heads.

A layout is recognised by its tensors' names alone, below whatever prefix the backbone has in the file ("module.",
"encoder.module.", "state_dict.", ...). To support another one, add it to `LAYOUTS`.

Files of other frameworks come with torch's names and shapes: `weight_files.py` and its neighbours see to that.
"""

import re
from collections.abc import Collection, Iterable
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

_METHOD = "method."  # before the names of a run's method
_BACKBONE = Layout("a backbone", ())
TAPETUM = Layout("Tapetum", (), heads=((r"(.*)", r"\1"),))
"""A run's own names; a method from outside may have parts of any name."""

_PAWS_HEADS = ((r"fc\.(.*)", r"projector.\1"), (r"pred\.(.*)", r"predictor.\1"))
_CLASSIFIER = "the classifier of the classes it was trained on"

LAYOUTS = (
    Layout(
        "Tapetum, exported",
        (r"backbone\..*", r"(projector|predictor|prototypes|classifier)\..*"),
        heads=((r"(.*)", r"\1"),),
    ),
    Layout(
        "PAWS-TF",
        (r"fc\.fc1\.weight", r"normalization\..*"),
        heads=_PAWS_HEADS,
        unused=(
            (r"normalization\..*", "the mean and variance of colours, which a recipe's views hold"),
            (r".*\.ATTRIBUTES.*", "training state"),
        ),
    ),
    Layout(
        "PAWS, SimCLR+CT",
        (r"fc\.fc1\.weight", r"fc\.fc3\.weight"),
        heads=_PAWS_HEADS,
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
    Layout("PASSL, linear probe", (r"linear\.linear\.weight",), unused=((r"linear\..*", _CLASSIFIER),)),
    Layout(
        "lightly-train, embedding model",
        (r"embed_head\.weight",),
        unused=(
            (r"embed_head\..*", "lightly-train's own embedding"),
            (r"wrapped_model\._model\.(fc|head)\..*", _CLASSIFIER),
        ),
    ),
    Layout("DINO", (r"head\.mlp\..*",), unused=((r"head\..*", "DINO's own head"),)),
    Layout("torchvision, timm", (r"fc\.weight", r"fc\.bias"), unused=((r"fc\..*", _CLASSIFIER),)),
    Layout(
        "timm, vision transformer",
        (r"patch_embed\.proj\.weight", r"head\.weight", r"head\.bias"),
        unused=((r"head\..*", _CLASSIFIER),),
    ),
)
"""Layouts with heads or classifiers, the more particular ones first."""


_OWN_PREFIXES = (
    *("wrapped_model._features.", "wrapped_model._model."),  # lightly-train
    *("", "backbone.", "encoder.", "res_model.encoder."),  # most; DINO; PASSL
)
"""What stands before a backbone's names but not before those of its heads."""


def layout_of(names: Collection[str]) -> Layout:
    """The layout of a file.

    Args:
        names: of the tensors next to the backbone, those of the backbone included, without their common prefix.

    Example:
        >>> layout_of(["conv1.weight", "projection_head.0.weight", "prototypes.weight"]).title
        'SwAV'
    """
    return next((layout for layout in LAYOUTS if layout.is_of(names)), _BACKBONE)


def surroundings(prefix: str, names: Iterable[str]) -> tuple[str, Layout]:
    """Where the heads of a file stand, and the file's layout.

    Args:
        prefix: of the backbone's tensors.
        names: of all tensors of the file.

    Returns:
        The prefix of backbone and heads together, and the layout below it.

    Example:
        >>> prefix, layout = surroundings("m.backbone.", ["m.backbone.conv1.weight", "m.head.mlp.0.weight"])
        >>> prefix, layout.title
        ('m.', 'DINO')
    """
    if prefix == _METHOD + "backbone.":
        return _METHOD, TAPETUM
    names = list(names)
    for own in _OWN_PREFIXES:
        if not prefix.endswith(own):
            continue
        outside = prefix.removesuffix(own)
        layout = layout_of([name.removeprefix(outside) for name in names if name.startswith(outside)])
        if layout is not _BACKBONE:
            return outside, layout
    return prefix.removesuffix("backbone."), _BACKBONE


def prefixes(names: Collection[str], first: str) -> list[str]:
    """What may stand before a backbone's names in a file, the best first.

    Args:
        names: of the file's tensors.
        first: a name that the backbone has.

    Example:
        >>> prefixes(["student.conv1.weight", "teacher.conv1.weight"], "conv1.weight")
        ['teacher.', 'student.']
    """
    found = {name.removesuffix(first) for name in names if name == first or name.endswith(f".{first}")}
    # A run's checkpoint holds every weight's name a second time, for its momentum; DINO's holds teacher and student.
    return sorted(found, key=lambda prefix: (not prefix.startswith((_METHOD, "teacher.")), prefix))
