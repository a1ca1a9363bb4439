"""Running a method over images for evaluation and prediction: fixed views, no gradient, evaluation mode."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.augment import evaluation_view, normalise
from tapetum.data.stores import Store
from tapetum.data.views import ViewsConfig
from tapetum.methods.base import Method


class Compute(Protocol):
    """Where and in which precision to run; the engine's runtime is one."""

    device: torch.device

    def place_images(self, images: Tensor) -> Tensor: ...
    def autocast(self) -> AbstractContextManager[Any]: ...


class Outputs(NamedTuple):
    """What a method says of N images, float32 on the CPU."""

    embeddings: Tensor
    """(N, D)."""
    logits: Tensor | None
    """(N, C) of the method's own classifier; None if it has none."""


@torch.no_grad()
def run_method(
    method: Method,
    store: Store,
    indices: npt.NDArray[np.int64],
    views: ViewsConfig,
    compute: Compute,
    batch_size: int = 500,
) -> Outputs:
    """Embed (and classify) images, in the order of `indices`.

    The method runs in evaluation mode; each of its modules is left in the mode it was in.
    """
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    embeddings, logits = [], []
    try:
        for start in range(0, len(indices), batch_size):
            pixels = evaluation_view(store.read(indices[start : start + batch_size]), views.evaluation)
            images = compute.place_images(normalise(pixels.to(compute.device), views.mean, views.std))
            with compute.autocast():
                embeddings.append(method.embed(images).float().cpu())
                scores = method.classify(images)
            if scores is not None:
                logits.append(scores.float().cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    return Outputs(torch.cat(embeddings), torch.cat(logits) if logits else None)
