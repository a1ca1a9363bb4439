"""Crop, resize and flip against PIL, and independent of the company an image keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import PIL
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor

from tapetum.data.views.crop import crop_resize_flip, evaluation_view
from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, ViewParameters, draw
from tapetum.ops.randomness import make_keys, uniform

needs_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 always resizes the width first"
)


def noise(count: int, channels: int, height: int, width: int, purpose: str = "noise") -> Tensor:
    values = uniform(make_keys(purpose, np.arange(count)), channels * height * width)
    return torch.from_numpy((values * 256).astype(np.uint8)).view(count, channels, height, width)


def views_of(config: ViewConfig, images: Tensor | list[Tensor], purpose: str = "v") -> ViewParameters:
    shapes = np.array([image.shape for image in images])
    return draw(config, make_keys(purpose, np.arange(len(images))), shapes[:, 1], shapes[:, 2])


def to_pil(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def from_pil(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def by_pil(image: Tensor, view: ViewParameters, size: int) -> Tensor:
    """One row's crop, resize and flip by PIL."""
    top, left, height, width = (int(c[0]) for c in (view.top, view.left, view.height, view.width))
    cut = to_pil(image).crop((left, top, left + width, top + height))
    resized = from_pil(cut.resize((size, size), Image.Resampling.BILINEAR))
    return resized.flip(2) if view.flip[0] else resized


@needs_pillow_13
@pytest.mark.parametrize(
    ("count", "height", "width", "size", "scale"),
    [
        (200, 32, 32, 32, (0.75, 1.0)),
        (200, 32, 32, 18, (0.3, 0.75)),
        (500, 40, 56, 24, (0.05, 1.0)),
        (60, 300, 200, 96, (0.05, 0.14)),
        (40, 200, 300, 224, (0.14, 1.0)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_pil(count: int, height: int, width: int, size: int, scale: tuple[float, float], channels: int) -> None:
    images = noise(count, channels, height, width)
    boxes = views_of(ViewConfig(size=size, scale=scale), images)
    views = crop_resize_flip(images, boxes, size)
    for i in range(count):
        assert torch.equal(views[i], by_pil(images[i], boxes[i], size))


@needs_pillow_13
@pytest.mark.parametrize(("height", "width"), [(18, 40), (19, 18), (25, 21), (26, 22), (28, 23), (60, 39), (61, 39)])
def test_passes_run_in_the_order_of_pillow(height: int, width: int) -> None:
    """Sizes on both sides of the rule by which Pillow begins with the height."""
    images = noise(3, 3, height, width, f"{height} {width}")
    boxes = views_of(ViewConfig(size=18, scale=(1, 1), ratio=(0.1, 10)), images)
    whole = dataclasses.replace(
        boxes, top=0 * boxes.top, left=0 * boxes.left, height=0 * boxes.top + height, width=0 * boxes.top + width
    )
    views = crop_resize_flip(images, whole, 18)
    for i in range(3):
        assert torch.equal(views[i], by_pil(images[i], whole[i], 18))


@needs_pillow_13
def test_equals_pil_when_shrinking_a_lot() -> None:
    images = noise(2, 3, 700, 900)
    boxes = views_of(ViewConfig(size=7, scale=(0.9, 1.0)), images)
    views = crop_resize_flip(images, boxes, 7)
    for i in range(2):
        assert torch.equal(views[i], by_pil(images[i], boxes[i], 7))


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_bits_do_not_depend_on_batch_or_threads_or_container() -> None:
    images, size = noise(150, 3, 48, 40), 32
    boxes = views_of(ViewConfig(size=size, scale=(0.1, 1.0)), images)
    together = crop_resize_flip(images, boxes, size)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(crop_resize_flip(images, boxes, size), together)
        assert torch.equal(crop_resize_flip(list(images), boxes, size), together)
        for rows in (slice(3, 4), slice(0, 7), slice(149, None, -1)):
            chosen = np.arange(150)[rows]
            alone = crop_resize_flip(images[torch.from_numpy(chosen.copy())], boxes[chosen], size)
            assert torch.equal(alone, together[torch.from_numpy(chosen.copy())])


@needs_pillow_13
def test_images_of_different_sizes_and_several_views_each() -> None:
    images = [noise(1, 3, 20 + 7 * i, 70 - 5 * i, f"image {i}")[0] for i in range(9)]
    config = ViewConfig(size=24, scale=(0.2, 1.0))
    first, second = views_of(config, images, "first"), views_of(config, images, "second")
    both = crop_resize_flip(images, ViewParameters.concatenate([first, second]), 24)
    for row, (image, box) in enumerate(
        [*zip(images, (first[i] for i in range(9))), *zip(images, (second[i] for i in range(9)))]
    ):
        assert torch.equal(both[row], by_pil(image, box, 24))
    stacked = noise(4, 3, 30, 30)
    boxes = ViewParameters.concatenate([views_of(config, stacked, "first"), views_of(config, stacked, "second")])
    assert torch.equal(crop_resize_flip(stacked, boxes, 24), crop_resize_flip(stacked.repeat(2, 1, 1, 1), boxes, 24))


def test_input_is_left_alone_in_any_memory_format() -> None:
    images = noise(5, 3, 32, 32)
    boxes = views_of(ViewConfig(size=18, scale=(0.3, 0.75)), images)
    before = images.clone()
    views = crop_resize_flip(images, boxes, 18)
    assert torch.equal(images, before)
    assert torch.equal(crop_resize_flip(images.contiguous(memory_format=torch.channels_last), boxes, 18), views)


def test_one_image_may_be_larger_than_what_is_processed_at_once() -> None:
    """In chunks of no row at all, nothing would be done."""
    images = noise(2, 3, 500, 400)
    parameters = views_of(ViewConfig(size=224, scale=(0.3, 1.0)), images)
    assert torch.equal(crop_resize_flip(images, parameters, 224), crop_resize_flip(list(images), parameters, 224))


@pytest.mark.parametrize("make", ["float", "rows", "outside", "shape", "empty"])
def test_wrong_inputs_are_refused(make: str) -> None:
    images = noise(4, 3, 32, 32)
    boxes = views_of(ViewConfig(size=18, scale=(0.9, 1.0)), images)
    wrong = {
        "float": (images.float(), boxes, "uint8"),
        "rows": (images, boxes[:3], "same number"),
        "outside": (images[:, :, :16], boxes, "leaves its image"),
        "shape": (images[0], boxes[:3], "N, C, H, W"),
        "empty": (images[:0], boxes[:0], "at least one"),
    }[make]
    with pytest.raises(ValueError, match=wrong[2]):
        crop_resize_flip(wrong[0], wrong[1], 18)


def torchvision_s_evaluation(image: Tensor, resize: int, crop: int) -> Tensor:
    return from_pil(TF.center_crop(TF.resize(to_pil(image), resize), crop))


@needs_pillow_13
@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 61), (50, 50), (33, 200)])
@pytest.mark.parametrize(("resize", "crop"), [(48, 40), (40, 40), (70, 33)])
def test_evaluation_view_equals_torchvision(height: int, width: int, resize: int, crop: int) -> None:
    images = noise(3, 3, height, width)
    config = EvaluationViewConfig(resize=resize, crop=crop)
    views = evaluation_view(images, config)
    expected = torch.stack([torchvision_s_evaluation(image, resize, crop) for image in images])
    assert torch.equal(views, expected)
    assert torch.equal(evaluation_view(list(images), config), expected)


def test_evaluation_view_without_resize_crops_or_does_nothing() -> None:
    images = noise(3, 1, 32, 36)
    cropped = evaluation_view(images, EvaluationViewConfig(crop=28))
    assert torch.equal(cropped, images[:, :, 2:30, 4:32])
    square = noise(3, 1, 32, 32)
    assert evaluation_view(square, EvaluationViewConfig(crop=32)) is square
    with pytest.raises(ValueError, match=r"crop is 40 .* set resize to 40"):
        evaluation_view(images, EvaluationViewConfig(crop=40))
