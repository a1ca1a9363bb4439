"""A small recipe, and the coloured images that it trains on."""

from __future__ import annotations

import numpy as np

RECIPE = """
description: PAWS on three colours, for a second
method: {kind: paws, supervised_weight: 0.5, head: {hidden: 16, output: 8, layers: 2}}
backbone: {kind: small_net, stem: 8, widths: [8, 8]}
data: {images: colours.npz, test: colours.npz, labels_per_class: 3, held_out_per_class: 4, batch_size: 8}
views:
  large: {size: 8, count: 2, scale: [0.5, 1.0], brightness: 0.3}
  small: {size: 6, count: 1, scale: [0.2, 0.5]}
  mean: [0.4, 0.4, 0.4]
  std: [0.3, 0.3, 0.3]
  evaluation: {crop: 8}
support: {images_per_class: 2}
optimizer: {kind: sgd, weight_decay: 1e-4, lr: {start: 0.05, peak: 0.1, final: 0.0, warmup_epochs: 1}}
runtime: {accelerator: cpu, precision: float32, channels_last: false, threads: 1}
trainer: {steps: 6, log_every: 2, checkpoint_every: 3}
"""


def colours(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of 10x10 pixels; class 0 is red, 1 green, 2 blue."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = generator.integers(0, 120, (count, 3, 10, 10))
    images[np.arange(count), labels] += 130
    return images.astype(np.uint8), labels
