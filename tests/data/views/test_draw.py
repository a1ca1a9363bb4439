"""Drawing views: every number against its formula."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, ViewParameters, ViewsConfig, draw
from tapetum.ops.randomness import make_keys

COUNT = 20_000
UNLIKELY = 1e-4  # the draws are fixed by their keys: a test that passes once passes always
CONFIG = ViewConfig(
    size=32,
    scale=(0.3, 0.75),
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.3,
    saturation=1.5,
    hue=0.1,
    grayscale=0.2,
    solarize=0.15,
    equalize=0.25,
    blur=0.6,
    blur_radius=(0.1, 2.0),
)


def keys(count: int = COUNT, purpose: str = "views") -> np.ndarray:
    return make_keys(3, purpose, 0, np.arange(count))


@pytest.fixture(scope="module")
def drawn() -> ViewParameters:
    return draw(CONFIG, keys(), 500, 375)


@pytest.mark.parametrize("name", ["flip", "jitter", "grayscale", "solarize", "equalize", "blur"])
def test_probabilities(drawn: ViewParameters, name: str) -> None:
    successes = int(getattr(drawn, name).sum())
    assert stats.binomtest(successes, COUNT, getattr(CONFIG, name)).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brightness", 0.6, 1.4),
        ("contrast", 0.7, 1.3),
        ("saturation", 0.0, 2.5),  # 1 - strength is cut at 0
        ("hue", -0.1, 0.1),
        ("solarize_threshold", 0, 256),
        ("blur_radius", 0.1, 2.0),
    ],
)
def test_uniform_numbers(drawn: ViewParameters, name: str, low: float, high: float) -> None:
    values = getattr(drawn, name)
    assert low <= values.min()
    assert values.max() <= high
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > UNLIKELY


def test_every_order_of_the_jitter_is_as_likely(drawn: ViewParameters) -> None:
    assert (np.sort(drawn.order, axis=1) == np.arange(4)).all()
    _, counts = np.unique(drawn.order @ [64, 16, 4, 1], return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_numbers_do_not_follow_each_other(drawn: ViewParameters) -> None:
    columns = [getattr(drawn, f.name) for f in dataclasses.fields(drawn) if f.name != "order"]
    box = {"top", "left", "height", "width"}  # correlated by construction
    names = [f.name for f in dataclasses.fields(drawn) if f.name != "order"]
    correlations = np.corrcoef(np.array([c.astype(float) for c in columns]))
    others = np.array([n not in box for n in names])
    off_diagonal = correlations[others][:, others] - np.eye(others.sum())
    assert np.abs(off_diagonal).max() < 5 / math.sqrt(COUNT)


def test_crops_that_always_fit_have_uniform_area_and_log_uniform_ratio() -> None:
    config = ViewConfig(size=32, scale=(0.2, 0.5), ratio=(0.75, 4 / 3))
    boxes = draw(config, keys(), 6000, 6000)  # large, so that rounding to pixels does not show
    area = boxes.height * boxes.width / 6000**2
    log_ratio = np.log(boxes.width / boxes.height)
    assert stats.kstest(area, stats.uniform(0.2, 0.3).cdf).pvalue > UNLIKELY
    span = 2 * math.log(4 / 3)
    assert stats.kstest(log_ratio, stats.uniform(-span / 2, span).cdf).pvalue > UNLIKELY
    for corner, extent in ((boxes.top, boxes.height), (boxes.left, boxes.width)):
        assert stats.kstest((corner + 0.5) / (6000 - extent + 1), stats.uniform.cdf).pvalue > UNLIKELY


@pytest.mark.parametrize(("height", "width", "scale"), [(500, 375, (0.14, 1.0)), (200, 700, (0.3, 0.9))])
def test_crops_are_distributed_as_torchvision_s(height: int, width: int, scale: tuple[float, float]) -> None:
    """Where attempts are rejected and the fallback counts, both must agree on every number of the box."""
    image, rows = torch.empty(3, height, width), 4000
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(rows)])
    boxes = draw(ViewConfig(size=32, scale=scale), keys(rows), height, width)
    ours = np.stack([boxes.top, boxes.left, boxes.height, boxes.width], axis=1)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(1000, 10, (493, 0, 13, 10)), (10, 1000, (0, 493, 10, 13)), (1, 1, (0, 0, 1, 1))],
)
def test_fallback_is_the_central_crop(height: int, width: int, box: tuple[int, ...]) -> None:
    boxes = draw(ViewConfig(size=32, scale=(1, 1)), keys(20), height, width)
    for name, expected in zip(("top", "left", "height", "width"), box):
        assert (getattr(boxes, name) == expected).all()


def test_crops_stay_inside_images_of_any_size() -> None:
    heights, widths = 1 + (keys() % 40).astype(np.int64), 1 + (keys(purpose="w") % 50).astype(np.int64)
    boxes = draw(CONFIG, keys(), heights, widths)
    for corner, extent, size in ((boxes.top, boxes.height, heights), (boxes.left, boxes.width, widths)):
        assert corner.min() >= 0
        assert extent.min() >= 1
        assert (corner + extent <= size).all()


def test_a_row_depends_on_its_key_and_size_alone(drawn: ViewParameters) -> None:
    alone = ViewParameters.concatenate([draw(CONFIG, keys()[i : i + 1], 500, 375) for i in range(50)])
    for field in dataclasses.fields(alone):
        np.testing.assert_array_equal(getattr(alone, field.name), getattr(drawn[:50], field.name))


def test_rows_are_chosen_by_number_slice_mask_and_index(drawn: ViewParameters) -> None:
    some = drawn[np.array([4, 2])]
    assert len(some) == 2
    assert some.order.shape == (2, 4)
    assert len(drawn[2]) == 1
    assert some.hue[1] == drawn[2].hue[0]
    assert len(drawn[drawn.flip]) == drawn.flip.sum()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("count", 0),
        ("scale", (0.0, 1.0)),
        ("scale", (0.5, 0.4)),
        ("scale", (0.5, 1.1)),
        ("ratio", (0.0, 1.0)),
        ("ratio", (2.0, 1.0)),
        ("flip", 1.1),
        ("jitter", -0.1),
        ("grayscale", float("nan")),
        ("solarize", 2),
        ("equalize", -1),
        ("blur", 1.5),
        ("brightness", -0.1),
        ("contrast", float("inf")),
        ("saturation", -1),
        ("hue", 0.6),
        ("blur_radius", (2.0, 0.1)),
        ("colour", "quick"),
    ],
)
def test_impossible_view_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is .*: \w+"):
        dataclasses.replace(CONFIG, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("support_views", 0), ("mean", (1.5,)), ("std", (0.0,)), ("std", (0.2, 0.2)), ("std", ())],
)
def test_impossible_views_are_refused(field: str, value: object) -> None:
    views = ViewsConfig(large=CONFIG, mean=(0.5,), std=(0.2,), evaluation=EvaluationViewConfig(crop=32))
    with pytest.raises(ValueError, match=rf"^{field} is "):
        dataclasses.replace(views, **{field: value})


@pytest.mark.parametrize(("crop", "resize", "field"), [(0, None, "crop"), (32, 16, "resize")])
def test_impossible_evaluation_view_is_refused(crop: int, resize: int | None, field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is "):
        EvaluationViewConfig(crop=crop, resize=resize)
