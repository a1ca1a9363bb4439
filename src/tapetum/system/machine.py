"""How many CPU threads and how much memory this process may use, and how it keeps memory."""

import ctypes
import os
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES = (2**30, 2**25)  # the second for older versions, which refuse more


def available_threads() -> int:
    """Return how many CPU threads this process may use: its affinity mask, or OMP_NUM_THREADS if lower."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, chosen_threads() or count)


def chosen_threads() -> int | None:
    """Return the number that OMP_NUM_THREADS says; None if it says none."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) or None if text.isdigit() else None


def memory_bytes() -> int:
    """Return how many bytes of memory this process may use: the machine's, or its container's limit if lower."""
    if not hasattr(os, "sysconf"):
        return 8 * 2**30  # not a POSIX system: assume a modest machine
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return int(total)


def keep_freed_memory() -> bool:
    """Let glibc's allocator keep freed blocks of up to 1 GiB for the next use; return whether it will.

    By default it gives every large block back to the system, and each step of a training pays again for having the
    pages of its activations zeroed. The numbers that are computed do not change. Other allocators are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: musl and macOS have no mallopt, Windows no such library
        return False
    return all(any(mallopt(option, size) for size in _KEPT_BYTES) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
