"""Stateless randomness: a random number is a function of what it is for.

Every draw in Tapetum (data order, views, support sets, seeds of torch's generator) comes from a *key*, a 64-bit
hash of (seed, purpose, ...), and nothing else. No generator is advanced, so checkpoints store no random
state, and no draw depends on the number of workers, the composition of a batch or the device.

The hash chains the finaliser of SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014). It mixes bits but is not cryptographic.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: Keys) -> Keys:
    """SplitMix64's finaliser: every input bit flips every output bit with probability one half."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _as_words(part: int | str | npt.ArrayLike) -> Keys:
    if isinstance(part, str):
        digest = hashlib.blake2b(part.encode(), digest_size=8).digest()
        return np.asarray(int.from_bytes(digest, "little"), dtype=np.uint64)
    if isinstance(part, int):
        return np.asarray(part & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    array = np.asarray(part)
    assert array.dtype.kind in "iub", f"keys are made of integers and strings, not {array.dtype}"
    return array.astype(np.uint64)


def make_keys(*parts: int | str | npt.ArrayLike) -> Keys:
    """Hash the parts, in order, into keys.

    Args:
        parts: integers, strings (purposes) or integer arrays; arrays broadcast against each other.

    Returns:
        uint64 array of the broadcast shape (0-d if every part is a scalar).

    Example:
        >>> from tapetum.ops.randomness import make_keys
        >>> int(make_keys(7, "views", 0, 3)) == int(make_keys(7, "views", 0, [2, 3])[1])
        True
    """
    with np.errstate(over="ignore"):
        state = np.asarray(_GOLDEN)
        for part in parts:
            state = _mix(np.asarray(state * np.uint64(3) + _mix(_as_words(part) + _GOLDEN)))
    return state


def uniform(keys: Keys, count: int) -> npt.NDArray[np.float64]:
    """Draw `count` independent numbers in [0, 1) for each key; shape (*keys.shape, count)."""
    counters = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        words = _mix(np.asarray(keys)[..., None] + counters * _GOLDEN)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: Keys, length: int) -> npt.NDArray[np.int64]:
    """Draw a permutation of 0..length-1, determined by one 0-d key."""
    with np.errstate(over="ignore"):
        words = _mix(np.asarray(key) + np.arange(1, length + 1, dtype=np.uint64) * _GOLDEN)
    return np.argsort(words, kind="stable").astype(np.int64)


def torch_seed(*parts: int | str) -> int:
    """Derive a seed for torch's own generator (dropout, initial weights): non-negative and below 2**63."""
    return int(make_keys(*parts)) >> 1
