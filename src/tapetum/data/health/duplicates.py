"""Finds images that are the same, or nearly so, by hashing what they look like and searching for close hashes.

Two images are *near duplicates* if both of these hold:

- their difference hashes differ in at most `RADIUS` of 64 bits: each bit says whether a pixel of the image, shrunk to
  8 rows of 9 grey pixels, is darker than its right neighbour;
- their thumbnails, 12x12 pixels in colour, have a correlation of at least `LEAST_CORRELATION`, each channel less
  its mean.

The first test is fast to search and tolerates changes of brightness, scale and compression. The second separates images
that merely share a layout, such as two small aeroplanes in the sky. Mirrored or rotated copies are not found.

Neither test can separate copies from simple images of the same kind: two shirts on black of 28x28 pixels, two
handwritten ones, two frames of a film. `lookalikes` detects a collection of such images.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from tapetum.ops.randomness import make_keys

Pairs = npt.NDArray[np.int64]
"""(M, 2) indices of images, the smaller one first."""

RADIUS = 9
"""Largest number of the 64 bits in which hashes of near duplicates may differ."""
LEAST_CORRELATION = 0.92
"""Least correlation of the thumbnails of near duplicates. Of the inspected pairs of CIFAR-10, those above it show the
same photograph or product; pairs that merely look similar, or are of different classes, begin below 0.9."""
_BANDS = 5  # of 12 or 13 bits; if 9 bits differ, some band has at most one of them
_THUMBNAIL = 12
MANY_LOOKALIKES = 3.0
"""If an image has more near duplicates than this, on average, they are not copies. An image of CIFAR-10 has 0.02, of
scikit-learn's digits 5, of Fashion-MNIST 280."""
_CHUNK = 1 << 20  # pairs compared at a time, to limit memory
_SAMPLE = 1 << 21  # pairs drawn for an estimate


def grey_rows(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Shrink an RGB image to 8 rows of 9 grey pixels, (72,)."""
    return np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX)).reshape(-1)


def thumbnail(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Shrink an RGB image to 12x12 pixels in colour, (432,)."""
    return np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)).reshape(-1)


def difference_hashes(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Compute the (N,) hashes of N images from their `grey_rows` (N, 72)."""
    grey = rows.reshape(-1, 8, 9)
    bits = (grey[:, :, 1:] > grey[:, :, :-1]).reshape(-1, 64)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


def close_pairs(hashes: npt.NDArray[np.uint64], radius: int = RADIUS) -> Pairs:
    """Find all pairs of hashes that differ in at most `radius` bits, without comparing all pairs.

    The bits are cut into bands. If two hashes differ in fewer bits than twice the number of bands, some band differs in
    at most one bit. So only hashes with a band that is equal, or differs in one bit, are compared.

    Args:
        hashes: (N,) difference hashes.
        radius: at most 9.
    """
    assert radius < 2 * _BANDS
    found = [np.empty((0, 2), dtype=np.int64)]
    edges = [64 * band // _BANDS for band in range(_BANDS + 1)]
    for first, last in itertools.pairwise(edges):
        keys = (hashes >> np.uint64(first)).astype(np.int64) & ((1 << (last - first)) - 1)
        order = np.argsort(keys, kind="stable")
        for left, right in _candidates(keys[order], last - first):
            one, other = order[left], order[right]
            close = np.bitwise_count(hashes[one] ^ hashes[other]) <= radius
            found.append(np.stack([one[close], other[close]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def _candidates(keys: npt.NDArray[np.int64], bits: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield positions of equal keys, and of keys that differ in one bit, among sorted keys."""
    for mask in (0, *(1 << bit for bit in range(bits))):
        positions = np.arange(len(keys)) if mask == 0 else np.flatnonzero(keys & mask == 0)
        start = positions + 1 if mask == 0 else np.searchsorted(keys, keys[positions] | mask, side="left")
        stop = np.searchsorted(keys, keys[positions] | mask, side="right")
        positions, start, stop = (array[start < stop] for array in (positions, start, stop))
        ends = np.cumsum(stop - start)
        for cut in _cuts(ends):
            counts = (stop - start)[cut]
            left = np.repeat(positions[cut], counts)
            within = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
            yield left, np.repeat(start[cut], counts) + within


def _cuts(ends: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices of about `_CHUNK` pairs each; `ends` counts pairs from the start."""
    first = 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        yield slice(first, last)
        first = last


def alike(pairs: Pairs, thumbnails: npt.NDArray[np.uint8]) -> Pairs:
    """Keep the pairs whose thumbnails (N, 432) have a correlation of at least `LEAST_CORRELATION`."""
    kept = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(pairs), 65536):
        some = pairs[start : start + 65536]
        one, other = (_centred(thumbnails[some[:, side]]) for side in (0, 1))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        kept.append(some[(one * other).sum(axis=1) >= LEAST_CORRELATION * np.maximum(norms, 1e-6)])
    return np.concatenate(kept)


def lookalikes(
    hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64] | None = None
) -> float:
    """Average number of near duplicates per image among N images, estimated from a sample of pairs if N is large.

    Args:
        hashes: (N,) difference hashes.
        thumbnails: (N, 432), or more rows, of which `rows` are those of the images.
        rows: (N,); None for all, in order.
    """
    count = len(hashes)
    if count < 2:
        return 0.0
    if count * (count - 1) // 2 <= _SAMPLE:
        pairs = np.stack(np.triu_indices(count, k=1), axis=1)
    else:
        drawn = make_keys("lookalikes", np.arange(2 * _SAMPLE)).reshape(-1, 2) % np.uint64(count)
        pairs = drawn[drawn[:, 0] != drawn[:, 1]].astype(np.int64)
    close = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= RADIUS
    near = pairs[close] if rows is None else rows[pairs[close]]
    return len(alike(near, thumbnails)) / len(pairs) * (count - 1)


def _centred(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = thumbnails.astype(np.float32).reshape(len(thumbnails), -1, 3)
    return (values - values.mean(axis=1, keepdims=True)).reshape(len(thumbnails), -1)


def groups(pairs: Pairs, count: int) -> list[list[int]]:
    """Group the images that pairs connect: members ascend, and groups are sorted by their first member."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for one, other in pairs.tolist():
        one, other = root(one), root(other)
        parent[max(one, other)] = min(one, other)
    members: dict[int, list[int]] = {}
    for i in np.unique(pairs).tolist():
        members.setdefault(root(i), []).append(i)
    return sorted(members.values())
