"""The loss of DeepCluster-v2 and SeLa-v2 (Caron et al., NeurIPS 2020, https://arxiv.org/abs/2006.09882, appendix D)."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from tapetum.ops.precision import full_precision


@full_precision
def cluster_loss(scores: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between every view's prediction and the cluster of its image.

    Args:
        scores: (V, B, K) cosines of projections and prototypes.
        labels: (B,) int64 cluster of each image, the same for all its views.
        temperature: tau.

    Returns:
        0-d, the mean over views and images.
    """
    return cross_entropy((scores / temperature).flatten(0, 1), labels.repeat(len(scores)))
