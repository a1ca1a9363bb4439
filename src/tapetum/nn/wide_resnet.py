"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016, https://arxiv.org/abs/1605.07146) in PAWS's variant.

It differs from the usual variant: every convolution has a bias, the stride sits on the second 3x3 convolution of a
block, and the 1x1 shortcut sees the raw input rather than the activated one. Module names match the published PAWS
checkpoints. The variant of PAWS-TF (Keras) is there as well.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

_VARIANTS = ("paws", "keras")


@dataclass(frozen=True, kw_only=True)
class WideResNetConfig:
    """A wide residual network for small images; WRN-28-2 by default."""

    kind: Literal["wide_resnet"] = "wide_resnet"
    """Selects this network."""
    depth: int = 28
    """Number of layers, 6 n + 4 with n blocks in each of the three stages (28 in PAWS on CIFAR-10)."""
    width: int = 2
    """Stages have 16, 32 and 64 channels times this (2 in PAWS on CIFAR-10)."""
    dropout: float = 0.0
    """Probability of zeroing an activation between the convolutions of a block (0 in PAWS)."""
    final_momentum: float = 0.1
    """Momentum of the last BatchNorm's running statistics: the weight of the newest batch. The published PAWS
    uses 0.99, so evaluation sees the statistics of almost only the last batch (18-pixel crops); the default fixes
    this. Set 0.99 to continue training a published checkpoint exactly."""
    variant: Literal["paws", "keras"] = "paws"
    """"paws": the network published with PAWS. "keras": that of PAWS-TF, without biases in convolutions, with the
    stride in the first convolution of a block, shortcuts from activated inputs, and TensorFlow's padding."""

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"depth is {self.depth}, but a wide ResNet has 6 n + 4 layers: use 10, 16, 22, 28 or 40.")
        if self.width < 1:
            raise ValueError(f"width is {self.width}, but it multiplies channels: use 1 or more.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}, but it is a probability: use 0 or more and less than 1.")
        if not 0.0 < self.final_momentum <= 1.0:
            raise ValueError(f"final_momentum is {self.final_momentum}: use more than 0 and at most 1.")
        if self.variant not in _VARIANTS:
            raise ValueError(f"variant is {self.variant!r}: use 'paws' or 'keras'.")


class _Block(nn.Module):
    """Two pre-activated 3x3 convolutions plus a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(nn.Conv2d(in_channels, channels, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(self.conv1(F.relu(self.bn1(x), inplace=True)))
        out = self.conv2(F.relu(self.bn2(out), inplace=True))
        return out + self.shortcut(x)


class _SameConv2d(nn.Conv2d):
    """Without bias, with TensorFlow's "same" padding: an odd pixel of padding goes to the right and to the bottom."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, channels, kernel, stride, bias=False)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride, padding = self.kernel_size[0], self.stride[0], []
        for size in (x.shape[-1], x.shape[-2]):
            missing = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, padding))


class _KerasBlock(nn.Module):
    """The block of PAWS-TF; the first of a stage has a convolution as its shortcut, which starts where `conv1` does."""

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float, is_first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _SameConv2d(in_channels, channels, 3, stride)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = _SameConv2d(channels, channels, 3)
        self.shortcut = _SameConv2d(in_channels, channels, 1, stride) if is_first else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        out = self.dropout(self.conv1(active))
        out = self.conv2(F.relu(self.bn2(out), inplace=True))
        return out + (x if self.shortcut is None else self.shortcut(active))


def _stage(in_channels: int, channels: int, blocks: int, stride: int, config: WideResNetConfig) -> nn.Sequential:
    stage = nn.Sequential()
    for i in range(blocks):
        shape = (in_channels, channels, stride) if i == 0 else (channels, channels, 1)
        is_keras = config.variant == "keras"
        stage.append(_KerasBlock(*shape, config.dropout, i == 0) if is_keras else _Block(*shape, config.dropout))
    return stage


class WideResNet(nn.Module):
    """Maps images (B, in_channels, H, W) of any size from 4 pixels to embeddings (B, 64 * width).

    Differs from the published network in one value: the momentum of the final BatchNorm is 0.1, not 0.99 (see
    `WideResNetConfig.final_momentum`). WRN-28-2 has 1,468,352 parameters.

    Example:
        >>> import torch
        >>> network = WideResNet(WideResNetConfig(depth=10, width=1))
        >>> network(torch.zeros(2, 3, 32, 32)).shape, network.num_features
        (torch.Size([2, 64]), 64)
    """

    def __init__(self, config: WideResNetConfig, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (config.depth - 4) // 6
        channels = [16, 16 * config.width, 32 * config.width, 64 * config.width]
        if config.variant == "keras":
            self.conv1: nn.Conv2d = _SameConv2d(in_channels, channels[0], 3)
        else:
            self.conv1 = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.layer1, self.layer2, self.layer3 = (
            _stage(channels[i], channels[i + 1], blocks, stride, config) for i, stride in enumerate((1, 2, 2))
        )
        self.bn1 = nn.BatchNorm2d(channels[3], momentum=config.final_momentum)
        self.num_features = channels[3]

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        x = F.relu(self.bn1(x), inplace=True)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
