"""Networks for `torch.hub.load(FOLDER, NAME, source="local")`; needs torch and torchvision alone.

`model` is the network that this folder holds, with its weights. `resnet50`, `resnet50w2`, `resnet50w4` and `resnet50w5`
are widened ResNet-50s, as SwAV publishes them; they have weights only where this folder's network is the one asked for.

Every network maps normalised images (B, C, H, W) to logits, or to features if it has no classifier. The attribute
`classes` names the logits, and `preprocess` turns a PIL image into what the network takes.
"""

import functools
import importlib.util
import json
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torchvision import transforms

dependencies = ["torch", "torchvision"]
_FOLDER = Path(__file__).resolve().parent


def model(pretrained: bool = True) -> nn.Module:
    """The network of this folder; with `pretrained=False` its weights are random."""
    about = _about()
    backbone = _network(about["source"], about["class"], about["backbone"], about["preprocessing"]["channels"])
    parts = OrderedDict(backbone=backbone)
    if about["classes"]:
        parts["classifier"] = nn.Linear(about["num_features"], len(about["classes"]))
    network = nn.Sequential(parts)
    if pretrained:
        network.load_state_dict(torch.load(_FOLDER / "weights.pth", map_location="cpu", weights_only=True))
    return _described(network, tuple(about["classes"])).eval()


def resnet50(pretrained: bool = True) -> nn.Module:
    """ResNet-50; returns 2,048 features unless this folder's network has a classifier."""
    return _resnet50(1, pretrained)


def resnet50w2(pretrained: bool = True) -> nn.Module:
    """ResNet-50 with twice the channels; 4,096 features."""
    return _resnet50(2, pretrained)


def resnet50w4(pretrained: bool = True) -> nn.Module:
    """ResNet-50 with four times the channels; 8,192 features."""
    return _resnet50(4, pretrained)


def resnet50w5(pretrained: bool = True) -> nn.Module:
    """ResNet-50 with five times the channels; 10,240 features."""
    return _resnet50(5, pretrained)


def _resnet50(width: int, pretrained: bool) -> nn.Module:
    about = _about()
    wanted = {"kind": "resnet", "depth": 50, "width": width}
    is_this = about["backbone"] | wanted == about["backbone"] and about["backbone"]["stem"] != "small"
    if pretrained and is_this:
        return model()
    if pretrained:
        raise ValueError(
            f"{_FOLDER} holds weights of {about['title']}, not of a ResNet-50 of width {width}: load 'model', or give "
            "pretrained=False for random weights."
        )
    backbone = _network("resnet.py", "ResNet", wanted | {"stem": "imagenet"}, 3)
    return _described(nn.Sequential(OrderedDict(backbone=backbone)), ())


def _described(network: nn.Sequential, classes: tuple[str, ...]) -> nn.Module:
    described: Any = network
    described.classes, described.preprocess = classes, _preprocess(_about()["preprocessing"])
    return network


def _preprocess(about: dict[str, Any]) -> transforms.Compose:
    """PIL image -> (C, S, S): what the network saw in evaluation."""
    is_grey = about["channels"] == 1
    steps: list[Any] = [functools.partial(_converted, mode="L" if is_grey else "RGB")]
    if about["resize"] is not None:
        steps.append(transforms.Resize(about["resize"], transforms.InterpolationMode.BILINEAR))
    steps += [transforms.CenterCrop(about["crop"]), transforms.ToTensor()]
    return transforms.Compose([*steps, transforms.Normalize(about["mean"], about["std"])])


def _converted(image: Any, mode: str) -> Any:
    return image.convert(mode)


def _about() -> dict[str, Any]:
    about: dict[str, Any] = json.loads((_FOLDER / "model.json").read_text(encoding="utf-8"))
    return about


def _network(source: str, name: str, config: dict[str, Any], channels: int) -> nn.Module:
    """Build a network from a file in this folder; tuples in its config have become lists in JSON."""
    code = _source(source)
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    network: nn.Module = getattr(code, name)(getattr(code, f"{name}Config")(**fields), channels)
    return network


def _source(name: str) -> ModuleType:
    """Import a file by its path, so that no other module of its name can take its place."""
    path = _FOLDER / "networks" / name
    title = f"{__name__}:{path}"
    if title not in sys.modules:
        spec = importlib.util.spec_from_file_location(title, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[title] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[title])
    return sys.modules[title]
