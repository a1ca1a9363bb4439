"""Treats Ctrl-C and SIGTERM as a request: the trainer finishes its step, saves, and only then stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

STOPPED = 130
"""Exit code after a request to stop, the one that shells use for SIGINT."""


class Interrupted(Exception):
    """Training stopped on request. Its text says what was saved and how to continue, and is already printed.

    Attributes:
        step: number of finished steps.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets `received`, and a second one stops at once.

    It does nothing outside the main thread, where Python delivers no signals.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self.received = False
        self._process = os.getpid()
        self._notify = notify
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked data worker inherits this handler: it leaves Ctrl-C to the trainer, but SIGTERM ends it.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        self._notify("Finishing this step and saving; interrupt again to stop at once.")
