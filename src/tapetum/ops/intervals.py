"""How far chance may have moved a share."""

import math

_Z = 1.959964  # 97.5% point of the normal distribution


def wilson(right: int, count: int) -> tuple[float, float]:
    """Compute the 95% interval of a share after `right` of `count` trials, in percent (Wilson, JASA 1927).

    Unlike the textbook interval, it stays within 0 and 100, and has a width even if all trials have the same outcome.

    Raises:
        ValueError: there are no trials, or `right` is not between 0 and `count`.

    Example:
        >>> [round(end, 1) for end in wilson(9, 10)]
        [59.6, 98.2]
    """
    if not 0 <= right <= count or count == 0:
        raise ValueError(f"{right} of {count} are right: count at least one image.")
    share, z2 = right / count, _Z**2
    middle = share + z2 / (2 * count)
    spread = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # At the ends the two terms cancel, and rounding may leave the result just outside.
    low, high = ((middle + sign * spread) / (1 + z2 / count) for sign in (-1, 1))
    return 100 * max(0.0, low), 100 * min(1.0, high)
