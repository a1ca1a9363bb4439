"""transformers' DETR, built from a config, with Tapetum's weights in its ResNet.

The ResNet of transformers names its tensors otherwise; `their_name` translates. The weights of the finished detector
have the names of transformers' own `DetrForObjectDetection`.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_convert

from backbone import Three, freeze
from coco import Target
from recipe import BackboneConfig, DataConfig, DetrConfig
from tapetum.nn.resnet import ResNet

_NAMES = (
    (r"conv1\.(.*)", r"embedder.embedder.convolution.\1"),
    (r"bn1\.(.*)", r"embedder.embedder.normalization.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(.*)", r"encoder.stages.{0}.layers.\2.layer.{1}.convolution.\4"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(.*)", r"encoder.stages.{0}.layers.\2.layer.{1}.normalization.\4"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(.*)", r"encoder.stages.{0}.layers.\2.shortcut.convolution.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(.*)", r"encoder.stages.{0}.layers.\2.shortcut.normalization.\3"),
)


def their_name(name: str) -> str:
    """The name in transformers' ResNet of a tensor that torchvision calls `name`; stages and layers begin from 0.

    Example:
        >>> their_name("layer2.0.bn1.weight")
        'encoder.stages.1.layers.0.layer.0.normalization.weight'
    """
    for pattern, theirs in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            counts = [int(group) - 1 for group in match.groups() if group.isdigit()]
            return match.expand(theirs.format(counts[0], counts[-1]) if counts else theirs)
    raise ValueError(f"{name} is no tensor of a residual network: choose a backbone with torchvision's names.")


class DetrDetector(nn.Module):
    """Finds objects as a set, by a transformer on the last feature map; arguments as for Faster R-CNN.

    Raises:
        ValueError: the backbone's stem is not one that transformers' ResNet has.
    """

    def __init__(
        self,
        config: DetrConfig,
        backbone_config: BackboneConfig,
        data: DataConfig,
        network: ResNet,
        num_classes: int,
        normalisation: tuple[Three, Three],
    ) -> None:
        super().__init__()
        from transformers import DetrForObjectDetection, ResNetBackbone
        from transformers.models.detr.modeling_detr import DetrConvEncoder

        if isinstance(network.maxpool, nn.Identity):
            raise ValueError("backbone.stem is small, which transformers' ResNet lacks: use one with stem: imagenet.")
        settings: Any = _settings(config, network, num_classes)
        self.model: Any = DetrForObjectDetection(settings)
        _initialise(self.model)
        encoder: DetrConvEncoder = self.model.model.backbone
        # Built anew, because DETR has already replaced BatchNorm by a frozen one and frozen more than it says.
        encoder.model = ResNetBackbone(settings.backbone_config)
        self.backbone.load_state_dict({their_name(name): tensor for name, tensor in network.state_dict().items()})
        freeze(self.backbone, backbone_config, _stage_of)
        self.transform = GeneralizedRCNNTransform(data.short_edges, data.longest_edge, *normalisation, size_divisible=1)

    @property
    def backbone(self) -> nn.Module:
        """The network that Tapetum trained, with transformers' names of tensors."""
        network: nn.Module = self.model.model.backbone.model
        return network

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The parts of the loss of the decoder's last layer, and the whole loss as "loss"; as for Faster R-CNN."""
        padded, resized = self.transform([image / 255 for image in images], targets)
        labels = []
        for (height, width), target in zip(padded.image_sizes, resized, strict=True):
            size = target["boxes"].new_tensor([width, height, width, height])
            boxes = box_convert(target["boxes"], "xyxy", "cxcywh") / size
            labels.append({"class_labels": target["labels"], "boxes": boxes})
        out = self.model(padded.tensors, pixel_mask=_mask(padded.tensors, padded.image_sizes), labels=labels)
        names = {"classes": "loss_ce", "boxes": "loss_bbox", "overlap": "loss_giou"}
        return {"loss": out.loss, **{name: out.loss_dict[theirs] for name, theirs in names.items()}}

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[Target]:
        """Boxes, labels and scores in each image, one for each query; in evaluation mode."""
        padded, _ = self.transform([image / 255 for image in images])
        out = self.model(padded.tensors, pixel_mask=_mask(padded.tensors, padded.image_sizes))
        scores, labels = out.logits.softmax(dim=2)[:, :, :-1].max(dim=2)  # the last class: no object
        found = []
        for i, image in enumerate(images):
            height, width = image.shape[1:]
            boxes = box_convert(out.pred_boxes[i], "cxcywh", "xyxy")
            size = boxes.new_tensor([width, height, width, height])
            found.append({"boxes": boxes * size, "labels": labels[i], "scores": scores[i]})
        return found


def _settings(config: DetrConfig, network: ResNet, num_classes: int) -> Any:
    """transformers' config; nothing is looked up or downloaded."""
    import transformers

    theirs: Any = transformers  # configs take more than they declare
    stages = [network.get_submodule(name) for name in network.stages]
    backbone = theirs.ResNetConfig(
        embedding_size=network.conv1.out_channels,
        hidden_sizes=[network.num_features // 2**level for level in reversed(range(len(stages)))],
        depths=[len(list(stage.children())) for stage in stages],
        layer_type="bottleneck" if hasattr(next(stages[0].children()), "conv3") else "basic",
        out_features=[f"stage{len(stages)}"],
    )
    return theirs.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone_config=backbone,
        num_labels=num_classes,
        num_queries=config.num_queries,
        d_model=config.width,
        encoder_layers=config.layers,
        decoder_layers=config.layers,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        encoder_ffn_dim=config.feedforward,
        decoder_ffn_dim=config.feedforward,
        dropout=config.dropout,
        auxiliary_loss=config.auxiliary_loss,
    )


def _initialise(model: Any) -> None:
    """Draw new weights as published: transformers draws much smaller ones, which hardly learn in short runs."""
    for part in (model.model.encoder, model.model.decoder):
        for parameter in part.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
    nn.init.normal_(model.model.query_position_embeddings.weight)
    for layer in (model.model.input_projection, model.class_labels_classifier, *model.bbox_predictor.layers):
        layer.reset_parameters()


def _stage_of(name: str) -> int:
    match = re.match(r"encoder\.stages\.(\d)", name)
    return int(match.group(1)) + 1 if match else 0


def _mask(images: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """(B, H, W): 1 where there is an image, 0 where there is padding."""
    mask = torch.zeros((len(images), *images.shape[2:]), dtype=torch.int64, device=images.device)
    for i, (height, width) in enumerate(sizes):
        mask[i, :height, :width] = 1
    return mask
