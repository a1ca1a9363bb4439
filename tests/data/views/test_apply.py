"""Whole views: replayed with PIL and torchvision from the same parameters, and independent of their company."""

from __future__ import annotations

import dataclasses

import numpy as np
import PIL
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter
from torch import Tensor

from tapetum.data.views.apply import crop_resize_flip, distort_colour, normalise
from tapetum.data.views.draw import ViewConfig, ViewParameters, draw
from tapetum.ops.randomness import make_keys, uniform

# PAWS for CIFAR-10: colour distortion of strength 0.5, then solarize and equalize.
CIFAR = {
    "jitter": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "solarize": 0.2,
    "equalize": 0.2,
}
# PAWS for ImageNet: strength 1, then grayscale and blur.
IMAGENET = {
    "jitter": 0.8,
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "grayscale": 0.2,
    "blur": 0.5,
    "blur_radius": (0.1, 2.0),
}
needs_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 always resizes the width first"
)
VIEWS = {
    "cifar large": ViewConfig(size=32, scale=(0.75, 1.0), **CIFAR),
    "cifar small": ViewConfig(size=18, scale=(0.3, 0.75), **CIFAR),
    "imagenet large": ViewConfig(size=224, scale=(0.14, 1.0), **IMAGENET),
    "imagenet small": ViewConfig(size=96, scale=(0.05, 0.14), **IMAGENET),
}
EVERYTHING = ViewConfig(size=32, scale=(0.3, 1.0), **{**IMAGENET, **CIFAR, "grayscale": 0.3})


def smooth_images(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    """uint8 images with the statistics of photographs more than of noise: blobs, shading and a little grain."""
    keys = make_keys("smooth", height, np.arange(count))
    coarse = (uniform(keys, 5 * 5 * 3).reshape(count, 5, 5, 3) * 256).astype(np.uint8)
    grain = uniform(make_keys("grain", keys), height * width * 3).reshape(count, height, width, 3) * 24 - 12
    blobs = [np.array(Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC)) for c in coarse]
    images = (np.stack(blobs) + grain).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(images).permute(0, 3, 1, 2)[:, :channels].contiguous()


def drawn(config: ViewConfig, images: Tensor) -> ViewParameters:
    return draw(config, make_keys("views", config.size, np.arange(len(images))), *images.shape[2:])


def view(images: Tensor, parameters: ViewParameters, config: ViewConfig) -> Tensor:
    return distort_colour(crop_resize_flip(images, parameters, config.size), parameters, config)


def replay(image: Tensor, row: ViewParameters, config: ViewConfig) -> Tensor:
    """The view of one image as a chain of PIL and torchvision calls."""
    array = image.permute(1, 2, 0).numpy()
    pil = Image.fromarray(array if array.shape[2] == 3 else array[..., 0])
    top, left, height, width = (int(c[0]) for c in (row.top, row.left, row.height, row.width))
    pil = TF.resized_crop(pil, top, left, height, width, [config.size, config.size])
    if row.flip[0]:
        pil = TF.hflip(pil)
    adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    factors = [float(c[0]) for c in (row.brightness, row.contrast, row.saturation, row.hue)]
    for number in row.order[0] if row.jitter[0] else ():
        if pil.mode == "RGB" or number < 2:
            pil = adjust[number](pil, factors[number])
    if row.grayscale[0] and pil.mode == "RGB":
        pil = TF.to_grayscale(pil, 3)
    if row.solarize[0]:
        pil = TF.solarize(pil, float(row.solarize_threshold[0]))
    if row.equalize[0]:
        pil = TF.equalize(pil)
    if row.blur[0]:
        pil = pil.filter(ImageFilter.GaussianBlur(float(row.blur_radius[0])))
    return torch.from_numpy(np.array(pil).reshape(config.size, config.size, -1)).permute(2, 0, 1)


@needs_pillow_13
@pytest.mark.parametrize(
    ("name", "count", "height", "width"),
    [
        ("cifar large", 400, 32, 32),
        ("cifar small", 400, 32, 32),
        ("imagenet large", 50, 250, 330),
        ("imagenet small", 150, 220, 200),
    ],
)
def test_published_views_equal_pil(name: str, count: int, height: int, width: int) -> None:
    """1,000 parameter sets in all, and every pixel the same."""
    config, images = VIEWS[name], smooth_images(count, height, width)
    parameters = drawn(config, images)
    ours = view(images, parameters, config)
    for i in range(count):
        assert torch.equal(ours[i], replay(images[i], parameters[i], config)), f"row {i}"


@needs_pillow_13
def test_grey_views_equal_pil() -> None:
    images = smooth_images(150, 40, 36, channels=1)
    parameters = drawn(EVERYTHING, images)
    ours = view(images, parameters, EVERYTHING)
    assert ours.shape == (150, 1, 32, 32)
    for i in range(150):
        assert torch.equal(ours[i], replay(images[i], parameters[i], EVERYTHING)), f"row {i}"


def test_an_operation_of_strength_zero_does_not_run() -> None:
    """Above all hue, which would round every colour even at shift 0."""
    crops = smooth_images(40, 32, 32)
    config = ViewConfig(size=32, scale=(1, 1), jitter=1.0)
    assert torch.equal(distort_colour(crops, drawn(config, crops), config), crops)


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("colour", ["exact", "matrix", "fast"])
def test_bits_do_not_depend_on_batch_or_threads(colour: str) -> None:
    config = dataclasses.replace(EVERYTHING, colour=colour)
    crops = smooth_images(500, 32, 32)  # more than one chunk
    parameters = drawn(config, crops)
    together = distort_colour(crops, parameters, config)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(distort_colour(crops, parameters, config), together)
    for rows in (slice(7, 8), slice(10, 33), slice(480, 500)):
        assert torch.equal(distort_colour(crops[rows], parameters[rows], config), together[rows])
    for i in range(40):
        assert torch.equal(distort_colour(crops[i : i + 1], parameters[i], config), together[i : i + 1])
    order = np.argsort(uniform(make_keys("shuffle"), 500))
    shuffled = distort_colour(crops[torch.from_numpy(order)], parameters[order], config)
    assert torch.equal(shuffled, together[torch.from_numpy(order)])


def test_one_view_may_be_larger_than_what_is_distorted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = smooth_images(3, 20, 20)
    parameters = drawn(EVERYTHING, crops)
    together = distort_colour(crops, parameters, EVERYTHING)
    monkeypatch.setattr("tapetum.data.views.apply._CHUNK_VALUES", 100)
    assert torch.equal(distort_colour(crops, parameters, EVERYTHING), together)


@pytest.mark.parametrize(
    "operations", [("brightness",), ("contrast",), ("saturation",), ("brightness", "contrast", "saturation")]
)
def test_matrix_jitter_is_the_exact_one_where_nothing_is_clipped(operations: tuple[str, ...]) -> None:
    crops = smooth_images(150, 32, 32) // 4 + 90
    exact = ViewConfig(size=32, scale=(1, 1), **dict.fromkeys(operations, 0.3))
    parameters = drawn(exact, crops)
    matrix = distort_colour(crops, parameters, dataclasses.replace(exact, colour="matrix"))
    difference = matrix.int() - distort_colour(crops, parameters, exact).int()
    assert difference.abs().max() <= 1 + len(operations)  # what cutting to whole numbers in between can do
    assert torch.equal(matrix[~parameters.jitter], crops[~parameters.jitter])


@pytest.mark.parametrize(("turn", "channel"), [(0.0, 0), (1 / 3, 1), (-1 / 3, 2)])
def test_matrix_jitter_turns_hue_the_same_way(turn: float, channel: int) -> None:
    reddish = torch.tensor([150, 110, 110], dtype=torch.uint8).view(1, 3, 1, 1).repeat(4, 1, 8, 8)
    config = ViewConfig(size=8, scale=(1, 1), jitter=1.0, hue=0.5, colour="matrix")
    parameters = dataclasses.replace(drawn(config, reddish), hue=np.full(4, turn))
    matrix = distort_colour(reddish, parameters, config)
    exact = distort_colour(reddish, parameters, dataclasses.replace(config, colour="exact"))
    assert (matrix.int().argmax(dim=1) == channel).all()
    assert (exact.int().argmax(dim=1) == channel).all()
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert ((matrix * luma).sum(dim=1) - (reddish * luma).sum(dim=1)).abs().max() < 1.5


def test_normalise_equals_torchvision() -> None:
    crops, mean, std = smooth_images(5, 32, 32), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    theirs = torch.stack(
        [TF.normalize(TF.to_tensor(crop.permute(1, 2, 0).numpy()), list(mean), list(std)) for crop in crops]
    )
    ours = normalise(crops, mean, std)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="std has 1 numbers for 3 channels"):
        normalise(crops, mean, std[:1])


def test_crops_are_left_alone_and_may_be_none() -> None:
    crops = smooth_images(8, 32, 32)
    before, parameters = crops.clone(), drawn(EVERYTHING, crops)
    distorted = distort_colour(crops, parameters, EVERYTHING)
    assert torch.equal(crops, before)
    last = crops.contiguous(memory_format=torch.channels_last)
    assert torch.equal(distort_colour(last, parameters, EVERYTHING), distorted)
    assert distort_colour(crops[:0], parameters[:0], EVERYTHING).shape == (0, 3, 32, 32)


def test_wrong_crops_are_refused() -> None:
    crops = smooth_images(4, 32, 32)
    parameters = drawn(EVERYTHING, crops)
    with pytest.raises(ValueError, match="uint8"):
        distort_colour(crops.float(), parameters, EVERYTHING)
    with pytest.raises(ValueError, match="uint8"):
        distort_colour(crops[:, :2], parameters, EVERYTHING)
    with pytest.raises(ValueError, match="one for each crop"):
        distort_colour(crops, parameters[:3], EVERYTHING)
