"""What sharding saves in memory, as tables of Markdown: a section of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import Result, table

INTRODUCTION = """## Memory of large networks

What `runtime.strategy: fsdp` and `runtime.recompute: blocks` save
([Many processes, many machines](many_machines.md#larger-networks)): MB of one process that trains PAWS with AdamW.
`benchmarks/sharding.py`. First measured on CPUs, with equally many images in each process: weights, gradients and
optimizer state are counted from tensors; the peak is that of the process, less what it had before it built anything,
and holds buffers of gloo and DistributedDataParallel, too.
"""

PAPER = """
Then **on paper**, never measured on a GPU: {network} with {parameters} million weights, heads included, and {views}
in each GPU. Weights, gradients and AdamW's moments are float32. *Gathered*, with fsdp, are two blocks' weights and one
block's gradients, and with ddp a copy of the gradients, which DistributedDataParallel sends from. *Copies* are the
weights in bfloat16 that autocast leaves for the backward pass. *Activations* are all that the backward pass needs, and
with `blocks` what goes into each block and all of one block.

"""


def sharding(sharding: Mapping[str, Result]) -> str:
    """A line for each way: of each machine's file, and of what was reckoned."""
    rows, paper = [], ""
    for name, found in sharding.items():
        link = f"[{name}](results/sharding/{name}.json)"
        for run in found["runs"]:
            sizes = [f"{run[part]:,.0f}" for part in ("weights_mb", "gradients_mb", "optimizer_mb", "peak_mb")]
            rows.append([link, str(run["processes"]), run["strategy"], run["recompute"], *sizes])
        paper = _paper(found["paper"])
    heads = ["measured on", "processes", "strategy", "recompute", "weights", "gradients", "optimizer", "peak"]
    return table(heads, rows, left=(0, 2, 3)) + paper


def _paper(paper: Result) -> str:
    parts = ("weights", "gradients", "optimizer", "gathered", "copies", "activations")
    rows = [
        [str(row["gpus"]), row["strategy"], row["recompute"], *(f"{row[part]:,}" for part in (*parts, "together"))]
        for row in paper["rows"]
    ]
    views = " and ".join(f"{count} images of {size} pixels" for size, count in paper["views"].items())
    millions = f"{paper['parameters'] / 1e6:,.0f}"
    text = PAPER.format(network=f"`{paper['network']}`", parameters=millions, views=views)
    return text + table(["GPUs", "strategy", "recompute", *parts, "together"], rows, left=(1, 2))
