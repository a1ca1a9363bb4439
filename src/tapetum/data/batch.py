"""The data of a training step, in plain dataclasses because Fabric rebuilds every object that passes its wrapper."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Views:
    """Augmented images, one tensor per resolution, ordered by view first and then by image."""

    groups: tuple[Tensor, ...]
    """Per resolution (views * B, C, H, W): rows v*B..(v+1)*B-1 are view v of the batch's B images."""
    counts: tuple[int, ...]
    """Views per resolution, e.g. (2, 6)."""


@dataclass
class Batch:
    """One step's images on this rank: the unlabelled views and, for methods that use labels, a support set."""

    views: Views | None
    """Views of the unlabelled images; None for methods that use only labelled images."""
    index: Tensor | None
    """(B,) int64: indices in the pool of the images that the views show."""
    support: Views | None = None
    """Views of the S support images of this rank, at the large resolution."""
    support_labels: Tensor | None = None
    """(S,) int64 class of each support image; the same for every view."""
    support_classes: Tensor | None = None
    """(C,) int64: the classes in the support sets of all ranks, in the order of the label columns."""

    @property
    def num_images(self) -> int:
        """Unlabelled images of this rank; labelled ones, if the step has no others."""
        images = self.index if self.index is not None else self.support_labels
        return 0 if images is None else images.shape[0]
