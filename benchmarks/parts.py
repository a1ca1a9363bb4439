"""Seconds by part: a clock around functions, wherever they are called from."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


class Clock:
    """Adds up the seconds of parts, each without the parts inside it.

    Args:
        now: the time in seconds: `time.perf_counter`, or one of CPU time.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._now, self._inside = now, [0.0]

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            began = self._now()
            try:
                return function(*args, **kwargs)
            finally:
                whole = self._now() - began
                self.seconds[part] += whole - self._inside.pop()
                self._inside[-1] += whole

        return timed

    @contextmanager
    def placed(self, places: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
        """Time functions meanwhile: (module or class, name in it, part) each."""
        with ExitStack() as patches:
            for owner, name, part in places:
                patches.enter_context(mock.patch.object(owner, name, self.around(part, getattr(owner, name))))
            yield
