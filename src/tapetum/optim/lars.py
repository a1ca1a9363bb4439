"""LARS: layer-wise adaptive rate scaling (You, Gitman & Ginsburg, https://arxiv.org/abs/1708.03888).

Symbols: p a parameter, g its gradient, r its trust ratio, d the step, m the momentum buffer. As in the published PAWS,
the learning rate is multiplied into m, so changing the learning rate does not rescale steps already in m.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from tapetum.optim.momentum import MomentumOptimizer, check_arguments


def _norms(parameters: Sequence[Tensor], tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch._foreach_norm(list(tensors))


class LARS(MomentumOptimizer):
    """SGD with momentum that scales the gradient of each tensor to the norm of its weights.

    In a group with `adapt=True`, for each parameter with ||p|| > 0 and ||g|| > 0:
        r = trust_coefficient * ||p|| / (||g|| + weight_decay * ||p|| + eps)
        g <- r * (g + weight_decay * p)
    A parameter whose norm or gradient norm is zero keeps its plain gradient and is not decayed. With `adapt=False`
    (biases, normalisation): g <- g + weight_decay * p. Then, for all parameters:
        d = -lr * g;  m <- momentum * m + d;  p <- p + m   (Nesterov: p <- p + d + momentum * m)

    Norms stay on the device: a step never waits for it. The state of each parameter is its `momentum_buffer`.

    Args:
        params: parameters or groups of them; groups may override every argument below.
        lr: learning rate.
        momentum: decay of the buffer, 0 or more and below 1.
        weight_decay: L2 coefficient.
        nesterov: see above.
        trust_coefficient: ratio of step to weight norm at learning rate 1 (0.001 in PAWS and SwAV).
        eps: added to the denominator of r.
        adapt: whether trust ratios apply.
        lr_in_buffer: True: as above and in PAWS. False, as in SwAV's LARC: m <- momentum * m + g, then
            p <- p - lr * m (Nesterov: p <- p - lr * (g + momentum * m)).

    Raises:
        ValueError: an argument is negative, or momentum is 1 or more.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> groups = [{"params": [layer.weight]}, {"params": [layer.bias], "adapt": False, "weight_decay": 0.0}]
        >>> optimizer = LARS(groups, lr=0.3, weight_decay=1e-6)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        trust_coefficient: float = 0.001,
        eps: float = 1e-8,
        adapt: bool = True,
        lr_in_buffer: bool = True,
    ) -> None:
        positive = {"lr": lr, "weight_decay": weight_decay, "trust_coefficient": trust_coefficient, "eps": eps}
        check_arguments(momentum, **positive)
        switches = {"nesterov": nesterov, "adapt": adapt, "lr_in_buffer": lr_in_buffer}
        super().__init__(params, {**positive, "momentum": momentum, **switches})

    norms: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]] = staticmethod(_norms)
    """Given parameters and their tensors, the norm of each whole tensor; replaced where they are in parts."""

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        momentum, lr = group["momentum"], group["lr"]
        gradients = [cast(Tensor, p.grad) for p in parameters]
        adapt = self._adapted if group["adapt"] else _decayed
        steps = adapt(group, parameters, gradients)
        if group["lr_in_buffer"]:
            torch._foreach_mul_(steps, -lr)
        buffers = self._buffers(parameters)
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, steps)
        rate = 1.0 if group["lr_in_buffer"] else -lr
        if group["nesterov"]:
            torch._foreach_add_(parameters, steps, alpha=rate)
            torch._foreach_add_(parameters, buffers, alpha=rate * momentum)
        else:
            torch._foreach_add_(parameters, buffers, alpha=rate)

    def _adapted(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """r * (g + weight_decay * p), as new tensors; g if either norm is zero."""
        decay = group["weight_decay"]
        p_norms = torch.stack(list(self.norms(parameters, parameters)))  # (number of parameters,)
        g_norms = torch.stack(list(self.norms(parameters, gradients)))
        ratios = group["trust_coefficient"] * p_norms / (g_norms + decay * p_norms + group["eps"])
        adapts = (p_norms != 0) & (g_norms != 0)
        scales = torch.where(adapts, ratios, 1.0)
        decays = torch.where(adapts, decay, torch.zeros_like(ratios))
        steps = gradients
        if decay:
            steps = list(torch._foreach_mul(parameters, decays.unbind()))
            torch._foreach_add_(steps, gradients)
        return list(torch._foreach_mul(steps, scales.unbind()))


def _decayed(group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """g + weight_decay * p, as new tensors."""
    return list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
