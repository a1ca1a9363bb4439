"""The rungs of `ingredients.py`: settings of short trainings, each one change against another.

A rung is named after what it adds. `settings_of` follows `against` down to the recipe for the number of labels. Work is
counted in *units*: forward and backward pass of the network of `Settings` on one image of 24 pixels; a forward pass
alone is a third of that, and pixels and multiplications count in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from tapetum.nn.small_net import SmallNet, SmallNetConfig

UNIT_SIZE = 24
"""Side in pixels of the image whose forward and backward pass is one unit."""
LARGEST_VIEW = 32
"""Side in pixels of CIFAR's images."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a rung is trained. Defaults: `paws_cifar10_cpu` with half the channels and views of 20 pixels instead of 24,
    so that a training takes a minute or two on one core."""

    unlabelled: Literal["none", "paws", "pseudo_labels"] = "paws"
    """What is learned from unlabelled images."""
    all_labels: bool = False
    """Whether every image that does not judge is labelled."""
    images: int = 64
    """Unlabelled images of a step; PAWS sees two views of each, pseudo-labels come from one and teach another."""
    supports_per_class: int = 8
    """Labelled images of a step and class."""
    start: float = 0.0
    """Share of the steps that come before the unlabelled images as above: they see labelled images alone."""
    before: Literal["nothing", "paws", "simclr"] = "nothing"
    """What those steps learn from unlabelled images all the same, in two views of each; PAWS rises from 0."""
    ramp: float = 0.7
    """Share of the steps over which the unlabelled images' weight then rises from 0."""
    hold: float = 0.0
    """Share of the steps before the learning rate begins to fall."""
    label_smoothing: float = 0.1
    """Share of each label that is spread evenly over all classes."""
    suncet_weight: float = 0.3
    """Weight of SuNCEt among the labelled images, beside their cross-entropy."""
    unlabelled_weight: float = 1.0
    """Weight of PAWS or of the pseudo-labels after the ramp."""
    neighbour_weight: float = 0.0
    """Weight of the same pseudo-labels as the soft nearest neighbours among the labelled images learn them."""
    simclr_weight: float = 0.0
    """Weight of SimCLR's loss between the two views of PAWS; it has no ramp."""
    view: str = "middle"
    """The kind of view (ingredients_data.VIEWS) that learns from unlabelled images."""
    support_view: str = "mild"
    """The kind of view of labelled images."""
    mixup: float = 0.0
    """Each labelled image is mixed with another, by shares drawn from Beta(mixup, mixup); 0: none is."""
    mixed: Literal["labels", "all"] = "labels"
    """What `mixup` mixes: labelled images, or all that is learned from, where each keeps the larger share."""
    support_warp: float = 0.0
    """Half of the labelled images are turned by up to so many degrees, and sheared by up to so many hundredths."""
    warp: float = 0.0
    """The same for half of the views that are learned from unlabelled images."""
    rotations: float = 0.0
    """Weight of telling by which quarter turns unlabelled images were turned, in one more view of each."""
    cutout: float = 0.0
    """Side of a grey square in each view of an unlabelled image, as a share of the view's."""
    support_cutout: float = 0.0
    """The same for views of labelled images."""
    gate: Literal["confidence", "fixmatch", "freematch", "softmatch"] = "confidence"
    """How much a pseudo-label weighs."""
    aligned: bool = False
    """Whether pseudo-labels are pulled to even classes."""
    soften: float = 0.0
    """Temperature of probabilities that are learned in place of the likeliest class; 0: that class is."""
    both_sides: bool = False
    """Whether pseudo-labels are given by the mean over a weak view and its mirror image."""
    whole: bool = False
    """Whether pseudo-labels are given by the whole image, as large as those that judge, in place of a weak view."""
    teacher: float = 0.0
    """Decay of the averaged weights that give the pseudo-labels; 0: the learner's own weights give them."""
    average: float = 0.0
    """Decay of the averaged weights that are judged; 0: the last step's are."""
    optimizer: Literal["sgd", "muon"] = "sgd"
    """Muon is for the 3x3 convolutions alone; SGD trains the rest."""
    lr: float = 0.2
    """Highest learning rate of SGD."""
    muon_lr: float = 0.05
    """Highest learning rate of Muon; the weights of a matrix of n rows have length sqrt(n)."""
    muon_iterations: int = 5
    """Newton-Schulz iterations of Muon."""
    muon_products: Literal["float32", "bfloat16"] = "float32"
    """What Muon multiplies in; everything else is float32."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 5e-4
    """Of SGD."""
    whiten: bool = False
    """Whether the first layer is computed from the images' covariance, and kept."""
    widths: tuple[int, ...] = (32, 64, 64)
    """Channels of the network's groups."""
    size: int = 20
    """Side of the views in pixels. Judged are views of 1.4 times that, because crops enlarge what they show."""
    first_size: tuple[float, int] | None = None
    """(share of the steps, side in pixels): smaller views at first."""

    @property
    def judged_size(self) -> int:
        """Side in pixels of the images that judge."""
        return min(LARGEST_VIEW, round(1.4 * self.size))

    def size_at(self, share: float) -> int:
        """Side of the views after this share of the steps."""
        return self.first_size[1] if self.first_size and share < self.first_size[0] else self.size

    def sees_unlabelled(self, share: float) -> bool:
        """Whether the step after this share of the steps does."""
        return self.unlabelled != "none" and share >= self.start

    def step_cost(self, share: float, num_classes: int) -> float:
        """Units of the step after this share of the steps."""
        passes = float(num_classes * self.supports_per_class)
        if self.rotations:
            passes += self.images
        if self.sees_unlabelled(share):
            assigning = (2 if self.both_sides else 1) * (self.judged_size / self.size if self.whole else 1) ** 2 / 3
            passes += self.images * (2 if self.unlabelled == "paws" else 1 + assigning)
        elif self.before != "nothing":
            passes += self.images * 2
        relative = multiplications(self.widths) / multiplications(Settings.widths)
        return passes * relative * (self.size_at(share) / UNIT_SIZE) ** 2

    def steps_for(self, budget: float, num_classes: int) -> int:
        """The number of steps, at least one, that cost `budget` units."""
        parts = 1000
        mean = sum(self.step_cost((part + 0.5) / parts, num_classes) for part in range(parts)) / parts
        return max(1, round(budget / mean))


MANY_LABELS = Settings()
FEW_LABELS = replace(
    MANY_LABELS, view="strong", support_view="strong", supports_per_class=12, ramp=0.6, weight_decay=1e-3
)
"""As `paws_cifar10_250_cpu`."""
FEW = 1000
"""The largest number of labels to which FEW_LABELS applies."""


@cache
def multiplications(widths: tuple[int, ...]) -> int:
    """Operations of a forward pass of one image of 24 pixels."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        SmallNet(SmallNetConfig(widths=widths)).eval()(torch.zeros(1, 3, UNIT_SIZE, UNIT_SIZE))
    return counter.get_total_flops()


@dataclass(frozen=True)
class Rung:
    """A change against another rung."""

    against: str | None
    """The other rung; None: the recipe."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of Settings."""
    about: str = ""
    """Where the idea is from."""


LABELS, SUNCET, PAWS, FIRST, PSEUDO = "labels alone", "labels + SuNCEt", "PAWS", "labels first", "pseudo-labels"
BOTH = "balanced with teacher"
THREE = {"muon_iterations": 3, "muon_products": "bfloat16"}
UNTRAINED, PIXELS = "untrained network", "k-NN on pixels"
RUNGS: dict[str, Rung] = {
    PIXELS: Rung(None, {}, "20 votes by cosine, training nothing"),
    UNTRAINED: Rung(None, {"unlabelled": "none"}, "soft neighbours of random features"),
    LABELS: Rung(None, {"unlabelled": "none", "suncet_weight": 0.0}, "cross-entropy"),
    SUNCET: Rung(LABELS, {"suncet_weight": 0.3}, "https://arxiv.org/abs/2006.10803"),
    PAWS: Rung(SUNCET, {"unlabelled": "paws"}, "https://arxiv.org/abs/2104.13963"),
    FIRST: Rung(PAWS, {"start": 0.6, "ramp": 0.05, "hold": 0.6}, "`paws_start` and `lr.hold` of recipes"),
    PSEUDO: Rung(FIRST, {"unlabelled": "pseudo_labels", "view": "strong"}, "weighted by their probability"),
    "FixMatch": Rung(PSEUDO, {"gate": "fixmatch"}, "https://arxiv.org/abs/2001.07685"),
    "FreeMatch": Rung(PSEUDO, {"gate": "freematch"}, "https://arxiv.org/abs/2205.07246"),
    "SoftMatch": Rung(PSEUDO, {"gate": "softmatch"}, "https://arxiv.org/abs/2301.10921"),
    "class-balanced": Rung(PSEUDO, {"aligned": True}, "distribution alignment, https://arxiv.org/abs/1911.09785"),
    "averaged teacher": Rung(PSEUDO, {"teacher": 0.99}, "https://arxiv.org/abs/1703.01780"),
    "SimCLR 0.5": Rung(PAWS, {"simclr_weight": 0.5}, "https://arxiv.org/abs/2002.05709"),
    "SimCLR 1": Rung(PAWS, {"simclr_weight": 1.0}, "https://arxiv.org/abs/2002.05709"),
    "averaged weights": Rung(PAWS, {"average": 0.98}, "https://arxiv.org/abs/1703.01780"),
    "cutout": Rung(PAWS, {"cutout": 0.5}, "https://arxiv.org/abs/1708.04552"),
    "strong views": Rung(PAWS, {"view": "strong"}, "as `paws_cifar10_250_cpu`"),
    "strong supports": Rung(PAWS, {"support_view": "strong"}, "as `paws_cifar10_250_cpu`"),
    "milder views": Rung(PAWS, {"view": "middle"}, "as `paws_cifar10_cpu`"),
    "mild supports": Rung(PAWS, {"support_view": "mild"}, "as `paws_cifar10_cpu`"),
    "Muon": Rung(PAWS, {"optimizer": "muon"}, "https://kellerjordan.github.io/posts/muon/"),
    "labels + SuNCEt by Muon": Rung(SUNCET, {"optimizer": "muon"}, "https://kellerjordan.github.io/posts/muon/"),
    "labels first by Muon": Rung(FIRST, {"optimizer": "muon"}, "https://kellerjordan.github.io/posts/muon/"),
    "class-balanced by Muon": Rung("class-balanced", {"optimizer": "muon"}, "the same, with pseudo-labels"),
    BOTH: Rung("class-balanced", {"teacher": 0.99}, "as `fixmatch_cifar10_cpu`, but for the optimizer"),
    f"{BOTH} by Muon": Rung(BOTH, {"optimizer": "muon"}, "as `fixmatch_cifar10_cpu`"),
    f"{BOTH} sooner": Rung(BOTH, {"start": 0.2, "ramp": 0.2, "hold": 0.3}),
    "more unlabelled images": Rung(f"{BOTH} by Muon", {"images": 128, "supports_per_class": 4}),
    "slower teacher": Rung(f"{BOTH} by Muon", {"teacher": 0.998}),
    "cutout with teacher": Rung(f"{BOTH} by Muon", {"cutout": 0.5}, "cutout, https://arxiv.org/abs/1708.04552"),
    "middle views and teacher": Rung(f"{BOTH} by Muon", {"view": "middle"}, "as `paws_cifar10_cpu`"),
    "middle views and supports": Rung(
        "middle views and teacher", {"support_view": "middle"}, "as the unlabelled views"
    ),
    "mild supports for middle views": Rung(
        "middle views and teacher", {"support_view": "mild"}, "as `fixmatch_cifar10_cpu`"
    ),
    "sooner by Muon": Rung("middle views and teacher", {"start": 0.3, "ramp": 0.1, "hold": 0.4}),
    "middle supports and teacher": Rung(f"{BOTH} by Muon", {"support_view": "middle"}, "as `paws_cifar10_cpu`"),
    "strong supports and teacher": Rung(f"{BOTH} by Muon", {"support_view": "strong"}, "as `paws_cifar10_250_cpu`"),
    "smaller crops": Rung(
        "middle views and teacher", {"support_view": "smaller crops"}, "down to a tenth of the image"
    ),
    "halfway views": Rung(f"{BOTH} by Muon", {"view": "halfway"}, "between strong and middle ones"),
    "PAWS first": Rung("halfway views", {"before": "paws"}, "instead of labels alone"),
    "SimCLR first": Rung("halfway views", {"before": "simclr"}, "https://arxiv.org/abs/2002.05709"),
    "mixed labels": Rung("halfway views", {"mixup": 0.5, "suncet_weight": 0.0}, "https://arxiv.org/abs/1710.09412"),
    "cutout of labels": Rung("halfway views", {"support_cutout": 0.5}, "https://arxiv.org/abs/1708.04552"),
    "FreeMatch with teacher": Rung("halfway views", {"gate": "freematch"}, "https://arxiv.org/abs/2205.07246"),
    "mixed images": Rung("mixed labels", {"mixed": "all"}, "MixMatch, https://arxiv.org/abs/1905.02249"),
    "turned labels": Rung("halfway views", {"support_warp": 30.0}, "RandAugment's, https://arxiv.org/abs/1909.13719"),
    "soft pseudo-labels": Rung("halfway views", {"soften": 0.5}, "sharpened, https://arxiv.org/abs/1905.02249"),
    "mirrored pseudo-labels": Rung("halfway views", {"both_sides": True}, "two weak views, one the mirror image"),
    "whole images": Rung("halfway views", {"whole": True}, "pseudo-labels as predictions are made"),
    "heavier pseudo-labels": Rung("halfway views", {"unlabelled_weight": 3.0}),
    "learning neighbours": Rung("halfway views", {"neighbour_weight": 0.3}, "pseudo-labels, as PAWS predicts them"),
    "turned unlabelled images": Rung(
        "learning neighbours", {"warp": 30.0}, "RandAugment's, https://arxiv.org/abs/1909.13719"
    ),
    "heavier learning neighbours": Rung("learning neighbours", {"unlabelled_weight": 3.0}),
    "unlabelled images sooner": Rung("heavier learning neighbours", {"start": 0.15, "ramp": 0.25, "hold": 0.4}),
    "fewer labelled images": Rung("learning neighbours", {"supports_per_class": 6}, "of each class in a step"),
    "half the batch": Rung("learning neighbours", {"images": 32, "supports_per_class": 6}, "so twice the steps"),
    "three iterations": Rung("learning neighbours", THREE, "of Muon, as the library's"),
    "labels in three iterations": Rung("labels + SuNCEt by Muon", THREE, "of Muon, as the library's"),
    "faster Muon": Rung("learning neighbours", {"muon_lr": 0.1}),
    "later fall": Rung("halfway views", {"hold": 0.8}, "of the learning rate"),
    "rotations": Rung("halfway views", {"rotations": 0.5}, "RotNet, https://arxiv.org/abs/1803.07728"),
    "growing views": Rung(f"{BOTH} by Muon", {"first_size": (0.6, 14)}, "small until unlabelled images join"),
    "whitening": Rung(PAWS, {"whiten": True}, "https://arxiv.org/abs/2404.00498"),
    "progressive size": Rung(PAWS, {"first_size": (0.5, 14)}, "https://arxiv.org/abs/2104.00298"),
    "smaller views": Rung(PAWS, {"size": 16}),
    "larger views": Rung(PAWS, {"size": 24}),
    "narrower network": Rung(PAWS, {"widths": (16, 32, 32)}),
    "wider network": Rung(PAWS, {"widths": (32, 128, 128)}, "as `paws_cifar10_cpu`"),
    "all labels": Rung(SUNCET, {"all_labels": True}, "the ceiling"),
}
"""Name -> rung; one that changes nothing for a number of labels is left out there."""


def settings_of(name: str, num_labels: int) -> Settings:
    """All settings of a rung."""
    rung = RUNGS[name]
    few = num_labels <= FEW
    below = (FEW_LABELS if few else MANY_LABELS) if rung.against is None else settings_of(rung.against, num_labels)
    return replace(below, **rung.changes)


def rungs_for(num_labels: int) -> list[str]:
    """The rungs that change something with so many labels, in order."""
    return [
        name
        for name, rung in RUNGS.items()
        if rung.against is None or settings_of(name, num_labels) != settings_of(rung.against, num_labels)
    ]
