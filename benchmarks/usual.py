"""The field's usual way to PAWS, written plainly: what `step.py` and `views.py` measure Tapetum against.

Every image becomes a PIL image and runs through torchvision's transforms, alone, in a worker process of a DataLoader;
the network computes in float32 on NCHW tensors; the optimiser walks over its parameters one by one. Sizes, views,
network, loss and update are those of the recipe `paws_cifar10_4000`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

Pixels = npt.NDArray[np.uint8]

CLASSES = 10
SMOOTHING, TEMPERATURE, SHARPEN = 0.1, 0.1, 0.25
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, TRUST = 0.8, 0.9, 1e-6, 0.001


class Solarize:
    """Inverts, with probability 0.2, the values above a random threshold."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image, random.uniform(0, 256)) if random.random() < 0.2 else image


class Equalize:
    """Equalises the histograms with probability 0.2."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.equalize(image) if random.random() < 0.2 else image


def view_transform(size: int, scale: tuple[float, float]) -> transforms.Compose:
    """One random view of a PIL image as a normalised float32 tensor."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=scale),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            Solarize(),
            Equalize(),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ]
    )


class UsualViews(Dataset[tuple[list[Tensor], int]]):
    """Views of image i, and its class, which is i modulo 10 here.

    Args:
        pixels: uint8 (N, H, W, 3).
        large, small: how many views of 32 and of 18 pixels.
    """

    def __init__(self, pixels: Pixels, large: int, small: int) -> None:
        self.pixels = pixels
        self.transforms = [view_transform(32, (0.75, 1.0))] * large + [view_transform(18, (0.3, 0.75))] * small

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        image = Image.fromarray(self.pixels[index])
        return [transform(image) for transform in self.transforms], index % CLASSES


def class_batches(num_images: int, per_class: int, count: int) -> Iterator[list[int]]:
    """Indices of `count` support sets: `per_class` images of every class each."""
    members = [range(c, num_images, CLASSES) for c in range(CLASSES)]
    for _ in range(count):
        yield [index for of_class in members for index in random.sample(of_class, per_class)]


def usual_loaders(
    pixels: Pixels, batch_size: int, per_class: int, steps: int, workers: int
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Loaders of unlabelled batches and of support sets, `workers` processes each."""
    order = [i % len(pixels) for i in range(batch_size * steps)]
    unlabelled = DataLoader(UsualViews(pixels, 2, 6), batch_size, sampler=order, num_workers=workers, drop_last=True)
    batches = list(class_batches(len(pixels), per_class, steps))
    supports = DataLoader(UsualViews(pixels, 2, 0), batch_sampler=batches, num_workers=workers)
    return unlabelled, supports


def soft_neighbours(queries: Tensor, supports: Tensor, labels: Tensor) -> Tensor:
    return torch.softmax(normalize(queries) @ normalize(supports).T / TEMPERATURE, dim=1) @ labels


def sharpen(probabilities: Tensor) -> Tensor:
    powers = probabilities ** (1 / SHARPEN)
    return powers / powers.sum(dim=1, keepdim=True)


def usual_loss(network: nn.Module, supports: list[Tensor], labels: Tensor, views: list[Tensor]) -> Tensor:
    """PAWS: two passes through the network, one for each resolution; views 0 and 1 are the large ones."""
    num_images, num_supports = len(views[0]), sum(len(view) for view in supports)
    z = network(torch.cat([*supports, *views[:2]]))
    anchors, others = z[:num_supports], z[num_supports:]
    predicted = torch.cat([others, network(torch.cat(views[2:]))])
    one_hot = nn.functional.one_hot(labels, CLASSES).float() * (1 - SMOOTHING) + SMOOTHING / CLASSES
    one_hot = one_hot.repeat(len(supports), 1)
    predictions = soft_neighbours(predicted, anchors, one_hot)
    with torch.no_grad():
        first, second = sharpen(soft_neighbours(others, anchors, one_hot)).split(num_images)
        targets = torch.cat([second, first, *[(first + second) / 2] * (len(views) - 2)])
        targets[targets < 1e-4] = 0
    match = torch.sum(torch.log(predictions ** (-targets)), dim=1).mean()
    mean = sharpen(predictions).mean(dim=0)
    return match + torch.sum(mean * torch.log(mean))


class UsualLARS:
    """Layer-wise adaptive rates with momentum, parameter by parameter."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters = list(network.named_parameters())
        self.buffers = {name: torch.zeros_like(p) for name, p in self.parameters}

    @torch.no_grad()
    def step(self) -> None:
        for name, p in self.parameters:
            gradient = p.grad
            assert gradient is not None
            if "bias" not in name and "bn" not in name:
                weight, slope = p.norm().item(), gradient.norm().item()
                if weight and slope:
                    rate = TRUST * weight / (slope + WEIGHT_DECAY * weight + 1e-8)
                    gradient = rate * (gradient + WEIGHT_DECAY * p)
            self.buffers[name].mul_(MOMENTUM).sub_(gradient, alpha=LEARNING_RATE)
            p.add_(self.buffers[name])


def usual_steps(network: nn.Module, unlabelled: DataLoader[Any], supports: DataLoader[Any]) -> Iterator[float]:
    """Train; yields the loss of every finished step."""
    network.train()
    optimizer = UsualLARS(network)
    for (views, _), (support_views, labels) in zip(unlabelled, supports):
        network.zero_grad()
        loss = usual_loss(network, support_views, labels, views)
        loss.backward()
        optimizer.step()
        yield loss.item()
