"""A folder for torch.hub with the network's own code and weights, for which torch and torchvision are enough."""

import inspect
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from tapetum.interchange.exports.preprocessing import preprocessing
from tapetum.interchange.exports.requirements import backbone, check_written, linear_classifier, require_torchvision
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.nn import resnet
from tapetum.nn.backbones import TimmConfig
from tapetum.system.files import whole_folder


def export_torch_hub(model: TrainedModel, output: Path) -> Path:
    """Write `hubconf.py`, `networks/` with the source of the network, `weights.pth` and `model.json`.

    Raises:
        ValueError: torchvision is not installed, the network is timm's, its classifier is more than a linear layer, or
            the folder cannot be written.
    """
    require_torchvision("torch.hub")
    config = model.backbone
    if isinstance(config, TimmConfig):
        raise ValueError(
            f"{model.name} is timm's {config.name}, whose code is not in torch or torchvision: choose --format timm."
        )
    classifier = linear_classifier(model, "torch.hub")
    network = backbone(model)
    source = Path(inspect.getfile(type(network)))
    parts = nn.ModuleDict({"backbone": network, **({} if classifier is None else {"classifier": classifier})})
    about = {
        "title": f"{model.name} ({', '.join(f'{key} {value}' for key, value in asdict(config).items())})",
        "description": model.description,
        "source": source.name,
        "class": type(network).__name__,
        "backbone": asdict(config),
        "num_features": model.num_features,
        "classes": [] if classifier is None else model.classes,
        "preprocessing": preprocessing(model),
        "accuracies": dict(model.accuracies),
    }
    with whole_folder(output) as folder:
        (folder / "networks").mkdir()
        for path in {source, Path(resnet.__file__)}:
            shutil.copyfile(path, folder / "networks" / path.name)
        shutil.copyfile(Path(__file__).with_name("hubconf.py"), folder / "hubconf.py")
        (folder / "model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        torch.save(parts.state_dict(), folder / "weights.pth")
        written = torch.hub.load(str(folder), "model", source="local", trust_repo=True)
        check_written(model, written, classifier is not None)
    return output


def usage(model: TrainedModel, path: Path) -> str:
    """Lines that load the network and its preprocessing by torch.hub."""
    return (
        "import torch\n"
        f"model = torch.hub.load({str(path)!r}, 'model', source='local', trust_repo=True)\n"
        "preprocess = model.preprocess  # of a PIL image; model.classes names the outputs"
    )
