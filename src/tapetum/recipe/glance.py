"""A glance at a pool: the properties of its images and labels that settings follow from."""

from dataclasses import dataclass

import numpy as np
import torch

from tapetum.data.images.cache import fits
from tapetum.data.images.decoding import header_sizes
from tapetum.data.images.stores import FileStore, Store, shrunk
from tapetum.data.labels.labels import Labels
from tapetum.ops.randomness import make_keys, permutation

FEW_UP_TO = 100
"""Greatest mean number of labels per class that counts as few."""
LOOKED_AT = 128
"""Number of images whose pixels are examined."""
_SIZED = 2048  # number of images whose sizes are
_SHRUNK_TO = 256  # shorter side, in pixels, that is enough to measure their colours


@dataclass(frozen=True)
class Glance:
    """The properties of a pool that settings follow from."""

    num_images: int
    """Without those labelled as of no class: nothing is learned from them."""
    size: int
    """Median shorter side, pixels."""
    aspect: float
    """Median ratio of longer to shorter side."""
    one_size: bool
    """Whether all images in the sample are equally high and wide."""
    decoded_once: bool
    """Whether the pool is in memory or small enough to be decoded into a cache."""
    is_grey: bool
    """Whether colour carries no information: one channel, or three equal ones."""
    mean: tuple[float, ...]
    """Mean per channel, for values in [0, 1]; so is `std`, the standard deviation."""
    std: tuple[float, ...]
    num_classes: int
    fewest: int
    """Number of labels of the class that has the fewest."""
    num_labels: int

    @property
    def labels_are_few(self) -> bool:
        return self.num_labels <= FEW_UP_TO * self.num_classes


def glance(store: Store, labels: Labels) -> Glance:
    """Measure a sample of a pool's images, the same one at each call.

    Args:
        store: the pool.
        labels: the labels that training will use.

    Raises:
        ValueError: an image of the sample cannot be read; names it and the fix.
    """
    order = permutation(make_keys(0, "glance"), len(store))
    if isinstance(store, FileStore):
        sizes = header_sizes((store.file(int(i)) for i in np.sort(order[:_SIZED])), store.at_once)
    else:
        sizes = store.sizes[:_SIZED]
    # One at a time, because whole photographs together may exceed memory, and so that each counts the same at any size.
    small = shrunk(store, _SHRUNK_TO)
    looks = [_colours(small, index) for index in np.sort(order[:LOOKED_AT])]
    mean, square = (torch.stack(values).mean(dim=0) for values in list(zip(*looks))[:2])
    std = (square - mean**2).clamp(min=1e-4).sqrt()
    return Glance(
        num_images=len(store) - len(labels.none),
        size=int(np.median(sizes.min(axis=1))),
        aspect=round(float(np.median(sizes.max(axis=1) / sizes.min(axis=1))), 2),
        one_size=bool((sizes == sizes[0]).all()),
        decoded_once=not isinstance(store, FileStore) or fits(store),
        is_grey=all(is_grey for _, _, is_grey in looks),
        mean=tuple(round(float(m), 4) for m in mean),
        std=tuple(round(float(s), 4) for s in std),
        num_classes=labels.num_classes,
        fewest=int(labels.counts.min()),
        num_labels=len(labels.labelled),
    )


def _colours(store: Store, index: int) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Return mean and mean square of each channel of an image, in [0, 1], and whether its channels are equal."""
    (image,) = store.read(np.array([index]))
    values = image.reshape(len(image), -1).double() / 255
    return values.mean(dim=1), (values**2).mean(dim=1), bool((image == image[:1]).all())
