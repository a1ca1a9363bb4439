"""How fast images come from where they lie, as tables of Markdown: a section of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import Result, table

INTRODUCTION = """## Sources

Images a second that one process reads and decodes from [where they lie](sources.md), the same JPEG files in each, in a
random order, in batches of 64: `benchmarks/sources.py`. *Cold*: the archive has never been listed, and the system has
forgotten the files. `s3` is moto's server on the same machine, one Python for all requests: it shows what a request
costs here, not what a store can do. Parquet reads whole row groups, and keeps the last few in memory. Other programs
shared the cores: compare the rows with each other.
"""
NAMES = {"s3": "s3, an object each", "s3_tar": "s3, ranges of a tar"}

LISTS = """
Seconds to list an archive of many small members, the first time and from the kept index:

"""


def sources(sources: Mapping[str, Result]) -> str:
    """A line for each machine's file and way, and one for each kind of archive that was listed."""
    rows, lists = [], []
    for name, found in sources.items():
        link = f"[{name}](results/sources/{name}.json)"
        for way, states in found["ways"].items():
            cells = [NAMES.get(way, way), f"{found['images']:,}", f"{found['bytes_per_image'] / 1000:,.1f}"]
            cells += [f"{states[state]['images_per_second']:,.0f}" for state in ("cold", "warm")]
            cells += [f"{states[state]['open_seconds']:.2f}" for state in ("cold", "warm")]
            warm = states["warm"]
            cells += [f"{warm['cpu_ms_per_image']:.2f}", f"{warm['peak_memory_mb'] - warm['start_memory_mb']:,.0f}"]
            rows.append([link, *cells])
        for kind, about in found["listing"].items():
            seconds = [f"{about[which]:.2f}" for which in ("first_seconds", "again_seconds")]
            lists.append([link, kind, f"{about['members']:,}", *seconds, f"{about['peak_memory_mb']:,.0f}"])
    heads = ["measured on", "images in", "images", "kB each", "images/s, cold", "warm", "seconds to open, cold", "warm"]
    page = table([*heads, "CPU ms an image", "MB more while reading"], rows, left=(0, 1))
    if lists:
        heads = ["measured on", "archive", "members", "first", "again", "peak memory, MB"]
        page += LISTS + table(heads, lists, left=(0, 1))
    return page
