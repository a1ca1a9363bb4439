"""The health of a pool before training: damaged files, duplicates, leakage, conflicting and missing labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.health.duplicates import MANY_LOOKALIKES, Pairs, alike, close_pairs, groups, lookalikes
from tapetum.data.health.inspection import Inspection
from tapetum.data.sources.open_source import Source

FEW = 4
"""A class with fewer labels than this counts as having few."""


@dataclass(frozen=True)
class Group:
    """Images that are copies of each other."""

    members: tuple[int, ...]
    """Ascending indices; the test images are numbered after those of the pool."""
    exact: bool
    """Whether all have the same pixels; otherwise some only look alike."""


@dataclass(frozen=True)
class Part:
    """The pool or the test images, with what their inspection found."""

    source: Source
    seen: Inspection

    @property
    def classes(self) -> list[str | None]:
        """The class of each image, None where it is not labelled."""
        labels = self.source.labels
        if labels is None:
            return [None] * len(self.source.store)
        return [labels.classes[value] if value >= 0 else None for value in labels.values]


@dataclass(frozen=True)
class Health:
    """Findings about a pool and, if given, its test images."""

    pool: Part
    test: Part | None
    groups: tuple[Group, ...]
    lookalikes: float
    """Average number of near duplicates per image. If it is too high for copies, `groups` has only exact duplicates."""

    @property
    def tells_near_ones(self) -> bool:
        """Whether near duplicates were searched for."""
        return self.lookalikes <= MANY_LOOKALIKES

    @property
    def names(self) -> list[str]:
        """Names of the images of all parts; those of test images start with "test: "."""
        test = () if self.test is None else self.test.source.store.names
        return [*self.pool.source.store.names, *(f"test: {name}" for name in test)]

    @property
    def classes(self) -> list[str | None]:
        """The class of each image of all parts."""
        return self.pool.classes + ([] if self.test is None else self.test.classes)

    @property
    def num_pool(self) -> int:
        return len(self.pool.source.store)

    def leaks(self) -> list[Group]:
        """Return the groups with images of both pool and test."""
        return [g for g in self.groups if g.members[0] < self.num_pool <= g.members[-1]]

    def leaked_tests(self) -> list[int]:
        """Return the test images, numbered from 0, that have a copy in the pool."""
        return sorted(i - self.num_pool for g in self.leaks() for i in g.members if i >= self.num_pool)

    def num_exact_leaks(self) -> int:
        """Count the test images with exactly the same pixels as an image of the pool."""
        if self.test is None:
            return 0
        return int(np.isin(self.test.seen.digests[self.leaked_tests()], self.pool.seen.digests).sum())

    def conflicts(self) -> list[Group]:
        """Return the groups whose images have different labels."""
        classes = self.classes
        return [g for g in self.groups if len({classes[i] for i in g.members} - {None}) > 1]

    def within_pool(self, exact: bool) -> list[Group]:
        """Return the groups of exact or of near duplicates with at least two images of the pool."""
        return [g for g in self.groups if g.exact == exact and sum(i < self.num_pool for i in g.members) > 1]

    def few(self) -> dict[str, int]:
        """Return the classes with fewer than `FEW` readable labelled images, and how many they have."""
        counts = self.class_counts()
        return {name: count for name, count in counts.items() if count < FEW}

    def class_counts(self) -> dict[str, int]:
        """Count the readable labelled images of the pool by class."""
        labels = self.pool.source.labels
        found = Counter(c for i, c in enumerate(self.pool.classes) if i not in self.pool.seen.unreadable)
        return {} if labels is None else {name: found[name] for name in labels.classes}

    def as_dict(self) -> dict[str, Any]:
        """Return all findings for JSON, with images and classes by name."""
        names, classes = self.names, self.classes

        def listed(found: Sequence[Group]) -> list[list[dict[str, str | None]]]:
            return [[{"image": names[i], "label": classes[i]} for i in group.members] for group in found]

        return {
            "pool": _part_as_dict(self.pool),
            "test": None if self.test is None else _part_as_dict(self.test),
            "classes": self.class_counts(),
            "classes_with_few_labels": self.few(),
            "exact_duplicates": listed(self.within_pool(exact=True)),
            "near_duplicates": listed(self.within_pool(exact=False)),
            "lookalikes_per_image": round(self.lookalikes, 3),
            "leakage": listed(self.leaks()),
            "leaked_test_images": len(self.leaked_tests()),
            "leaked_with_the_same_pixels": self.num_exact_leaks(),
            "label_conflicts": listed(self.conflicts()),
        }


def _part_as_dict(part: Part) -> dict[str, Any]:
    store, seen = part.source.store, part.seen
    read = np.setdiff1d(np.arange(len(store)), list(seen.unreadable))
    sizes = Counter(map(tuple, seen.sizes[read].tolist()))
    return {
        "images": len(store),
        "labelled": 0 if part.source.labels is None else len(part.source.labels.labelled),
        "unreadable": [{"image": store.names[i], "reason": reason} for i, reason in seen.unreadable.items()],
        "sizes": {f"{height}x{width}": count for (height, width), count in sizes.most_common()},
        "modes": dict(Counter(seen.modes[i] for i in read).most_common()),
    }


def find_health(pool: Part, test: Part | None = None) -> Health:
    """Search for duplicates among the readable images of pool and test, which are numbered consecutively."""
    parts = [part.seen for part in (pool, test) if part is not None]
    first = np.cumsum([0, *(len(part.modes) for part in parts)])
    readable = np.concatenate(
        [
            np.setdiff1d(np.arange(len(p.modes)), list(p.unreadable)) + start
            for p, start in zip(parts, first[:-1], strict=True)
        ]
    ).astype(np.int64)
    digests, hashes = (
        np.concatenate([getattr(part, name) for part in parts])[readable] for name in ("digests", "hashes")
    )
    # Copied at most once: for a million images they are by far the largest.
    thumbnails = parts[0].thumbnails if len(parts) == 1 else np.concatenate([part.thumbnails for part in parts])
    exact, representatives = _equal_pairs(digests)
    different, rows = hashes[representatives], readable[representatives]
    pairs, many = [exact], lookalikes(different, thumbnails, rows)
    if many <= MANY_LOOKALIKES:
        pairs.append(np.searchsorted(readable, alike(rows[close_pairs(different)], thumbnails)))
    found = groups(np.concatenate(pairs), len(readable))
    those = tuple(Group(tuple(readable[g].tolist()), len(np.unique(digests[g])) == 1) for g in found)
    return Health(pool, test, those, many)


def _equal_pairs(digests: npt.NDArray[np.uint64]) -> tuple[Pairs, npt.NDArray[np.int64]]:
    """Pair each repeated image with the first one of its digest; also return the first image of every digest."""
    _, firsts, inverse = np.unique(digests, return_index=True, return_inverse=True)
    every = np.arange(len(digests))
    first = firsts[inverse]
    repeated = every != first
    return np.stack([first[repeated], every[repeated]], axis=1).astype(np.int64), np.sort(firsts).astype(np.int64)
