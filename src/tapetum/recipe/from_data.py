"""A recipe for images that nobody has tuned one for: a look at the data, and settings that follow from it.

A shipped recipe is where everything starts from that the data say nothing about: one for many labels a class or one
for few. What is chosen is written as a recipe that extends it, so that overrides and errors work as in any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tapetum.data.images.cache import fits
from tapetum.data.images.decoding import header_sizes
from tapetum.data.images.stores import FileStore, Store, shrunk
from tapetum.data.labels.labels import Labels
from tapetum.data.views.draw import ViewConfig
from tapetum.ops.randomness import make_keys, permutation
from tapetum.recipe.recipe import Recipe, load_recipe
from tapetum.system.machine import available_threads

MANY_LABELS, FEW_LABELS = "paws_cifar10_cpu", "paws_cifar10_250_cpu"
"""Recipes to start from: mild views for many labels a class, strong ones for few, which are soon learned by heart."""
FEW_UP_TO = 100
"""Mean number of labels a class up to which they count as few."""
SMALL_UP_TO = 40
"""Pixels of the shorter side up to which images count as small, like CIFAR's."""
SHRUNK_TO = 48
"""Pixels of the shorter side that a CPU works on at most."""
READ_AT = 2 * SHRUNK_TO
"""Pixels of the shorter side that it reads, so that a quarter of an image still has those of a view."""
_SIZED, _READ = 2048, 128  # images whose size and whose pixels are looked at
_LOOKED_AT = 256  # pixels of the shorter side that are enough for their colours
_BASE_SIZE = 32  # pixels of the images that the base recipe is for
_BASE_CLASSES = 10  # and their classes
_WARMUP_STEPS, _WARMUP_LIMIT = 200, 0.1
_LEAST_OF_GREY = 0.5
"""Share of a small grey image that a view shows at least: letters, garments and scans fill their frame, and a quarter
of one may be any other. On held-out images of Fashion-MNIST with 10 labels a class 77% instead of 74."""
_ELONGATED = 1.5  # longer by shorter side from which the central square leaves a third or more of an image out


@dataclass(frozen=True)
class Glance:
    """What matters about a pool."""

    num_images: int
    size: int
    """Median shorter side, pixels."""
    aspect: float
    """Median of longer by shorter side."""
    one_size: bool
    """Whether all images looked at have the same height and width."""
    decoded_once: bool
    """Whether the pool lies in memory or is small enough to be decoded into a cache."""
    is_grey: bool
    """Whether colour carries nothing: one channel, or three equal ones."""
    mean: tuple[float, ...]
    """Per channel, for values in [0, 1]."""
    std: tuple[float, ...]
    num_classes: int
    fewest: int
    """Labels of the class that has fewest."""
    num_labels: int

    @property
    def labels_are_few(self) -> bool:
        return self.num_labels <= FEW_UP_TO * self.num_classes


@dataclass(frozen=True)
class Choice:
    """A setting and why."""

    what: str
    value: str
    reason: str


def glance(store: Store, labels: Labels) -> Glance:
    """Look at a sample of a pool's images, always the same one.

    Args:
        store: the pool.
        labels: those that training will use.

    Raises:
        ValueError: an image of the sample cannot be read; names it and the fix.
    """
    order = permutation(make_keys(0, "glance"), len(store))
    if isinstance(store, FileStore):
        sizes = header_sizes([store.root / store.names[int(i)] for i in np.sort(order[:_SIZED])])
    else:
        sizes = store.sizes[:_SIZED]
    # One at a time, for whole photographs together may exceed the memory; and each weighs the same, however large.
    small = shrunk(store, _LOOKED_AT)
    looks = [_colours(small, index) for index in np.sort(order[:_READ])]
    mean, square = (torch.stack(values).mean(dim=0) for values in list(zip(*looks))[:2])
    std = (square - mean**2).clamp(min=1e-4).sqrt()
    return Glance(
        num_images=len(store),
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
    """Per channel the mean and the mean square of an image, in [0, 1], and whether its channels are equal."""
    (image,) = store.read(np.array([index]))
    values = image.reshape(len(image), -1).double() / 255
    return values.mean(dim=1), (values**2).mean(dim=1), bool((image == image[:1]).all())


def choose(seen: Glance, *, shrink: bool) -> tuple[dict[str, Any], list[Choice]]:
    """Sections of a recipe for a pool, and what was chosen and why.

    Args:
        seen: the pool.
        shrink: work on photographs as on small images, of `SHRUNK_TO` pixels: for a CPU, unless a network is given that
            wants more. In four minutes on two cores, 3,000 photographs with 10 labels a class were right in 42% so, and
            in 33% with a resnet18 and twice the pixels, which had trained on a third of the images.
    """
    name = FEW_LABELS if seen.labels_are_few else MANY_LABELS
    base = load_recipe(name)
    batch_size, batch_choice = _batch(seen, name)
    sections, choices = _small(seen, name) if shrink or seen.size <= SMALL_UP_TO else _photographs(seen)
    sections["extends"] = name
    sections["views"] |= {"mean": list(seen.mean), "std": list(seen.std)}
    shrink_to = READ_AT if shrink and seen.size > READ_AT else None
    sections["data"] = {"batch_size": batch_size, "workers": 0 if shrink_to else _workers(seen), "shrink_to": shrink_to}
    sections["support"], support_choice = _support(seen, base)
    lr = sections["optimizer"]["lr"]
    lr["peak"] = round(lr["peak"] * math.sqrt(batch_size / base.data.batch_size), 4)
    warmup_epochs = _WARMUP_STEPS / max(1, seen.num_images // batch_size)
    lr |= {"warmup_epochs": round(warmup_epochs, 4), "warmup_limit": _WARMUP_LIMIT}
    colour = "grey" if seen.is_grey else "colour"
    per_class = f"{seen.num_labels / seen.num_classes:.3g} labels a class"
    few, many = f"{per_class} are soon learned by heart", f"{per_class}, whose images had better stay as they are"
    numbers = f"mean {', '.join(f'{m:.3f}' for m in seen.mean)}, std {', '.join(f'{s:.3f}' for s in seen.std)}"
    if shrink_to:
        choices.append(Choice("reading", f"{shrink_to} pixels", "images are larger; reduced once, they are read fast"))
    choices += [
        _crops(seen, sections, base),
        Choice("colours", numbers, f"measured on {min(_READ, seen.num_images)} images, which are {colour}"),
        Choice("support views", *(("strong", few) if seen.labels_are_few else ("mild", many))),
        Choice("mirroring", "left-right", f"fits most photographs; {_no_mirroring(sections)} for letters and digits"),
        batch_choice,
        support_choice,
        Choice("learning rate", f"{lr['peak']:g}", f"that of {name}, for this network and batch"),
    ]
    return sections, choices


def _small(seen: Glance, name: str) -> tuple[dict[str, Any], list[Choice]]:
    """A recipe's network and views, in proportion to the images."""
    base = load_recipe(name)
    # Below 16 pixels the network has nothing left to pool, so tiny images are enlarged.
    worked_at = min(SHRUNK_TO, max(seen.size, round(16 * _BASE_SIZE / base.views.large.size)))

    def scaled(pixels: int) -> int:
        return max(8, 2 * round(pixels * worked_at / _BASE_SIZE / 2))

    views: dict[str, Any] = {}
    for kind in ("large", "small", "support"):
        config: ViewConfig | None = getattr(base.views, kind)
        if config is not None:
            views[kind] = {"size": scaled(config.size), **_without_colour(seen)}
            if seen.is_grey:
                views[kind]["scale"] = [max(_LEAST_OF_GREY, config.scale[0]), config.scale[1]]
    shown = scaled(base.views.evaluation.crop)
    views["evaluation"] = {"crop": shown, "resize": shown}
    sections = {"views": views, "optimizer": {"lr": {"peak": base.optimizer.lr.peak}}}
    sizes = f"{views['large']['size']} pixels, {shown} when judged"
    network, proportion = f"images are small: {seen.size} pixels (median shorter side)", "in proportion"
    if seen.size > SMALL_UP_TO:
        network = f"there is no GPU, and images are larger: {seen.size} pixels (median shorter side)"
        proportion = f"in proportion to {worked_at}: more pixels would leave time for too few steps"
    return sections, [
        Choice("network", base.backbone.kind, network),
        Choice("views", sizes, f"as {name} for {_BASE_SIZE} pixels, {proportion}"),
    ]


def _photographs(seen: Glance) -> tuple[dict[str, Any], list[Choice]]:
    size = min(128, max(64, 8 * round(0.5 * seen.size / 8)))
    shown = 9 * size // 8  # crops enlarge what they show, so that objects are of about one size in both
    colour = {"jitter": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grayscale": 0.2}
    large = {"size": size, "count": 2, "scale": [0.2, 1.0], "flip": 0.5, "solarize": 0, "equalize": 0, **colour}
    blur = {"blur": 0.5, "blur_radius": [0.1, max(0.2, round(2 * size / 224, 2))]}
    support = {"size": size, "scale": [0.3, 1.0], "flip": 0.5, "jitter": 0, "grayscale": 0, "solarize": 0}
    views = {
        "large": large | blur | _without_colour(seen),
        "small": None,
        "support": None if seen.labels_are_few else support | _without_colour(seen),
        "evaluation": {"crop": shown, "resize": round(shown * 8 / 7)},
    }
    sections = {
        "backbone": {"kind": "resnet", "depth": 18, "stem": "imagenet"},
        "views": views,
        "optimizer": {"lr": {"peak": 0.1}},
        "trainer": {"checkpoint_every": 100},
    }
    return sections, [
        Choice("network", "resnet18", f"images have more than {SMALL_UP_TO} pixels: {seen.size} (median shorter side)"),
        Choice(
            "views",
            f"{size} pixels, {shown} when judged",
            "half the images' size, but from 64 to 128 to keep steps fast",
        ),
    ]


def _crops(seen: Glance, sections: Mapping[str, Any], base: Recipe) -> Choice:
    """What of an image views cut out: written by the photographs' recipe, inherited by that of small images."""
    least, most = sections["views"]["large"].get("scale", base.views.large.scale)
    value = f"{100 * least:.0f}% to {100 * most:.0f}% of an image's area"
    is_wide = seen.is_grey and least >= _LEAST_OF_GREY
    usual = "wide, as grey images fill their frame" if is_wide else "as usual for images of this size"
    if seen.aspect <= _ELONGATED:
        return Choice("crops", value, f"{usual}; judged on the central square")
    lost = f"{100 * (1 - 1 / seen.aspect):.0f}%"
    return Choice(
        "crops", value, f"images are {seen.aspect:g} times as long as wide: {lost} lie beyond the square judged"
    )


def _no_mirroring(sections: Mapping[str, Any]) -> str:
    return " ".join(f"views.{name}.flip=0" for name in ("large", "small", "support") if sections["views"].get(name))


def _without_colour(seen: Glance) -> dict[str, Any]:
    return {"saturation": 0.0, "hue": 0.0, "grayscale": 0.0} if seen.is_grey else {}


def _batch(seen: Glance, name: str) -> tuple[int, Choice]:
    size, reason = load_recipe(name).data.batch_size, f"that of {name}"
    if torch.cuda.is_available():
        size, reason = 256, "there is a GPU"
    if seen.num_images < 4 * size:
        size, reason = max(1, min(size, seen.num_images // 4)), f"there are just {seen.num_images} images"
    return size, Choice("batch", f"{size} images", reason)


def _support(seen: Glance, base: Recipe) -> tuple[dict[str, Any], Choice]:
    assert base.support is not None
    supports = base.support.images_per_class * _BASE_CLASSES
    # Two or more, as SuNCEt's loss asks of each image who else is of its class. However few the labels: several views
    # of one image are worth their time. With 1, 2 and 4 labels a class of CIFAR-10, 12 supports a class were better
    # than twice the labels by 3 points on held-out labels in equal time, by 4 to 7 in equal steps.
    per_class = max(2, min(16, supports // seen.num_classes))
    classes = supports // per_class if seen.num_classes * per_class > supports else None
    shown = "each class" if classes is None else f"{classes} classes"
    reason = f"{seen.num_classes} classes, {seen.num_labels} labels, at least {seen.fewest} a class"
    section = {"images_per_class": per_class, "classes_per_batch": classes}
    return section, Choice("supports", f"{per_class} labelled images of {shown} a step", reason)


def _workers(seen: Glance) -> int:
    """Processes that decode and cut ahead of the training; on a CPU they would take its time just to cut."""
    if seen.decoded_once and (seen.one_size or not torch.cuda.is_available()):
        return 0
    return min(8, max(1, available_threads() // 2))


def describe(choices: list[Choice]) -> str:
    """One line a choice."""
    what, value = (max(len(getattr(c, name)) for c in choices) for name in ("what", "value"))
    return "\n".join(f"  {c.what:<{what}}  {c.value:<{value}}  {c.reason}" for c in choices)
