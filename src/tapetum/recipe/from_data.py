"""Chooses a recipe for images that no recipe has been tuned for, from what a glance at them tells.

Settings that the data do not decide come from a shipped recipe: one for many labels per class or one for few. The
settings chosen are written as a recipe that extends it, so overrides and errors work as in any other recipe.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tapetum.data.views.draw import ViewConfig
from tapetum.recipe.glance import LOOKED_AT, Glance
from tapetum.recipe.recipe import Recipe, load_recipe
from tapetum.system.machine import available_threads

MANY_LABELS, FEW_LABELS = "fixmatch_cifar10_cpu", "fixmatch_cifar10_250_cpu"
"""Recipes to start from: mild views of labelled images where a class has many of them, strong ones where it has few,
which are soon memorised."""
PAWS_OF = {MANY_LABELS: "paws_cifar10_labels_first_cpu", FEW_LABELS: "paws_cifar10_250_cpu"}
"""What takes their place for very few labels, for photographs at their size, and for other methods."""
FIXMATCH_FROM = 8
"""Least mean number of labels per class from which a classifier's guesses teach more than labelled neighbours do: with
4, PAWS was ahead (docs/speedrun.md)."""
SMALL_UP_TO = 40
"""Greatest shorter side, in pixels, of images that count as small, like CIFAR's."""
SHRUNK_TO = 48
"""Greatest shorter side, in pixels, of the images that a CPU works on."""
READ_AT = 2 * SHRUNK_TO
"""Shorter side, in pixels, at which a CPU reads images, so that a quarter of an image has enough for a view."""
_BASE_SIZE = 32  # side, in pixels, of the images that the base recipe is for
_BASE_CLASSES = 10  # and their number of classes
_WARMUP_STEPS, _WARMUP_LIMIT = 200, 0.1
_LEAST_OF_GREY = 0.5
"""Least share of a small grey image that a view shows: letters, garments and scans fill their frame, and a quarter of
one could be any other. This gives 77% instead of 74% on held-out images of Fashion-MNIST with 10 labels per class."""
_ELONGATED = 1.5  # ratio of longer to shorter side; above it, the central square leaves out over a third of an image


@dataclass(frozen=True)
class Choice:
    """A setting and the reason for it."""

    what: str
    value: str
    reason: str


def choose(seen: Glance, *, shrink: bool, method: str | None = None) -> tuple[dict[str, Any], list[Choice]]:
    """Choose the sections of a recipe for a pool; also returns what was chosen and why.

    Args:
        seen: the pool.
        shrink: treat photographs like small images, of `SHRUNK_TO` pixels: for a CPU, unless a network is given that
            needs more. In four minutes on two cores, accuracy on 3,000 photographs with 10 labels per class was 42%; a
            resnet18 with twice the pixels reached 33%, having trained on a third of the images.
        method: the kind of method that the settings must suit; None chooses it.
    """
    is_small = shrink or seen.size <= SMALL_UP_TO
    name = FEW_LABELS if seen.labels_are_few else MANY_LABELS
    is_enough = method == "fixmatch" or (method is None and seen.num_labels >= FIXMATCH_FROM * seen.num_classes)
    if not (is_small and is_enough):
        name = PAWS_OF[name]
    base = load_recipe(name)
    batch_size, batch_choice = _batch(seen, name)
    sections, choices = _small(seen, name) if is_small else _photographs(seen)
    if method == "fixmatch" and not is_small:
        sections["views"] |= _weak_and_strong(sections["views"]["large"])
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
    per_class = f"{seen.num_labels / seen.num_classes:.3g} labels per class"
    few, many = f"{per_class} are soon memorised", f"{per_class}: their images are best left almost unchanged"
    numbers = f"mean {', '.join(f'{m:.3f}' for m in seen.mean)}, std {', '.join(f'{s:.3f}' for s in seen.std)}"
    if shrink_to:
        choices.append(Choice("reading", f"{shrink_to} pixels", "images are larger; shrunk once, they are read fast"))
    if method is None:
        guess = "labelled neighbours" if base.method.kind == "paws" else "a classifier"
        reason = f"that of {name}: unlabelled images learn what {guess} would call them"
        choices.append(Choice("method", base.method.kind, reason))
    choices += [
        _crops(seen, sections, base),
        Choice("colours", numbers, f"measured on {min(LOOKED_AT, seen.num_images)} {colour} images"),
        Choice("support views", *(("strong", few) if seen.labels_are_few else ("mild", many))),
        Choice(
            "mirroring", "left-right", f"suits most photos; set {_no_mirroring(sections, base)} for letters and digits"
        ),
        batch_choice,
        support_choice,
        Choice("optimizer", sections["optimizer"].get("kind", base.optimizer.kind), f"{per_class}, and this network"),
        Choice("learning rate", f"{lr['peak']:g}", f"that of {name}, adapted to this network and batch"),
    ]
    return sections, choices


def _small(seen: Glance, name: str) -> tuple[dict[str, Any], list[Choice]]:
    """Take a recipe's network and views, and scale the views in proportion to the images."""
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
    seen_then = ", ".join(str(round(scale * shown)) for scale in base.views.evaluation.scales)
    sizes = f"{views['large']['size']} pixels, for evaluation {seen_then}"
    network, proportion = f"images are small: {seen.size} pixels (median shorter side)", "in proportion"
    if seen.size > SMALL_UP_TO:
        network = f"there is no GPU, and images are larger: {seen.size} pixels (median shorter side)"
        proportion = f"in proportion to {worked_at}: more pixels would leave time for too few steps"
    return {"views": views, "optimizer": {"lr": {"peak": base.optimizer.lr.peak}}}, [
        Choice("network", base.backbone.kind, network),
        Choice("views", sizes, f"those of {name} for {_BASE_SIZE} pixels, scaled {proportion}"),
    ]


def _photographs(seen: Glance) -> tuple[dict[str, Any], list[Choice]]:
    size = min(128, max(64, 8 * round(0.5 * seen.size / 8)))
    shown = 9 * size // 8  # crops enlarge what they show, so objects have about the same size in both
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
        "optimizer": {"kind": "sgd", "lr": {"peak": 0.1}},  # Muon has not been tried with it
        "trainer": {"checkpoint_every": 100},
    }
    return sections, [
        Choice("network", "resnet18", f"images have more than {SMALL_UP_TO} pixels: {seen.size} (median shorter side)"),
        Choice(
            "views",
            f"{size} pixels, {shown} for evaluation",
            "half the images' size, but between 64 and 128 to keep steps fast",
        ),
    ]


def _weak_and_strong(views: Mapping[str, Any]) -> dict[str, Any]:
    """Of views of photographs, those that FixMatch assigns classes to and those that learn them."""
    weak = {"size": views["size"], "count": 1, "scale": [0.5, 1.0], "flip": views["flip"], "jitter": 0.0, "blur": 0.0}
    return {"large": {**weak, "grayscale": 0.0, "solarize": 0.0}, "small": {**views, "count": 1}}


def _crops(seen: Glance, sections: Mapping[str, Any], base: Recipe) -> Choice:
    """Describe how much of an image crops show: photographs set it in the recipe, small images inherit it."""
    inherited = base.views.small or base.views.large  # of several kinds, those that are learned from
    least, most = sections["views"]["small" if base.views.small else "large"].get("scale", inherited.scale)
    value = f"{100 * least:.0f}% to {100 * most:.0f}% of an image's area"
    is_wide = seen.is_grey and least >= _LEAST_OF_GREY
    usual = "large, because grey images fill their frame" if is_wide else "as usual for images of this size"
    if seen.aspect <= _ELONGATED:
        return Choice("crops", value, f"{usual}; evaluated on the central square")
    lost = f"{100 * (1 - 1 / seen.aspect):.0f}%"
    return Choice(
        "crops", value, f"images are {seen.aspect:g} times as long as wide: {lost} lies outside the evaluated square"
    )


def _no_mirroring(sections: Mapping[str, Any], base: Recipe) -> str:
    settings = [f"views.{name}.flip=0" for name in ("large", "small", "support") if sections["views"].get(name)]
    settings += ["views.evaluation.mirrored=false"] if base.views.evaluation.mirrored else []
    return " ".join(settings)


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
    assert base.support.images_per_class is not None
    supports = base.support.images_per_class * _BASE_CLASSES
    # Two or more, because SuNCEt's loss needs another image of each image's class. However few the labels are, several
    # views of one image are worth their time: with 1, 2 and 4 labels per class of CIFAR-10, 12 supports per class were
    # better than twice the labels, by 3 points on held-out labels in equal time, and by 4 to 7 in equal steps.
    per_class = max(2, min(16, supports // seen.num_classes))
    classes = supports // per_class if seen.num_classes * per_class > supports else None
    shown = "each class" if classes is None else f"{classes} classes"
    reason = f"{seen.num_classes} classes, {seen.num_labels} labels, at least {seen.fewest} per class"
    section = {"images_per_class": per_class, "classes_per_batch": classes}
    return section, Choice("supports", f"{per_class} labelled images of {shown} per step", reason)


def _workers(seen: Glance) -> int:
    """Return how many processes decode and crop in advance; on a CPU, just cropping would take time from training."""
    if seen.decoded_once and (seen.one_size or not torch.cuda.is_available()):
        return 0
    return min(8, max(1, available_threads() // 2))


def describe(choices: list[Choice]) -> str:
    """Format choices, one line each."""
    what, value = (max(len(getattr(c, name)) for c in choices) for name in ("what", "value"))
    return "\n".join(f"  {c.what:<{what}}  {c.value:<{value}}  {c.reason}" for c in choices)
