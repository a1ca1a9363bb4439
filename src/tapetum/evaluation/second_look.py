"""What somebody should look at again after a training, as numbers: the input of `tapetum review`'s tables and page."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.evaluation.review import Floats, Integers, Predicted


class OutOfSample(NamedTuple):
    """Predictions of N labelled images that do not rest on their own labels."""

    rows: Integers
    """(N,) indices of the images in the pool, ascending."""
    labels: Tensor
    """(N,) int64, the given classes."""
    probabilities: Tensor
    """(N, C)."""
    basis: str
    """How they were made, in a sentence for people."""
    num_seen: int
    """How many of the labels trained the network that predicted them: it may have learned their mistakes."""


class SuspectLabels(NamedTuple):
    """K labels to look at, most doubtful first."""

    predicted: Predicted
    """`truth` is the given class, `labels` the suggested one, `confidence` its probability; an image is not among its
    own neighbours."""
    doubt: Floats
    """(K,) how much speaks against each label, 0 to 1."""
    num_errors: int
    """How many of them are probably wrong by confident learning."""
    num_judged: int
    """How many labels were looked at."""
    basis: str
    """How they were found, in a sentence for people."""


@dataclass(frozen=True)
class SecondLook:
    """Labels that may be wrong, copies whose labels differ, and the predictions of a run, most doubtful first."""

    name: str
    classes: tuple[str, ...]
    pool: Store
    pool_labels: Integers
    """(P,) classes of the pool's images, -1 if unlabelled."""
    added: Store
    """Small pictures of the labelled images that were added after training."""
    added_labels: Integers
    """Their classes."""
    suspects: SuspectLabels
    copies: tuple[tuple[int, ...], ...]
    """Groups of copies with different labels: indices in the pool, ascending."""
    finds_near_copies: bool
    """Whether images are different enough to find near copies, or just those with the same pixels."""
    unlabelled: Predicted
    """The N unlabelled images of the pool, least confident first."""
    in_domain: Floats
    """(N,) how much these resemble labelled images, 0 to 1."""
