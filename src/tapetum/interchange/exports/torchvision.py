"""A state dict for torchvision's ResNets, with the preprocessing beside it."""

import json
from pathlib import Path

import torch
from torch import nn

from tapetum.interchange.exports.preprocessing import preprocessing
from tapetum.interchange.exports.requirements import (
    backbone,
    check_written,
    linear_classifier,
    plain_resnet,
    require_suffix,
    require_torchvision,
)
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.system.files import refuse_taken, whole_file, write_text

_CLASSIFIER = "fc"


def export_torchvision(model: TrainedModel, output: Path) -> Path:
    """Write a .pth file for `torchvision.models.resnet*`, and NAME.preprocessing.json.

    With a linear classifier the state dict is complete (`strict=True`); otherwise it is the backbone's, for a network
    whose `fc` is `torch.nn.Identity()`.

    Raises:
        ValueError: torchvision is not installed, the network is not one of its, the classifier is more than a linear
            layer, or the files cannot be written.
    """
    require_suffix(output, ".pth", ".pt")
    models = require_torchvision("torchvision").models
    config = plain_resnet(model, "torchvision")
    classifier = linear_classifier(model, "torchvision")
    description = preprocessing_file(output)
    refuse_taken(description)
    state = dict(backbone(model).state_dict())
    if classifier is not None:
        state |= {f"{_CLASSIFIER}.{name}": tensor for name, tensor in classifier.state_dict().items()}
    with whole_file(output) as partial:
        torch.save(state, partial)
        network = getattr(models, f"resnet{config.depth}")(num_classes=max(1, len(model.classes)))
        if classifier is None:
            network.fc = nn.Identity()
        network.load_state_dict(torch.load(partial, weights_only=True), strict=True)
        check_written(model, network, classifier is not None)
        about = {**preprocessing(model), "classes": model.classes}
        write_text(description, json.dumps(about, indent=2) + "\n")
    return output


def preprocessing_file(output: Path) -> Path:
    """The path of the preprocessing that belongs to a file of weights."""
    return output.with_name(f"{output.stem}.preprocessing.json")


def usage(model: TrainedModel, path: Path) -> str:
    """Lines that load the network and its preprocessing with torch and torchvision alone."""
    config = plain_resnet(model, "torchvision")
    has_classifier = linear_classifier(model, "torchvision") is not None
    resize = "" if model.views.evaluation.resize is None else 'transforms.Resize(about["resize"]), '
    network = f"torchvision.models.resnet{config.depth}"
    return "\n".join(
        [
            "import json, torch, torchvision",
            "from torchvision import transforms",
            f"about = json.load(open({str(preprocessing_file(path))!r}))",
            f'model = {network}(num_classes=len(about["classes"]))' if has_classifier else f"model = {network}()",
            *([] if has_classifier else ["model.fc = torch.nn.Identity()  # the file has no classifier"]),
            f"model.load_state_dict(torch.load({str(path)!r}, weights_only=True))",
            "model.eval()",
            "preprocess = transforms.Compose([",
            f'    {resize}transforms.CenterCrop(about["crop"]),',
            '    transforms.ToTensor(), transforms.Normalize(about["mean"], about["std"]),',
            "])",
        ]
    )
