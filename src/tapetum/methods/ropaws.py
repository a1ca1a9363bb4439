"""RoPAWS: PAWS that distrusts images unlike any labelled one (Mo, Sohn, Ma, Lee, Shin & Lee, ICLR 2023).

https://arxiv.org/abs/2302.14483

Like PAWS (`methods/paws.py`), with different targets. PAWS labels an unlabelled image by its soft nearest neighbours
among the labelled ones, however far away they are, so images of unlabelled classes get confident, wrong targets. Here
all unlabelled images of the step are neighbours too, weighted by a prior that falls with the distance to the nearest
labelled image:

    [C_S | C_U] = prior * softmax([z . Z_S^T + tau ln r, z . Z_U^T] / tau)
    prior = exp((max z . Z_S^T - 1) / tau_prior)
    P = (1 - C_U)^-1 C_S Y                           which solves P = C_S Y + C_U P

Rows of P sum to w <= 1; the rest is spread evenly over the classes before sharpening, and w weights the image:

    loss = mean_i w_i^power H(q_i, p_i) - H(mean_i sharpen(p_i))

Where this differs from the published code, on purpose:
- r compares the numbers of images taking part over all processes; the published code counts one class and one process;
- the linear system is solved in float32, without forming an inverse;
- and the differences listed in `methods/paws.py`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from tapetum.losses.ropaws import in_domain_prior, ropaws_loss
from tapetum.methods.base import check_above_zero, check_not_negative
from tapetum.methods.paws import PAWS, PAWSConfig


@dataclass(frozen=True, kw_only=True)
class RoPAWSConfig(PAWSConfig):
    """RoPAWS: the fields of PAWS plus those of the prior; defaults are the published ones for CIFAR-10."""

    kind: Literal["ropaws"] = "ropaws"  # type: ignore[assignment]
    """Selects this method."""
    prior_temperature: float = 0.1
    """tau_prior, how fast the prior falls with the distance to the nearest support: 0.1 on CIFAR-10, 3.0 on ImageNet
    and Semi-iNat."""
    prior_power: float = 1.0
    """Power to which an image's known share w is raised in its weight; 1 in the paper. 0 weights all images equally."""
    label_ratio: float = 5.0
    """Total weight of all supports as neighbours, relative to all unlabelled images; 5 in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "prior_temperature", "label_ratio")
        check_not_negative(self, "prior_power")


class RoPAWS(PAWS):
    """PAWS with targets propagated through the unlabelled images."""

    Config: ClassVar[type] = RoPAWSConfig
    config: RoPAWSConfig

    def unsupervised_terms(self, **inputs: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute the paper's two terms; `known` is the mean share that the labelled images explain."""
        match, mean_entropy, known = ropaws_loss(
            **inputs,
            prior_temperature=self.config.prior_temperature,
            prior_power=self.config.prior_power,
            label_ratio=self.config.label_ratio,
        )
        return match, mean_entropy, {"known": known.mean()}

    def in_domain(self, nearest: Tensor) -> Tensor:
        """(N,) prior of images, given the cosine (N,) of each with its nearest support."""
        return in_domain_prior(nearest, self.config.prior_temperature)
