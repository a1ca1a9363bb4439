"""Models to export that nobody has to train, and images with what Tapetum makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.data.views.apply import evaluation_view, normalise
from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, ViewsConfig
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.methods.registry import method_class
from tapetum.methods.supervised import Supervised
from tapetum.nn.backbones import BackboneConfig, ResNetConfig, SmallNetConfig, build_backbone

CLASSES = ("ash", "birch", "a name: with 'signs' | and ✓")
SMALL = SmallNetConfig(stem=8, widths=(8, 16))
_networks: dict[str, torch.nn.Module] = {}
"""Random weights of large networks take long to draw."""


class Doubled(Supervised):
    """Its classifier sees more than the backbone's features, which only its logits tell."""

    def classify(self, images):
        return self.classifier(2 * self.backbone(images))


def build(
    backbone: BackboneConfig = SMALL,
    method: str = "supervised",
    *,
    channels: int = 3,
    classes: tuple[str, ...] = CLASSES,
    resize: int | None = 40,
) -> TrainedModel:
    torch.manual_seed(0)
    key = f"{backbone} {channels} {torch.get_default_device()}"  # a config with options has no hash
    if key not in _networks:
        _networks[key] = build_backbone(backbone, channels, published=False)
    network = copy.deepcopy(_networks[key])
    kind = Doubled if method == "doubled" else method_class(method)
    made = kind(kind.Config(), network, num_classes=len(classes), num_images=9).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
    views = ViewsConfig(
        large=ViewConfig(size=32, scale=(0.5, 1.0)),
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.25, 0.3)[:channels],
        evaluation=EvaluationViewConfig(crop=32, resize=resize),
    )
    about = {"description": "Trained for a test.", "accuracies": {"30 test images": 81.25}}
    return TrainedModel("trees", method=made, backbone=backbone, views=views, classes=classes, supports=None, **about)


@pytest.fixture
def make_model(one_thread: None) -> Callable[..., TrainedModel]:
    """Builds a model with random weights and statistics, of any network and method."""
    return build


@pytest.fixture(scope="module")
def resnet() -> TrainedModel:
    """A ResNet-18 with a linear classifier."""
    torch.set_num_threads(1)
    return build(ResNetConfig(depth=18))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Colour images of several sizes; their longer sides do not all leave an even number of pixels to cut."""
    generator = np.random.default_rng(0)
    sizes = [(40, 40), (50, 70), (90, 41), (33, 48), (20, 30)]
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture(scope="session")
def as_seen() -> Callable[[TrainedModel, list[Image.Image]], torch.Tensor]:
    """Makes of images what a model sees in Tapetum."""

    def see(model: TrainedModel, images: list[Image.Image]) -> torch.Tensor:
        mode = "RGB" if model.channels == 3 else "L"
        arrays = [np.asarray(image.convert(mode)).reshape(*image.size[::-1], model.channels) for image in images]
        pixels = [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays]
        return normalise(evaluation_view(pixels, model.views.evaluation), model.views.mean, model.views.std)

    return see
