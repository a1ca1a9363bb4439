"""Which images come next: exceptions and suggestions first, then the others in an order that mixes the pool."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tapetum.labelling.answers import Answers
from tapetum.labelling.predictions import Suggestion
from tapetum.ops.randomness import make_keys, permutation

_HELD_SECONDS = 120.0
"""How long an image that one tab shows is kept from the others."""


class Queue:
    """The order in which images are asked.

    Args:
        answers: what is answered already.
        clock: seconds.

    Attributes:
        suggestions: chosen images, best first.
    """

    def __init__(self, answers: Answers, clock: Callable[[], float] = time.monotonic) -> None:
        self.answers, self._clock = answers, clock
        self.suggestions: Sequence[Suggestion] = ()
        # Neighbours in a folder often look alike, such as frames of a video.
        self._others: list[int] = permutation(make_keys("label"), len(answers.names)).tolist()
        self._held: dict[int, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def next(self, tab: str, count: int) -> list[int]:
        """Return up to `count` images without an answer, which other tabs then do not get for two minutes.

        Skipped images come last.
        """
        with self._lock:
            now, found = self._clock(), []
            self._held = {image: held for image, held in self._held.items() if held[1] > now}
            for image in self._order():
                if self._held.get(image, (tab, 0))[0] == tab:
                    found.append(image)
                    if len(found) == count:
                        break
            self._held = {image: held for image, held in self._held.items() if held[0] != tab}
            self._held |= dict.fromkeys(found, (tab, now + _HELD_SECONDS))
            return found

    def left(self) -> int:
        """Return how many suggestions have no answer yet."""
        answered = self.answers.labels
        return sum(suggestion.image not in answered for suggestion in self.suggestions)

    def about(self, image: int) -> dict[str, object]:
        """Return rank (from 1) and reason of an image's suggestion, if there is one."""
        for rank, suggestion in enumerate(self.suggestions, start=1):
            if suggestion.image == image:
                return {"rank": rank, "reason": suggestion.reason}
        return {}

    def _order(self) -> Iterator[int]:
        answered, skipped = self.answers.labels, self.answers.skipped
        seen = np.zeros(len(self.answers.names), dtype=bool)
        for image in (*self.answers.excepted, *(s.image for s in self.suggestions), *self._others):
            if not seen[image] and image not in answered and image not in skipped:
                seen[image] = True
                yield image
        yield from (image for image in self._others if image in skipped and image not in answered)
