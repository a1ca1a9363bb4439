"""Recognises the projector of a file in the layout of PAWS, by whose outputs such weights are judged."""

from collections.abc import Mapping

from torch import Tensor

from tapetum.interchange.weights.layouts import prefixes
from tapetum.nn.heads import HeadConfig

_LAST = "fc.fc3.weight"


def projector_of(tensors: Mapping[str, Tensor]) -> HeadConfig | None:
    """The projector, and whether a predictor follows; None for files of another layout.

    Args:
        tensors: as `tapetum.interchange.weights.weight_files.read_weights` returns them.

    Example:
        >>> import torch
        >>> shapes = {"fc.fc1.weight": (6, 6), "fc.fc3.weight": (4, 6), "conv1.weight": (6, 3, 7, 7)}
        >>> projector_of({f"module.{name}": torch.zeros(shape) for name, shape in shapes.items()})
        HeadConfig(hidden=6, output=4, layers=3, predictor=False)
    """
    for prefix in prefixes(tensors, _LAST):
        output, hidden = tensors[prefix + _LAST].shape
        return HeadConfig(hidden=hidden, output=output, predictor=f"{prefix}pred.fc1.weight" in tensors)
    return None
