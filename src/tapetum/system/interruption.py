"""Ctrl-C and SIGTERM as a request: the trainer finishes its step, saves, and only then stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

STOPPED = 130
"""Exit code after a request to stop; it is the shell's for SIGINT."""


class Interrupted(Exception):
    """Training stopped when asked to. Its text says what was saved and how to go on, and has been printed already.

    Attributes:
        step: finished steps.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets `received`; a second one stops at once.

    Outside the main thread, where Python delivers no signals, it does nothing.
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
            # A forked data worker inherits this handler: Ctrl-C is the trainer's to handle, SIGTERM ends the worker.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        self._notify("Finishing this step and saving; once more stops at once.")
