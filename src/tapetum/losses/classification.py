"""Cross-entropy with given labels."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from tapetum.ops.precision import full_precision


@full_precision
def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy, 0-d, of (B, C) logits and (B,) labels; smoothing spreads a share of each over all classes."""
    return cross_entropy(logits, labels, label_smoothing=label_smoothing)
