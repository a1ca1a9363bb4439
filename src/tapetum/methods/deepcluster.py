"""DeepCluster-v2: predicting the clusters of the last epoch's features (Caron et al., NeurIPS 2020, appendix D).

https://arxiv.org/abs/2006.09882

It uses no labels. During an epoch, a *memory bank* stores the projection z (unit length) of every image, one row for
each assigning view. Before the next epoch, spherical k-means clusters a bank; its K centroids C become the prototypes
of that epoch, and every view of an image learns to predict the image's cluster:

    loss = mean over sets of prototypes, views v and images i of  H(cluster of i, softmax(z_iv . C^T / tau))

So a view predicts the assignment of another view, seen an epoch earlier. With several sets of prototypes, each set
takes the next bank and starts k-means from different images. Only the repeated clustering keeps the embedding from
collapsing: as soon as two images differ at all, k-means pulls them apart.

Where this differs from the published code, on purpose:
- k-means starts from images drawn from the whole pool, not from the first process's images;
- the bank is indexed by image: an image that an epoch skips (in the last, incomplete batch) keeps its row and label;
  the published code leaves it out of the loss of the whole next epoch;
- before the first epoch, the bank is filled from evaluation views, once for all assigning views, not from training
  views, and running statistics do not change;
- no optimiser step ever changes the centroids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tapetum.data.batch import Batch
from tapetum.losses.deepcluster import cluster_loss
from tapetum.methods.base import EmbedAll, Method, Progress, StepOutput, check_above_zero
from tapetum.nn.batch_norm import batch_statistics
from tapetum.nn.heads import HeadConfig, ProjectionHead, build_heads, check_no_predictor, unit_length
from tapetum.nn.memory_bank import MemoryBank
from tapetum.nn.multi_crop import check_assigning_views, embed_views
from tapetum.nn.prototypes import Prototypes, check_counts
from tapetum.ops.collectives import rank, sum_over_ranks
from tapetum.ops.kmeans import kmeans
from tapetum.ops.spread import spread


@dataclass(frozen=True, kw_only=True)
class DeepClusterConfig:
    """DeepCluster-v2; defaults are the published ones for ImageNet."""

    kind: Literal["deepcluster"] = "deepcluster"
    """Selects this method."""
    num_prototypes: tuple[int, ...] = (3000, 3000, 3000)
    """K of each set of prototypes; the sets are clustered independently."""
    temperature: float = 0.1
    """tau of the predictions; 0.1 in the paper."""
    iterations: int = 10
    """Rounds of k-means; 10 in the published code."""
    assigning_views: tuple[int, ...] = (0, 1)
    """The views that have a bank, numbered from 0, large ones first. The sets of prototypes cycle through the banks."""
    head: HeadConfig = field(default_factory=lambda: HeadConfig(hidden=2048, output=128, layers=2))
    """Projector."""

    def __post_init__(self) -> None:
        check_counts(self.num_prototypes)
        check_assigning_views(self.assigning_views)
        check_above_zero(self, "temperature")
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}: use 1 or more.")
        check_no_predictor(self.head, "this method")


class DeepCluster(Method):
    """Trains backbone and projector to predict clusters of their own features."""

    Config: ClassVar[type] = DeepClusterConfig

    def __init__(self, config: DeepClusterConfig, backbone: nn.Module, *, num_classes: int, num_images: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.num_images = num_images
        num_features: Any = backbone.num_features
        self.projector, _ = build_heads(config.head, num_features)
        self.prototypes = Prototypes(self.projector.out_features, config.num_prototypes)
        self.prototypes.requires_grad_(False)
        self.bank: MemoryBank | None = None
        self.labels: Tensor | None = None  # (sets, N) cluster of every image in this epoch

    def before_epoch(self, progress: Progress, embed_all: EmbedAll) -> None:
        """Cluster the bank: this gives new prototypes and a new label for every image."""
        seed = shared_seed(next(self.prototypes.parameters()).device)
        if self.bank is None:
            with batch_statistics(self):
                self.bank = first_bank(self.projector, embed_all, len(self.config.assigning_views), self.num_images)
        labels = [self.bank.everyones(self.assign(self.bank, head, seed)) for head in range(len(self.prototypes))]
        self.labels = torch.stack(labels)

    @torch.no_grad()
    def assign(self, bank: MemoryBank, head: int, seed: int) -> Tensor:
        """(P_own,) clusters of this process's images; their centroids become the prototypes of set `head`."""
        prototypes = list(self.prototypes.parameters())[head]
        start = bank.some_rows(head, len(prototypes), seed)
        centroids, clusters = kmeans(bank.rows(head), start, self.config.iterations)
        prototypes.copy_(centroids)
        return clusters

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the loss of one step."""
        assert batch.views is not None
        assert batch.index is not None
        assert self.labels is not None, "before_epoch comes before the first step"
        num_views = sum(batch.views.counts)
        check_assigning_views(self.config.assigning_views, num_views)
        embeddings = embed_views(self.backbone, batch.views.groups)
        projections = unit_length(self.projector(embeddings)).unflatten(0, (num_views, -1))  # (V, B, D)
        losses = [
            cluster_loss(scores, labels[batch.index], self.config.temperature)
            for scores, labels in zip(self.prototypes(projections), self.labels, strict=True)
        ]
        loss = torch.stack(losses).mean()
        newest = torch.stack([projections[view] for view in self.config.assigning_views]).detach()
        clusters = self.labels[-1][batch.index]
        used = loss.new_zeros(self.config.num_prototypes[-1]).index_fill_(0, clusters, 1.0).sum()
        metrics = {"loss": loss.detach(), "used_prototypes": used.detach(), **spread(projections[0])}
        metrics["prototype_norm"] = self.prototypes.mean_norm()
        return StepOutput(loss, metrics, carry=newest)

    def after_step(self, output: StepOutput, batch: Batch) -> None:
        """Store this step's projections in the bank, as they were before the optimiser step."""
        assert self.bank is not None
        assert batch.index is not None
        self.bank.update(batch.index, output.carry)

    def local_state(self) -> dict[str, Tensor]:
        """This process's share of the bank, and the labels of all images."""
        if self.bank is None or self.labels is None:
            return {}
        return {**self.bank.state(), "labels": self.labels}

    def load_local_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `local_state` returned.

        Raises:
            ValueError: the number of images or of processes has changed.
        """
        saved = state["labels"].shape[1] if "labels" in state else self.num_images
        if saved != self.num_images:
            raise ValueError(
                f"the memory bank holds {saved} images, but now there are {self.num_images}: start a new run."
            )
        self.bank, self.labels = MemoryBank.from_state(state, self.num_images), state.get("labels")

    def cluster(self, images: Tensor) -> Tensor:
        """(B, K) scores against the first set of prototypes, divided by tau."""
        projections = unit_length(self.projector(self.backbone(images)))
        return self.prototypes(projections)[0] / self.config.temperature

    def embed(self, images: Tensor) -> Tensor:
        """(B, F) backbone output, as in the published evaluations."""
        return self.backbone(images)


@torch.no_grad()
def first_bank(projector: ProjectionHead, embed_all: EmbedAll, num_views: int, num_images: int) -> MemoryBank:
    """Fill the bank before the first epoch: projections of the pool's evaluation views, repeated `num_views` times."""
    pool, rows = embed_all(lambda embeddings: unit_length(projector(embeddings)))
    return MemoryBank(pool.to(rows.device), rows.expand(num_views, -1, -1), num_images)


def shared_seed(device: torch.device) -> int:
    """Share a number drawn by the first process, whose generator the engine has seeded for this epoch."""
    drawn = torch.randint(2**31, ()) * (rank() == 0)
    return int(sum_over_ranks(drawn.to(device)))
