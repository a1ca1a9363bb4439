"""Predictions by many workers and trainings on two nodes, as tables of Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import Result, table

INTRODUCTION = """## Many workers

The same images predicted by one process and by several workers, undisturbed and with `kill -9` for one of them once a
third of the rows were there (`benchmarks/many_predict.py`; Ray with a cluster of one node for each worker, all on this
machine). *Equal rows* are those that equal the rows of one process: byte for byte, of Ray every value as the table
writes it, each image once. After the death of a worker, torchrun ends and the same command goes on; Ray goes on by
itself, with a new *process*.
"""
NODES_INTRODUCTION = """## Two nodes

A training and its predictions by one process on each of two network namespaces of one machine, with addresses and host
names of their own (`benchmarks/two_nodes.py`), against two processes that a recipe starts on one machine.
"""
_WAYS = {
    "torchrun": "torchrun",
    "torchrun_killed": "torchrun, one killed; then the same command",
    "ray": "Ray Data",
    "ray_killed": "Ray Data, one killed",
}


def many(found: Mapping[str, Result]) -> str:
    """A line for each way to predict."""
    rows = []
    for name, result in found.items():
        for way, measured in result["ways"].items():
            equal = f"{measured['equal_rows']:,} of {result['images']:,}"
            processes, kept = (f"{measured[key]:,}" if key in measured else "" for key in ("workers", "kept_rows"))
            link = f"[{name}](results/reliability/{name}.json)"
            rows.append([link, _WAYS[way], str(result["workers"]), equal, kept, processes])
    heads = ["measured", "by", "workers", "equal rows", "kept by the first attempt", "processes that made rows"]
    return table(heads, rows, (0, 1))


def two_nodes(found: Mapping[str, Result]) -> str:
    """A line for each launcher."""
    words = {True: "yes", False: "**no**"}
    rows = []
    for name, measured in found.items():
        for by, result in measured["by"].items():
            same = (words[result[what]] for what in ("same_weights", "same_predictions"))
            rows.append([f"[{by}](results/reliability/{name}.json)", result["version"], *same])
    return table(["by", "version", "the same weights, to the bit", "the same table, to the byte"], rows, (0, 1, 2, 3))
