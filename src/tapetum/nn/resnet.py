"""Residual networks (He et al., CVPR 2016, https://arxiv.org/abs/1512.03385).

Widening multiplies the channels of the stem and of
all stages, as in SimCLR, SwAV and PAWS (torchvision's "wide" networks widen only the inside of bottlenecks).
Module names match torchvision and the published PAWS and SwAV checkpoints. Torchvision has these blocks, too, but loads
only beside the one release of torch that it was built for; and an exported torch.hub folder holds a copy of this file.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (B, in_channels, H, W) to (B, channels, H / stride, W / stride).

    Args:
        in_channels: channels of its input.
        channels: channels of both convolutions, and of its output.
        stride: of the first convolution.
        downsample: the shortcut; None for the input itself, which then needs to have the output's shape.
    """

    expansion = 1
    """Channels of the output over `channels`."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return self.relu(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: (B, in_channels, H, W) to (B, 4 channels, H / stride, ...).

    The stride is the 3x3 convolution's ("v1.5"). Args as for `BasicBlock`; `channels` are the first two's.
    """

    expansion = 4
    """Channels of the output over `channels`."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _convolution(channels, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        return self.relu(x)


def _convolution(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)


_BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    20: (BasicBlock, (3, 3, 3)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
    200: (Bottleneck, (3, 24, 36, 3)),
}


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """A residual network; ResNet-50 for photographs by default."""

    kind: Literal["resnet"] = "resnet"
    """Selects this network."""
    depth: Literal[18, 20, 34, 50, 101, 152, 200] = 50
    """Number of layers. 20 is the network of He et al. for CIFAR-10 (stages of 16, 32, 64 channels) with 1x1
    convolutions as shortcuts; PAWS's file names call 152 "151"."""
    width: int = 1
    """Multiplies the channels of the stem and of every stage (1, 2 and 4 in PAWS)."""
    stem: Literal["imagenet", "small"] | None = None
    """"imagenet": 7x7 convolution of stride 2 and max-pooling, for photographs; "small": 3x3 of stride 1 without
    pooling, for images of about 32 pixels. None: small for depth 20, imagenet for the others."""

    def __post_init__(self) -> None:
        if self.depth not in _BLOCKS:
            raise ValueError(f"depth is {self.depth}, but a ResNet has one of these depths: {sorted(_BLOCKS)}.")
        if self.width < 1:
            raise ValueError(f"width is {self.width}, but it multiplies channels: use 1 or more.")
        if self.stem not in (None, "imagenet", "small"):
            raise ValueError(f"stem is {self.stem!r}: use 'imagenet' for photographs or 'small' for 32-pixel images.")


class ResNet(nn.Module):
    """Maps images (B, in_channels, H, W) of any size to embeddings (B, num_features).

    `num_features` is 2048 * width for depths 50 to 200, 512 * width for 18 and 34, 64 * width for 20. Convolutions
    start from He's normal initialisation (fan out), as in torchvision.

    Example:
        >>> import torch
        >>> network = ResNet(ResNetConfig(depth=18, stem="small"))
        >>> network(torch.zeros(2, 3, 32, 32)).shape, network.num_features
        (torch.Size([2, 512]), 512)
    """

    def __init__(self, config: ResNetConfig, in_channels: int = 3) -> None:
        super().__init__()
        block, lengths = _BLOCKS[config.depth]
        channels = config.width * (16 if config.depth == 20 else 64)
        small = config.stem == "small" or (config.stem is None and config.depth == 20)
        kernel, stride, padding = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.num_features = channels
        self.stages = [f"layer{i + 1}" for i in range(len(lengths))]
        for i, (name, length) in enumerate(zip(self.stages, lengths, strict=True)):
            self.add_module(name, self._stage(block, channels * 2**i, length, stride=1 if i == 0 else 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, block: type[BasicBlock | Bottleneck], planes: int, length: int, stride: int) -> nn.Sequential:
        out_channels = planes * block.expansion
        shortcut = None
        if stride != 1 or self.num_features != out_channels:
            shortcut = nn.Sequential(
                nn.Conv2d(self.num_features, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        blocks = [block(self.num_features, planes, stride, shortcut)]
        blocks += [block(out_channels, planes) for _ in range(length - 1)]
        self.num_features = out_channels
        return nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.avgpool(x).flatten(1)
