"""A folder for Hugging Face transformers: `transformers.pipeline("image-classification", model=FOLDER)`.

A ResNet becomes a `ResNetForImageClassification`, a timm network a `TimmWrapperForImageClassification`. Both are part
of transformers, so the folder holds no code.
"""

import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor, nn

from tapetum.interchange.exports.preprocessing import preprocessing
from tapetum.interchange.exports.requirements import backbone, plain_resnet, required_classifier
from tapetum.interchange.exports.safetensors import write_tensors
from tapetum.interchange.exports.timm import timm_content
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.nn.backbones import TimmConfig
from tapetum.system.files import whole_folder

_LAYERS = {"conv": "convolution", "bn": "normalization"}
_SHORTCUT = {"0": "convolution", "1": "normalization"}
_IN_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)")
_BILINEAR = 2  # PIL's number of this filter


def export_huggingface(model: TrainedModel, output: Path) -> Path:
    """Write `config.json`, `preprocessor_config.json` (of ResNets), `model.safetensors` and the model card `README.md`.

    Raises:
        ValueError: the model has no linear classifier on its features, transformers has no such network, the images are
            grey, or the folder cannot be written.
    """
    _check_network(model)
    classifier = required_classifier(model, "huggingface")
    files: dict[str, dict[str, Any]] = {}
    if isinstance(model.backbone, TimmConfig):
        config, tensors = timm_content(model, "huggingface")
        files["config.json"] = _timm_config(config)
    else:
        files["config.json"] = _resnet_config(model)
        files["preprocessor_config.json"] = _preprocessor_config(model)
        tensors = _resnet_tensors(backbone(model), classifier)
    with whole_folder(output) as folder:
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        write_tensors(tensors, folder / "model.safetensors")
        (folder / "README.md").write_text(_model_card(model, output.name), encoding="utf-8")
    return output


def _check_network(model: TrainedModel) -> None:
    if not isinstance(model.backbone, TimmConfig):
        plain_resnet(model, "huggingface")
    elif model.channels != 3:
        raise ValueError(
            f"{model.name} takes images of {model.channels} channel, but pipelines of transformers open images in "
            "colour: choose --format timm."
        )


def _timm_config(config: dict[str, Any]) -> dict[str, Any]:
    """timm's own config, in which transformers also finds the preprocessing and the names of the classes."""
    return {"architectures": ["TimmWrapperForImageClassification"], "model_type": "timm_wrapper", **config}


def _resnet_config(model: TrainedModel) -> dict[str, Any]:
    network: Any = backbone(model)
    stages = [network.get_submodule(name) for name in network.stages]
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": model.channels,
        "embedding_size": network.bn1.num_features,
        "hidden_sizes": [model.num_features // 2 ** (len(stages) - 1 - i) for i in range(len(stages))],
        "depths": [len(stage) for stage in stages],
        "layer_type": "bottleneck" if hasattr(stages[0][0], "conv3") else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "problem_type": "single_label_classification",
        "id2label": {str(i): name for i, name in enumerate(model.classes)},
        "label2id": {name: i for i, name in enumerate(model.classes)},
    }


def _resnet_tensors(network: nn.Module, classifier: nn.Linear) -> dict[str, Tensor]:
    tensors = {transformers_name(name): tensor for name, tensor in network.state_dict().items()}
    return tensors | {f"classifier.1.{name}": tensor for name, tensor in classifier.state_dict().items()}


def transformers_name(name: str) -> str:
    """Return what transformers calls a tensor of a ResNet.

    Example:
        >>> transformers_name("layer1.0.conv2.weight")
        'resnet.encoder.stages.0.layers.0.layer.1.convolution.weight'
    """
    found = _IN_BLOCK.fullmatch(name)
    if found is None:  # conv1 or bn1 of the stem
        layer, _, tensor = name.partition("1.")
        return f"resnet.embedder.embedder.{_LAYERS[layer]}.{tensor}"
    stage, block, layer, number, tensor = found.groups()
    place = f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}"
    if layer not in _LAYERS:
        return f"{place}.shortcut.{_SHORTCUT[number]}.{tensor}"
    return f"{place}.layer.{int(number) - 1}.{_LAYERS[layer]}.{tensor}"


def _preprocessor_config(model: TrainedModel) -> dict[str, Any]:
    about = preprocessing(model)
    return {
        "image_processor_type": "BitImageProcessor",  # resizes the shorter side, then keeps the centre
        "do_convert_rgb": True,
        "do_resize": about["resize"] is not None,
        "size": {"shortest_edge": about["resize"] or about["crop"]},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": about["crop"], "width": about["crop"]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": about["mean"],
        "image_std": about["std"],
    }


def _model_card(model: TrainedModel, folder: str) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    network = model.backbone.name if isinstance(model.backbone, TimmConfig) else f"ResNet-{model.backbone.depth}"  # type: ignore[union-attr]
    card = environment.get_template("model_card.md")
    about = preprocessing(model)
    averaged_over = ["the mirror image"] if about["mirrored"] else []
    averaged_over += [f"{len(about['scales'])} sizes"] if len(about["scales"]) > 1 else []
    return card.render(
        model=model,
        folder=folder,
        network=network,
        is_timm=isinstance(model.backbone, TimmConfig),
        preprocessing=about,
        averaged_over=averaged_over,
    )


def usage(model: TrainedModel, path: Path) -> str:
    """Lines that load the folder by transformers."""
    return (
        "from transformers import pipeline\n"
        f'classify = pipeline("image-classification", model={str(path)!r})\n'
        'classify("photo.jpg")'
    )
