"""Muon: momentum whose matrices are orthogonalised (K. Jordan, 2024, https://kellerjordan.github.io/posts/muon/).

Symbols: W a kernel as a matrix of n rows (output channels), g its gradient, m the momentum buffer.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from tapetum.optim.momentum import MomentumOptimizer, check_arguments

ITERATIONS = 3
"""As the CIFAR-10 speed runs with Muon have. With five, short trainings differ by less than chance may explain
(docs/speedrun.md, *three iterations*), and every step takes longer."""
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Muon's: singular values end near 1, those that begin small soonest


class Muon(MomentumOptimizer):
    """Muon for the kernels of convolutions, SGD with Nesterov's momentum for everything else.

    In a group with `orthogonal=True`:
        m <- momentum * m + g
        W <- sqrt(n) * W / ||W|| - lr * orthogonalised(g + momentum * m)
    so that each kernel keeps its length, as in the CIFAR-10 speed runs (https://arxiv.org/abs/2404.00498), and `lr` is
    relative to it. That suits kernels whose length changes nothing, because a normalisation follows them; weight decay
    does not apply to them. In other groups:
        g <- g + weight_decay * p;  m <- momentum * m + g;  p <- p - lr * (g + momentum * m)
    The state of each parameter is its `momentum_buffer`.

    `torch.optim.Muon` takes matrices alone, not kernels, and lets their length grow.

    Attributes:
        iterations, products: how kernels are orthogonalised, as in `orthogonalised`; at first `ITERATIONS` and
            `torch.float32`. `torch.bfloat16` is faster where there are units for it.

    Args:
        params: parameters or groups of them; groups may override every argument below.
        lr: learning rate.
        momentum: decay of the buffer, 0 or more and below 1.
        weight_decay: L2 coefficient.
        orthogonal: see above.

    Raises:
        ValueError: an argument is negative, or momentum is 1 or more.

    Example:
        >>> import torch
        >>> layer = torch.nn.Conv2d(8, 8, 3)
        >>> groups = [{"params": [layer.weight], "orthogonal": True, "momentum": 0.6}, {"params": [layer.bias]}]
        >>> optimizer = Muon(groups, lr=0.05)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        orthogonal: bool = False,
    ) -> None:
        check_arguments(momentum, lr=lr, weight_decay=weight_decay)
        rates = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**rates, "orthogonal": orthogonal})
        self.iterations, self.products = ITERATIONS, torch.float32

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over: a trial of the first steps, before a training with a time limit, steps a copy."""
        return {**super().__getstate__(), "iterations": self.iterations, "products": self.products}

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        momentum, decay = group["momentum"], 0.0 if group["orthogonal"] else group["weight_decay"]
        gradients = list(torch._foreach_add([cast(Tensor, p.grad) for p in parameters], parameters, alpha=decay))
        buffers = self._buffers(parameters)
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        torch._foreach_add_(gradients, buffers, alpha=momentum)
        if group["orthogonal"]:
            lengths = torch._foreach_norm(parameters)
            torch._foreach_mul_(parameters, [len(p) ** 0.5 / length for p, length in zip(parameters, lengths)])
            matrices = [orthogonalised(g.flatten(1), self.iterations, self.products) for g in gradients]
            gradients = [matrix.view_as(g) for matrix, g in zip(matrices, gradients)]
        torch._foreach_add_(parameters, gradients, alpha=-group["lr"])


def is_kernel(parameter: Tensor) -> bool:
    """Whether a parameter (n, c, h, w) is the kernel of a convolution over channels, not over an image's three.

    Example:
        >>> [is_kernel(layer.weight) for layer in (torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3))]
        [False, True]
    """
    return parameter.ndim == 4 and parameter.shape[1] > 4


def orthogonalised(matrix: Tensor, iterations: int = ITERATIONS, products: torch.dtype = torch.float32) -> Tensor:
    """Return nearly U V^T of a matrix U S V^T (n, m), by Newton-Schulz iterations.

    After three, singular values are between 0.7 and 1.2, unless they were below a fiftieth of the matrix's length:
    those have grown fortyfold. An iteration x <- q x, with q = a + b g + c g^2 and g = x x^T, changes g to q g q. So
    the iterations need only g, whose sides are the shorter one of x: for a kernel of 256 x 256 x 3 x 3, half of the
    operations.

    Args:
        matrix: of any floating-point type, which the result has, too.
        iterations: 1 or more.
        products: the type of all products, if it is finer than the matrix's, or bfloat16, in which the result is off by
            some hundredths. More than three iterations would diverge in it: where rounding leaves g a negative
            eigenvalue, each iteration makes that twelve times as large.
    """
    if products != torch.bfloat16:
        products = torch.promote_types(matrix.dtype, products)
    with torch.autocast(matrix.device.type, enabled=False):
        return _orthogonalised(matrix, iterations, products).to(matrix.dtype)


def _orthogonalised(matrix: Tensor, iterations: int, products: torch.dtype) -> Tensor:
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).to(torch.promote_types(matrix.dtype, torch.float32))
    x = (x / (x.norm() + 1e-7)).to(products)
    gram = x @ x.T
    product = q = _factor(gram, a, b, c)
    for _ in range(iterations - 1):
        gram = q @ gram @ q
        q = _factor(gram, a, b, c)
        product = q @ product
    x = product @ x
    return x.T if is_tall else x


def _factor(gram: Tensor, a: float, b: float, c: float) -> Tensor:
    q = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    q.diagonal().add_(a)
    return q
