"""Treats Ctrl-C, SIGTERM and SIGHUP as a request: the trainer finishes its step, saves, and only then stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

STOPPED = 130
"""Exit code after a request to stop, the one that shells use for SIGINT."""
_AT_ONCE = (signal.SIGINT, signal.SIGTERM)
_REQUESTS = (
    *_AT_ONCE,
    *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []),
)  # Windows knows no terminal that closes


class Interrupted(Exception):
    """Training stopped on request. Its text says what was saved and how to continue, and is already printed.

    Attributes:
        step: number of finished steps.
        is_agreed: whether all processes of the training stop after this step, so that none waits for another.
    """

    def __init__(self, step: int, message: str, is_agreed: bool = False) -> None:
        super().__init__(message)
        self.step, self.is_agreed = step, is_agreed


class StopRequest:
    """While active, the first SIGINT, SIGTERM or SIGHUP sets `received`; a second SIGINT or SIGTERM stops at once.

    A terminal that closes may send SIGHUP more than once. Where `nohup` has it ignored, it stays ignored.

    It does nothing outside the main thread, where Python delivers no signals.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self.received = False
        self._process = os.getpid()
        self._notify = notify
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _REQUESTS:
                if number in _AT_ONCE or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked data worker inherits this handler: SIGTERM ends it, and the rest it leaves to the trainer.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if not self.received:
            self.received = True
            self._notify("Finishing this step and saving; interrupt again to stop at once.")
        elif number in _AT_ONCE:
            raise KeyboardInterrupt
