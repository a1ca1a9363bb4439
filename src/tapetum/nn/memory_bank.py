"""A memory bank: the latest projections of every image of the pool, split over processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tapetum.ops.collectives import gather_rows, rank, sum_over_ranks, world_size
from tapetum.ops.randomness import make_keys, permutation

UNKNOWN = -1
"""The label of images outside the pool."""


class MemoryBank:
    """Rows (A, P, D): A views of each of the pool's P images. Process r keeps every world_size-th image, starting at r.

    Not a module: each process has its own part, which belongs in `Method.local_state`.

    Args:
        pool: (P,) int64 image indices, the same on all processes.
        rows: (A, P_own, D) rows of this process's images `own_images`.
        num_images: N, larger than every index.
    """

    def __init__(self, pool: Tensor, rows: Tensor, num_images: int) -> None:
        self.pool, self.num_images = pool, num_images
        # A spare row takes the images of other processes, so that no step waits to learn which process owns an image.
        self._rows = torch.cat([rows, rows[:, :1]], dim=1)
        self._slot = torch.full((num_images,), rows.shape[1], device=pool.device)
        self._slot[self.own_images] = torch.arange(rows.shape[1], device=pool.device)

    @property
    def own_images(self) -> Tensor:
        """(P_own,) indices of this process's images."""
        return self.pool[rank() :: world_size()]

    def rows(self, view: int) -> Tensor:
        """(P_own, D) rows of one of the A views; after the last view, numbers start again at the first."""
        return self._rows[view % len(self._rows), :-1]

    @torch.no_grad()
    def update(self, index: Tensor, rows: Tensor) -> None:
        """Replace the rows of the images of a batch.

        Args:
            index: (B,) images of this process's batch.
            rows: (A, B, D) their projections.
        """
        everyones = gather_rows(rows.transpose(0, 1)).transpose(0, 1)
        self._rows[:, self._slot[gather_rows(index)]] = everyones.to(self._rows.dtype)

    def some_rows(self, view: int, count: int, seed: int) -> Tensor:
        """(count, D) rows of images drawn from the pool without replacement; the same on all processes.

        Raises:
            ValueError: the pool has fewer than `count` images.
        """
        if count > len(self.pool):
            raise ValueError(f"num_prototypes has {count}, but there are only {len(self.pool)} images: use fewer.")
        order = permutation(make_keys(seed, "images", view), len(self.pool))[:count]
        slots = self._slot[self.pool[torch.from_numpy(order).to(self.pool.device)]]
        is_own = slots < len(self.own_images)
        return sum_over_ranks(torch.where(is_own[:, None], self._rows[view % len(self._rows), slots], 0.0))

    def everyones(self, labels: Tensor) -> Tensor:
        """(N,) labels of all images, merged from each process's (P_own,) labels; `UNKNOWN` outside the pool."""
        known = labels.new_zeros(self.num_images)
        known[self.own_images] = labels - UNKNOWN
        return sum_over_ranks(known) + UNKNOWN

    def state(self) -> dict[str, Tensor]:
        """Return the bank's part of `Method.local_state`."""
        return {"bank": self._rows[:, :-1], "pool": self.pool}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], num_images: int) -> MemoryBank | None:
        """Rebuild the bank that `state` came from; None if there was none yet.

        Raises:
            ValueError: it was saved by a different number of processes.
        """
        if "bank" not in state:
            return None
        own, saved = len(state["pool"][rank() :: world_size()]), state["bank"].shape[1]
        if own != saved:
            raise ValueError(
                f"the memory bank of this process has {saved} images and not {own}: it was saved by a different "
                "number of processes; resume with as many as before."
            )
        return cls(state["pool"], state["bank"], num_images)
