"""torchvision's Faster R-CNN with a feature pyramid on Tapetum's ResNet, which has torchvision's names of tensors."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from backbone import Three, freeze, stage_of
from coco import Target
from recipe import BackboneConfig, DataConfig, FasterRCNNConfig
from tapetum.nn.resnet import ResNet

_POOLED = 7  # edge of a pooled region, as published
_RATIOS = (0.5, 1.0, 2.0)  # of the anchors, as published


class FasterRCNNDetector(nn.Module):
    """Finds objects by classifying regions that a first network proposes.

    Args:
        config: the detector's section of the recipe.
        backbone_config: what of the backbone is trained.
        data: sizes of images.
        network: the backbone, with its weights; becomes part of the detector.
        num_classes: without background.
        normalisation: mean and standard deviation of each channel.

    Raises:
        ValueError: the anchors do not fit the backbone's number of stages.
    """

    def __init__(
        self,
        config: FasterRCNNConfig,
        backbone_config: BackboneConfig,
        data: DataConfig,
        network: ResNet,
        num_classes: int,
        normalisation: tuple[Three, Three],
    ) -> None:
        super().__init__()
        stages, sizes = network.stages, config.anchor_sizes
        if len(sizes) != len(stages) + 1:
            raise ValueError(
                f"detector.anchor_sizes has {len(sizes)} sizes, but the backbone's pyramid has {len(stages) + 1} "
                f"levels: give one for each level."
            )
        freeze(network, backbone_config, stage_of)
        self.model = FasterRCNN(
            _pyramid(network, config.channels, backbone_config.batch_norm == "trained"),
            min_size=data.short_edges,
            max_size=data.longest_edge,
            image_mean=normalisation[0],
            image_std=normalisation[1],
            rpn_pre_nms_top_n_train=config.proposals,  # of each level
            rpn_post_nms_top_n_train=config.proposals,
            rpn_pre_nms_top_n_test=max(1, config.proposals // 2),
            rpn_post_nms_top_n_test=max(1, config.proposals // 2),
            box_batch_size_per_image=config.regions,
            rpn_anchor_generator=AnchorGenerator(tuple((size,) for size in sizes), (_RATIOS,) * len(sizes)),
            box_roi_pool=MultiScaleRoIAlign([str(level) for level in range(len(stages))], _POOLED, sampling_ratio=2),
            box_head=TwoMLPHead(config.channels * _POOLED**2, config.hidden),
            box_predictor=FastRCNNPredictor(config.hidden, num_classes + 1),
        )

    @property
    def backbone(self) -> nn.Module:
        """The network that Tapetum trained, with its names of tensors."""
        pyramid: Any = self.model.backbone
        body: nn.Module = pyramid.body
        return body

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The parts of the loss, and their sum as "loss".

        Args:
            images: (3, H, W) each, 8 bits.
            targets: boxes and labels of each.
        """
        shifted = [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets]  # 0: background
        parts: dict[str, Tensor] = self.model([image / 255 for image in images], shifted)
        parts = {name.removeprefix("loss_"): part for name, part in parts.items()}
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[Target]:
        """Boxes, labels and scores in each image, at most 100; in evaluation mode."""
        found: list[Target] = self.model([image / 255 for image in images])
        return [{**target, "labels": target["labels"] - 1} for target in found]


def _pyramid(network: ResNet, channels: int, has_batch_norm: bool) -> BackboneWithFPN:
    """Feature maps of all stages, each with `channels` channels, named "0", "1" and so on."""
    levels = range(len(network.stages))
    return BackboneWithFPN(
        network,
        {stage: str(level) for level, stage in enumerate(network.stages)},
        [network.num_features // 2**level for level in reversed(levels)],
        channels,
        norm_layer=nn.BatchNorm2d if has_batch_norm else None,
    )
