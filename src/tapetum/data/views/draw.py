"""Multi-crop views, first half: draws what happens to each image.

`draw` turns keys (`ops/randomness.py`) into plain numpy parameters, one row per view; `data/views/apply.py` applies
them to pixels. The parameters follow torchvision's `RandomResizedCrop`, `ColorJitter`, `RandomGrayscale` and
PIL's solarize, equalize and Gaussian blur, as the published PAWS and SwAV recipes use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from tapetum.ops.randomness import Keys, uniform

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_ATTEMPTS = 10  # tries of torchvision's RandomResizedCrop before it falls back to a central crop


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """One kind of random view. The operations run in the order of the fields."""

    size: int
    """Side of the square view, in pixels."""
    scale: tuple[float, float]
    """Smallest and largest area of the crop, as fractions of the image's area."""
    count: int = 1
    """Views of this kind per image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of the crop (torchvision's default)."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    jitter: float = 0.8
    """Probability of the colour jitter: brightness, contrast, saturation and hue in random order (SimCLR)."""
    brightness: float = 0.0
    """Strength s: the factor is drawn uniformly from [max(0, 1 - s), 1 + s]; 0 turns the operation off."""
    contrast: float = 0.0
    """Strength, as for brightness."""
    saturation: float = 0.0
    """Strength, as for brightness."""
    hue: float = 0.0
    """Strength h, at most 0.5: the hue turns by a share of the circle drawn uniformly from [-h, h]; 0 turns it off."""
    grayscale: float = 0.0
    """Probability of turning the view grey."""
    solarize: float = 0.0
    """Probability of inverting values at or above a threshold drawn uniformly from [0, 256) (PAWS for CIFAR)."""
    equalize: float = 0.0
    """Probability of equalising each channel's histogram (PAWS for CIFAR)."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_radius: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest radius of the blur, in pixels of the view, as for PIL's `GaussianBlur` (SimCLR)."""
    colour: Literal["exact", "matrix", "fast"] = "exact"
    """`exact` gives exactly PIL's values. `matrix` approximates the jitter by one 3x3 matrix, `fast` also blur and
    resizing: the views of a photograph take about half the time (docs/performance.md)."""

    def __post_init__(self) -> None:
        _check(self.size >= 1, "size", self.size, "give the side of the view in pixels, 1 or more")
        _check(self.count >= 1, "count", self.count, "ask for 1 or more views")
        low, high = self.scale
        _check(0 < low <= high <= 1, "scale", self.scale, "give (least, largest) with 0 < least <= largest <= 1")
        low, high = self.ratio
        _check(0 < low <= high < math.inf, "ratio", self.ratio, "give (least, largest) with 0 < least <= largest")
        for name in ("flip", "jitter", "grayscale", "solarize", "equalize", "blur"):
            _check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "give a probability from 0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "give a strength of 0 or more")
        _check(0 <= self.hue <= 0.5, "hue", self.hue, "give a strength from 0 to 0.5 of the colour circle")
        low, high = self.blur_radius
        advice = "give (least, largest) in pixels with 0 <= least <= largest"
        _check(0 <= low <= high < math.inf, "blur_radius", self.blur_radius, advice)
        _check(self.colour in ("exact", "matrix", "fast"), "colour", self.colour, "choose exact, matrix or fast")


@dataclass(frozen=True, kw_only=True)
class EvaluationViewConfig:
    """The one deterministic view that evaluation and prediction use."""

    crop: int
    """Side of the central square that is kept, in pixels."""
    resize: int | None = None
    """Resize the image's shorter side to this many pixels before the crop; null keeps the image's own size."""
    mirrored: bool = False
    """Average what the network finds in the view and in its left-right mirror image: often a little more accurate,
    in twice the time."""
    scales: tuple[float, ...] = (1.0,)
    """Average what the network finds in the view resized by each of these factors: often more accurate, and slower;
    (0.75, 0.875, 1.0) takes 2.3 times as long."""

    def __post_init__(self) -> None:
        _check(self.crop >= 1, "crop", self.crop, "give the side of the view in pixels, 1 or more")
        valid = bool(self.scales) and all(0 < scale <= 4 for scale in self.scales)
        _check(valid, "scales", self.scales, "give one factor or more, each above 0 and at most 4")
        if self.resize is not None:
            advice = f"give null or at least the crop, {self.crop} pixels"
            _check(self.resize >= self.crop, "resize", self.resize, advice)


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """All the views of a run."""

    large: ViewConfig
    """The large views of the pool's images."""
    mean: tuple[float, ...]
    """Mean of each channel, for pixel values in [0, 1]; subtracted from every view."""
    std: tuple[float, ...]
    """Standard deviation of each channel, for pixel values in [0, 1]; every view is divided by it."""
    evaluation: EvaluationViewConfig
    """The view that evaluation and prediction see."""
    small: ViewConfig | None = None
    """The small views (multi-crop); null for none."""
    support: ViewConfig | None = None
    """The views of support images, of the same size as the large views; null draws them like large views (PAWS)."""
    support_views: int = 1
    """Number of views of each support image."""

    def __post_init__(self) -> None:
        if self.support is not None:
            advice = f"give it the size of views.large, {self.large.size}: both share one pass through the network"
            _check(self.support.size == self.large.size, "support.size", self.support.size, advice)
        _check(self.support_views >= 1, "support_views", self.support_views, "ask for 1 or more views")
        _check(all(0 <= m <= 1 for m in self.mean), "mean", self.mean, "give each channel's mean, from 0 to 1")
        _check(all(0 < s < math.inf for s in self.std), "std", self.std, "give each channel's deviation, above 0")
        same = len(self.mean) == len(self.std) > 0
        _check(same, "std", self.std, f"give one number per channel, as mean does ({len(self.mean)})")


def _check(holds: bool, field: str, value: object, advice: str) -> None:
    if not holds:
        raise ValueError(f"{field} is {value!r}: {advice}.")


@dataclass
class ViewParameters:
    """What happens to each of N views: numpy arrays of N rows on the host, to apply, plot or replay."""

    top: Integers
    """(N,) first row of the crop, pixels."""
    left: Integers
    """(N,) first column of the crop, pixels."""
    height: Integers
    """(N,) rows of the crop, pixels."""
    width: Integers
    """(N,) columns of the crop, pixels."""
    flip: Flags
    """(N,) whether left and right are swapped."""
    jitter: Flags
    """(N,) whether the four jitter operations run."""
    order: Integers
    """(N, 4) which jitter operation runs first, second, ...: 0 brightness, 1 contrast, 2 saturation, 3 hue."""
    brightness: Floats
    """(N,) factor."""
    contrast: Floats
    """(N,) factor."""
    saturation: Floats
    """(N,) factor."""
    hue: Floats
    """(N,) shift in turns of the colour circle, within [-0.5, 0.5]."""
    grayscale: Flags
    """(N,) whether the view turns grey."""
    solarize: Flags
    """(N,) whether values at or above the threshold are inverted."""
    solarize_threshold: Floats
    """(N,) in [0, 256)."""
    equalize: Flags
    """(N,) whether histograms are equalised."""
    blur: Flags
    """(N,) whether the view is blurred."""
    blur_radius: Floats
    """(N,) PIL's radius, pixels of the view."""

    def __len__(self) -> int:
        return len(self.top)

    def __getitem__(self, rows: int | slice | npt.NDArray[np.generic]) -> ViewParameters:
        """Choose rows by number, slice, mask or index array; a number gives arrays of one row."""
        chosen = np.atleast_1d(rows) if isinstance(rows, int) else rows
        return ViewParameters(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    @staticmethod
    def concatenate(parts: Sequence[ViewParameters]) -> ViewParameters:
        """Join the rows of all parts, in order."""
        names = [f.name for f in fields(ViewParameters)]
        return ViewParameters(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def draw(config: ViewConfig, keys: Keys, heights: npt.ArrayLike, widths: npt.ArrayLike) -> ViewParameters:
    """Draw one view per key: a pure function of each row's key and image size.

    Args:
        config: the kind of view.
        keys: (N,) uint64, hashed from (seed, purpose, epoch, image, view).
        heights: (N,) height of each image, or one number for all, in pixels.
        widths: (N,) width of each image, or one number for all, in pixels.

    Returns:
        N rows of parameters.

    Example:
        >>> from tapetum.ops.randomness import make_keys
        >>> config = ViewConfig(size=18, scale=(0.3, 0.75), brightness=0.4)
        >>> together = draw(config, make_keys(7, "views", 0, [5, 6]), 32, 32)
        >>> alone = draw(config, make_keys(7, "views", 0, [6]), 32, 32)
        >>> bool(together[1].top == alone.top)
        True
    """
    numbers = uniform(keys, 2 * _ATTEMPTS + 18).T  # one row per number, so that every row is contiguous
    areas, ratios, rest = numbers[:_ATTEMPTS], numbers[_ATTEMPTS : 2 * _ATTEMPTS], numbers[2 * _ATTEMPTS :]
    shape = (len(keys),)
    rows = np.broadcast_to(np.asarray(heights, dtype=np.int64), shape)
    columns = np.broadcast_to(np.asarray(widths, dtype=np.int64), shape)
    top, left, height, width = _draw_boxes(config, areas, ratios, rest[0:2], rows, columns)
    return ViewParameters(
        top=top,
        left=left,
        height=height,
        width=width,
        flip=rest[2] < config.flip,
        jitter=rest[3] < config.jitter,
        order=np.argsort(rest[4:8].T, axis=1, kind="stable").astype(np.int64),
        brightness=_between(rest[8], max(0.0, 1 - config.brightness), 1 + config.brightness),
        contrast=_between(rest[9], max(0.0, 1 - config.contrast), 1 + config.contrast),
        saturation=_between(rest[10], max(0.0, 1 - config.saturation), 1 + config.saturation),
        hue=_between(rest[11], -config.hue, config.hue),
        grayscale=rest[12] < config.grayscale,
        solarize=rest[13] < config.solarize,
        solarize_threshold=rest[14] * 256,
        equalize=rest[15] < config.equalize,
        blur=rest[16] < config.blur,
        blur_radius=_between(rest[17], *config.blur_radius),
    )


def _between(numbers: Floats, low: float, high: float) -> Floats:
    return low + (high - low) * numbers


def _draw_boxes(
    config: ViewConfig, areas: Floats, ratios: Floats, corners: Floats, heights: Integers, widths: Integers
) -> tuple[Integers, Integers, Integers, Integers]:
    """Draw crops as torchvision's `RandomResizedCrop` does: the first try that fits the image, else a central crop.

    `areas` and `ratios` are (attempts, N), `corners` is (2, N); all are uniform in [0, 1).
    """
    area = heights * widths * _between(areas, *config.scale)
    aspect = np.exp(_between(np.ascontiguousarray(ratios), *(math.log(r) for r in config.ratio)))
    tried_width = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    tried_height = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (tried_width > 0) & (tried_width <= widths) & (tried_height > 0) & (tried_height <= heights)
    winner = (np.argmax(fits, axis=0), np.arange(len(heights)))
    found = fits.any(axis=0)

    # The fallback keeps as much of the image as the permitted aspect ratios allow.
    narrowest, widest = config.ratio
    shape = widths / heights
    central_height = np.where(shape < narrowest, np.rint(widths / narrowest).astype(np.int64), heights)
    central_width = np.where(shape > widest, np.rint(heights * widest).astype(np.int64), widths)
    central_height, central_width = np.clip(central_height, 1, heights), np.clip(central_width, 1, widths)

    height = np.where(found, tried_height[winner], central_height)
    width = np.where(found, tried_width[winner], central_width)
    top = np.where(found, (corners[0] * (heights - height + 1)).astype(np.int64), (heights - height) // 2)
    left = np.where(found, (corners[1] * (widths - width + 1)).astype(np.int64), (widths - width) // 2)
    return top, left, height, width
