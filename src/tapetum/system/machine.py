"""How many CPU threads and how much memory this process may use."""

import os
from pathlib import Path


def available_threads() -> int:
    """Return how many CPU threads this process may use: its affinity mask, or OMP_NUM_THREADS if lower."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(limit)) if limit.isdigit() and int(limit) > 0 else count


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
