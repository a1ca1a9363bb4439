"""What formats need of a model; whatever one cannot hold is refused in a sentence that says what would be lost."""

import importlib
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.nn.backbones import ResNetConfig, TimmConfig

_DEPTHS = (18, 34, 50, 101, 152)  # of the ResNets that torchvision, timm and transformers name alike
_TOLERANCE = 1e-5


def require_suffix(path: Path, *suffixes: str) -> None:
    """Raise ValueError unless a file's name has one of the endings by which it is recognised."""
    if path.suffix not in suffixes:
        raise ValueError(f"{path} does not end in {' or '.join(suffixes)}: give a file name that does as --output.")


def require_torchvision(format: str) -> ModuleType:
    """Import torchvision, which only some formats need.

    Raises:
        ValueError: it is not installed, or was built for another torch.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise ValueError(f"--format {format} needs torchvision: pip install 'tapetum[torchvision]'.") from error
    except RuntimeError as error:  # its operators do not load
        raise ValueError(
            f"--format {format} needs torchvision, which does not load beside this torch ({error}): `tapetum doctor "
            "--install` says which two are a pair."
        ) from error


def plain_resnet(model: TrainedModel, format: str) -> ResNetConfig:
    """Return the config of a network that is one of torchvision's ResNets.

    Raises:
        ValueError: it is another network.
    """
    config = model.backbone
    if isinstance(config, TimmConfig):
        raise ValueError(
            f"{model.name} is timm's {config.name}, which --format {format} cannot hold: choose --format timm."
        )
    if isinstance(config, ResNetConfig) and config.depth in _DEPTHS:
        odd = {"width": config.width != 1, "stem": config.stem == "small"}
        found = ", ".join(f"{name} {getattr(config, name)}" for name, is_odd in odd.items() if is_odd)
        if model.channels != 3:
            found = ", ".join(filter(None, (found, f"{model.channels} channel")))
        if not found:
            return config
        found = f"a ResNet-{config.depth} with {found}"
    else:
        found = f"a {config.kind}"
    raise ValueError(
        f"{model.name} is {found}, but --format {format} holds ResNets of depth {', '.join(map(str, _DEPTHS))}, width "
        "1, stem imagenet and 3 channels: choose --format torch.hub, which brings the network's code along."
    )


def linear_classifier(model: TrainedModel, format: str) -> nn.Linear | None:
    """Return the linear layer that predicts from the backbone's features; None if the method trains no classifier.

    Raises:
        ValueError: the method predicts by a classifier that is more than this layer.
    """
    if model.method.predicts_by != "classifier":
        return None
    layer, images = model.classifier, random_images(model)
    if layer is not None and agree(classify(model, images), run(layer, run(backbone(model), images))):
        return layer
    raise ValueError(
        f"{model.name} predicts by more than a linear layer on its network's features, and --format {format} would "
        "lose the rest: choose --format onnx, which holds all of it."
    )


def required_classifier(model: TrainedModel, format: str) -> nn.Linear:
    """As `linear_classifier`, for formats that need one.

    Raises:
        ValueError: there is none, or it is more than a layer on the backbone's features.
    """
    layer = linear_classifier(model, format)
    if layer is not None:
        return layer
    if not model.classes:
        raise ValueError(
            f"{model.name} was trained without labels and has no linear classifier, which --format {format} needs: "
            "train one with `tapetum finetune RUN` and export that, or choose --format safetensors."
        )
    raise ValueError(
        f"{model.name} has no linear classifier, which --format {format} needs, because it predicts by its labelled "
        "images: train one with `tapetum finetune RUN` and export that, or choose --format onnx, which holds them."
    )


def required_resize(model: TrainedModel, format: str) -> int:
    """Return the length in pixels to which images' shorter sides are resized, for formats that always resize.

    Raises:
        ValueError: images keep their own size.
    """
    resize = model.views.evaluation.resize
    if resize is None:
        raise ValueError(
            f"{model.name} does not resize images before it crops them (views.evaluation.resize is null), but --format "
            f"{format} always does: choose --format torch.hub or torchvision."
        )
    return resize


def backbone(model: TrainedModel) -> nn.Module:
    """The network that computes the features."""
    network = model.method.backbone
    assert isinstance(network, nn.Module)
    return network


def random_images(model: TrainedModel, count: int = 4) -> Tensor:
    """(count, C, S, S) normalised noise of the size of the evaluation view, always the same."""
    generator = torch.Generator().manual_seed(0)
    size = model.views.evaluation.crop
    return torch.randn(count, model.channels, size, size, generator=generator)


@torch.no_grad()
def run(network: nn.Module, inputs: Tensor) -> Tensor:
    """The outputs of a network in evaluation mode, without gradients."""
    outputs: Tensor = network.eval()(inputs)
    return outputs


@torch.no_grad()
def classify(model: TrainedModel, images: Tensor) -> Tensor:
    """(B, C) logits of the method's own classifier."""
    logits = model.method.classify(images)
    assert logits is not None, "a method that predicts by its classifier has one"
    return logits


def agree(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=_TOLERANCE, atol=_TOLERANCE)


def check_written(model: TrainedModel, network: nn.Module, has_classifier: bool) -> None:
    """Compare a network that was read back from what was written with the model, on a random batch.

    Raises:
        RuntimeError: their outputs differ, which is an error in the exporter.
    """
    images = random_images(model)
    expected = classify(model, images) if has_classifier else run(backbone(model), images)
    if not agree(run(network, images), expected):
        raise RuntimeError("what was written computes something else than the model")
