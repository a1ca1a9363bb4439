"""Since when the minutes of a command run."""

import subprocess
import sys
import time

from tapetum.system import started

_WAITS_FIRST = """
import time
time.sleep(0.3)
from tapetum.system.started import begin_with_process, command_began
begin_with_process()
first = command_began()
time.sleep(0.1)
print(time.perf_counter() - first, command_began() - first)
"""


def test_a_command_begins_with_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", _WAITS_FIRST], capture_output=True, text=True, check=True)
    since, moved = map(float, done.stdout.split())
    assert 0.4 <= since < 20
    assert moved == 0


def test_a_function_begins_when_it_is_called() -> None:
    before = time.perf_counter()
    assert before <= started.command_began() <= time.perf_counter()


def test_where_the_system_does_not_tell_processor_time_counts(monkeypatch) -> None:
    monkeypatch.setattr(started, "Path", _Nothing)
    assert 0 < started._age_of_process() <= time.process_time()


class _Nothing:
    def __init__(self, path: str) -> None: ...

    def read_text(self) -> str:
        raise OSError("there is no such file")
