"""What optimizers with momentum share: checks of their arguments, the walk over the groups, and the buffers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def check_arguments(momentum: float, **positive: float) -> None:
    """Raise ValueError if momentum is not in [0, 1), or another argument is negative."""
    for name, value in positive.items():
        if value < 0:
            raise ValueError(f"{name} is {value}: use 0 or more.")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}: use 0 or more and less than 1.")


class MomentumOptimizer(Optimizer):
    """Steps group by group; the state of each parameter is its `momentum_buffer`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns the result of `closure`, which recomputes the loss, or None without a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters)
        return loss

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Update the parameters of a group, all of which have gradients."""
        raise NotImplementedError

    def _buffers(self, parameters: list[Tensor]) -> list[Tensor]:
        for p in parameters:
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
        return [self.state[p]["momentum_buffer"] for p in parameters]
