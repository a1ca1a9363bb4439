"""A folder that timm loads by itself: `timm.create_model("local-dir:FOLDER", pretrained=True)`.

timm's ResNets have torchvision's names, so timm itself is only needed for networks that come from it.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tapetum.interchange.exports.preprocessing import crop_share
from tapetum.interchange.exports.requirements import (
    backbone,
    check_written,
    linear_classifier,
    plain_resnet,
    required_resize,
)
from tapetum.interchange.exports.safetensors import write_tensors
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.nn.backbones import TimmConfig
from tapetum.system.files import whole_folder

_ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}  # options by which images may have other sizes


def export_timm(model: TrainedModel, output: Path) -> Path:
    """Write a folder with timm's `config.json` and `model.safetensors`.

    Without a linear classifier the network has `num_classes=0` and returns features.

    Raises:
        ValueError: timm has no such network, the classifier is more than a linear layer, images are not resized, or
            the folder cannot be written.
    """
    config, tensors = timm_content(model, "timm")
    with whole_folder(output) as folder:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_tensors(tensors, folder / "model.safetensors")
    return output


def timm_content(model: TrainedModel, format: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return timm's config and state dict of a model.

    Raises:
        ValueError: as `export_timm`.
    """
    name, arguments = _architecture(model, format)
    resize, classifier = required_resize(model, format), linear_classifier(model, format)
    if isinstance(model.backbone, TimmConfig):
        network = _timm_network(model, classifier, name, arguments)
        check_written(model, network, classifier is not None)
        own = network.pretrained_cfg
    else:
        network = copy.deepcopy(backbone(model))
        network.fc = nn.Identity() if classifier is None else classifier
        own = {"classifier": "fc", "first_conv": "conv1"}
    config = {
        "architecture": name,
        "num_classes": 0 if classifier is None else classifier.out_features,
        "num_features": model.num_features,
        "model_args": arguments,
        "pretrained_cfg": _pretrained_cfg(model, resize, own, arguments),
    }
    return config | ({} if classifier is None else {"label_names": model.classes}), network.state_dict()


def _architecture(model: TrainedModel, format: str) -> tuple[str, dict[str, Any]]:
    """timm's name of the network, and the arguments of its constructor."""
    if not isinstance(model.backbone, TimmConfig):
        return f"resnet{plain_resnet(model, format).depth}", {}
    grey = {} if model.channels == 3 else {"in_chans": model.channels}
    return model.backbone.name.partition(".")[0], {**model.backbone.options, **grey}


def _pretrained_cfg(
    model: TrainedModel, resize: int, own: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """What timm knows about weights: names of layers and preprocessing."""
    crop = model.views.evaluation.crop
    takes_any_size = any(arguments.get(option) == value for option, value in _ANY_SIZE.items())
    return {
        "input_size": [model.channels, crop, crop],
        "fixed_input_size": bool(own.get("fixed_input_size")) and not takes_any_size,
        "interpolation": "bilinear",
        "crop_pct": crop_share(crop, resize),
        "crop_mode": "center",
        "mean": model.views.mean,
        "std": model.views.std,
        "first_conv": own.get("first_conv"),
        "classifier": own.get("classifier"),
    }


def _timm_network(model: TrainedModel, classifier: nn.Linear | None, name: str, arguments: dict[str, Any]) -> Any:
    """Return timm's own network with the model's weights, and its classifier in the place that timm has for it."""
    import timm  # there is a timm backbone, so it is installed

    network: Any = timm.create_model(
        name, num_classes=0 if classifier is None else classifier.out_features, **arguments
    )
    tensors = dict(backbone(model).state_dict())
    if classifier is not None:
        place = network.pretrained_cfg.get("classifier")
        tensors |= {f"{place}.{part}": tensor for part, tensor in classifier.state_dict().items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"{model.name} has a linear classifier, for which timm's {name} has no place: choose --format onnx or "
            "safetensors."
        ) from error
    return network


def usage(model: TrainedModel, path: Path) -> str:
    """Lines that load the network and its preprocessing by timm."""
    lines = [
        "import timm",
        f"model = timm.create_model({f'local-dir:{path}'!r}, pretrained=True).eval()",
        "preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
    ]
    if model.channels == 1:
        lines.append('# open images as grey:  PIL.Image.open(FILE).convert("L")')
    return "\n".join(lines)
