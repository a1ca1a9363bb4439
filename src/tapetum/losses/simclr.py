"""NT-Xent, the loss of SimCLR (Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709).

Symbols: B images, V views of each, tau the temperature, s the cosine of two projections.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.ops.collectives import gather_rows, rank, world_size
from tapetum.ops.precision import full_precision


@full_precision
def nt_xent_loss(projections: Tensor, num_views: int, temperature: float, key_gradient: bool = True) -> Tensor:
    """Contrast each view's other views with the views of all other images, over all processes.

        mean over views a and other views b of the image:  -log( e(a, b) / (e(a, b) + sum_c e(a, c)) )

    with e(a, b) = exp(s(a, b) / tau) and c running over all views of all other images. With more than two views, an
    image's other views are not each other's negatives (multi-crop as in SwAV's appendix).

    Args:
        projections: (V*B, D) of this process, view-major, any scale.
        num_views: V, 2 or more.
        temperature: tau.
        key_gradient: whether the gradient also flows through b and c, as in the paper; in the published SuNCEt code
            it flows only through a.

    Returns:
        0-d.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.2], [0.2, 1.0]])
        >>> round(float(nt_xent_loss(z, num_views=2, temperature=0.1)), 6)
        0.001708
    """
    queries = normalize(projections, dim=1)
    keys = gather_rows(queries if key_gradient else queries.detach())
    num_rows, num_images = len(queries), len(queries) // num_views
    scores = queries @ keys.T / temperature  # (V*B, W*V*B)

    images = torch.arange(num_images, device=scores.device).repeat(num_views)
    offsets = torch.arange(world_size(), device=scores.device)[:, None] * num_images
    is_same = (images + rank() * num_images)[:, None] == (images + offsets).flatten()
    negatives = scores.masked_fill(is_same, -torch.inf).logsumexp(dim=1)

    own = scores[:, rank() * num_rows : (rank() + 1) * num_rows]
    own = own.unflatten(1, (num_views, num_images)).unflatten(0, (num_views, num_images))
    positives = own.diagonal(dim1=1, dim2=3)  # (V, V, B): scores of views a and b of each image
    losses = torch.logaddexp(negatives.view(num_views, 1, num_images), positives) - positives
    is_other = 1 - torch.eye(num_views, dtype=losses.dtype, device=scores.device)
    return (losses.mean(dim=2) * is_other).sum() / is_other.sum()
