"""Chooses a recipe for images of which nothing is labelled: SimCLR, or given weights as they are."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.data.sources.open_source import NO_LABELS
from tapetum.recipe.from_data import choose
from tapetum.recipe.from_weights import Network, start_from
from tapetum.recipe.glance import glance
from tapetum.recipe.recipe import Recipe, load_recipe, parse_recipe
from tapetum.recipe.yaml_with_lines import write_yaml

WITHOUT_LABELS = "simclr_cifar10_cpu"
"""Recipe to start from: of the methods without labels, the one that learned most in ten minutes (docs/results.md)."""
_MANY = 10**9  # labels, as many as choose mild views: those of the recipe are meant, not those for few labels


def recipe_without_labels(
    images: str, store: Store, minutes: float | None = None, weights: str | None = None, network: Network | None = None
) -> Recipe:
    """Choose a recipe that needs no label; network, views and colours suit the images as in `fit`.

    Args:
        images: the source of the images, for the recipe's `data.images`.
        store: the images.
        minutes: how long to train; None trains nothing.
        weights: `timm:NAME` or a file of tensors to start from; the embedding is the backbone's output.
        network: that of a file of tensors, and its images' channels.

    Raises:
        ValueError: an image cannot be read, or the weights do not fit the images.
    """
    # Two classes stand for those that nobody knows; no setting that depends on them stays.
    unknown = Labels(("0", "1"), store.names, np.zeros(len(store), dtype=np.int64))
    seen = replace(glance(store, unknown), num_classes=1, num_labels=_MANY)
    sections: dict[str, Any]
    sections, _ = choose(seen, shrink=weights is None and not torch.cuda.is_available(), method="simclr")
    if weights is not None:
        sections, _ = start_from(weights, sections, frozen=True, network=network)
    base = load_recipe(WITHOUT_LABELS)
    batch_size = max(2, min(base.data.batch_size, len(store) // 4))
    lr = sections["optimizer"]["lr"]
    lr["peak"] = round(base.optimizer.lr.peak * math.sqrt(batch_size / base.data.batch_size), 4)
    sections["extends"], sections["support"] = WITHOUT_LABELS, None
    sections["views"]["support"] = None
    sections["method"] = {"kind": base.method.kind}
    sections["data"] |= {"images": images, "labels": NO_LABELS, "batch_size": batch_size}
    sections["trainer"] = {**sections.get("trainer", {}), "minutes": None}
    sections["trainer"] |= {"steps": 0} if minutes is None else {"minutes": minutes}
    sections["description"] = "Chosen by tapetum suggest for images without labels"
    return parse_recipe(write_yaml(sections), "the settings for images without labels")
