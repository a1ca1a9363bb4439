"""What a process finds out about its machine, and how it keeps memory."""

import subprocess
import sys

import pytest

from tapetum.system.machine import keep_freed_memory

_FAULTS = """
import resource, sys
import torch
from tapetum.system.machine import keep_freed_memory

keeps = sys.argv[1] == "keep" and keep_freed_memory()
for _ in range(20):  # until a block's remains are no longer cut up for small objects
    torch.zeros(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(2**24)  # 64 MB: without being told, glibc keeps up to 32
print(int(keeps), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(way: str) -> tuple[bool, int]:
    done = subprocess.run([sys.executable, "-c", _FAULTS, way], capture_output=True, text=True, check=True)
    keeps, faults = done.stdout.split()
    return keeps == "1", int(faults)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted as on Linux")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    keeps, kept = _page_faults("keep")
    if not keeps:
        pytest.skip("this C library has no mallopt")
    _, usual = _page_faults("usual")
    assert kept < usual / 5, f"{kept} page faults, {usual} without"


def test_says_whether_memory_is_kept() -> None:
    assert keep_freed_memory() in (True, False)
