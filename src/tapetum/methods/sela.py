"""SeLa-v2: predicting balanced assignments of the last epoch's features (Caron et al., NeurIPS 2020, appendix D).

https://arxiv.org/abs/2006.09882, after Asano et al., ICLR 2020, https://arxiv.org/abs/1911.05371

Like DeepCluster-v2 (`methods/deepcluster.py`), with two changes: images are assigned by Sinkhorn over the features of
the whole data set, so that every prototype has an equal share of the images, and the prototypes C are learned:

    Q = Sinkhorn(Z . C^T, epsilon) over all images, once an epoch;    label of i = argmax_k q_ik
    loss = mean over sets of prototypes, views v and images i of  H(label of i, softmax(z_iv . C^T / tau))

No training code was ever published. The paper and its authors' answers specify: views, batch, projector, optimizer and
tau = 0.1 as in SwAV; three sets of 3,000 prototypes; features computed in the previous epoch; labels renewed once per
epoch by Sinkhorn-Knopp over the whole data set; one hard label per image; prototypes learned by the same loss.

We chose, because no source specifies them:
- an epsilon of 0.05, as in SwAV, and 10 rounds of Sinkhorn-Knopp, as many as k-means has in DeepCluster-v2 (the first
  SeLa's lambda of 25 would be an epsilon of 0.004; results here are finite for any epsilon);
- prototypes that are scaled to unit length after each step, as in SwAV, and never frozen;
- a bank for each of the two large views, which the sets cycle through, and how it is filled before the first epoch:
  both as in DeepCluster-v2.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.methods.base import StepOutput, check_above_zero
from tapetum.methods.deepcluster import DeepCluster, DeepClusterConfig
from tapetum.nn.heads import HeadConfig
from tapetum.nn.memory_bank import MemoryBank
from tapetum.ops.sinkhorn import sinkhorn_labels


@dataclass(frozen=True, kw_only=True)
class SeLaConfig:
    """SeLa-v2; the paper does not give `epsilon` or `iterations`."""

    kind: Literal["sela"] = "sela"
    """Selects this method."""
    num_prototypes: tuple[int, ...] = (3000, 3000, 3000)
    """K of each set of prototypes; three of 3,000 in the paper."""
    temperature: float = 0.1
    """tau of the predictions; 0.1 in the paper."""
    epsilon: float = 0.05
    """Smoothness of the codes whose largest entries are the labels; not published, so SwAV's value."""
    iterations: int = 10
    """Rounds of Sinkhorn-Knopp over the data set; not published. More rounds make the shares more equal."""
    assigning_views: tuple[int, ...] = (0, 1)
    """The views that have a bank, numbered from 0, large ones first. The sets of prototypes cycle through the banks."""
    head: HeadConfig = field(default_factory=lambda: HeadConfig(hidden=2048, output=128, layers=2))
    """Projector."""

    def __post_init__(self) -> None:
        check_above_zero(self, "epsilon")
        self.shared()

    def shared(self) -> DeepClusterConfig:
        """Return the settings that SeLa-v2 shares with DeepCluster-v2."""
        return DeepClusterConfig(
            num_prototypes=self.num_prototypes,
            temperature=self.temperature,
            iterations=self.iterations,
            assigning_views=self.assigning_views,
            head=self.head,
        )


class SeLa(DeepCluster):
    """Trains backbone, projector and prototypes to predict balanced labels of their own making."""

    Config = SeLaConfig

    def __init__(self, config: SeLaConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__(config.shared(), backbone, num_classes=num_classes, num_images=num_images)
        self.epsilon = config.epsilon
        self.prototypes.requires_grad_(True)

    @torch.no_grad()
    def assign(self, bank: MemoryBank, head: int, seed: int) -> Tensor:
        """(P_own,) labels of this process's images from one set of prototypes, balanced over all images."""
        prototypes = list(self.prototypes.parameters())[head]
        return sinkhorn_labels(bank.rows(head), prototypes, self.epsilon, self.config.iterations)

    def after_step(self, output: StepOutput, batch: Batch) -> None:
        """Scale the prototypes to unit length and store this step's projections in the bank."""
        self.prototypes.normalise()
        super().after_step(output, batch)
