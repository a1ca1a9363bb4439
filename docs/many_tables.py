"""Predictions by many workers and trainings on two nodes, as tables of Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import Result, table

INTRODUCTION = """## Many workers

The same images predicted by one process and by several workers, undisturbed and with `kill -9` for one of them once a
third of the rows were there (`benchmarks/many_predict.py`; Ray with a cluster of one node for each worker, all on this
machine). *Equal rows* are those that equal the rows of one process: byte for byte, of Ray every value as the table
writes it, each image once. Seconds are those of the whole command; they say little about speed, because the workers
share the machine with one another and with other programs.
"""
NODES_INTRODUCTION = """## Two nodes

A training and its predictions by one process on each of two network namespaces of one machine, with addresses and host
names of their own (`benchmarks/two_nodes.py`), against two processes that a recipe starts on one machine.
"""
_WAYS = {
    "one": "`tapetum predict` alone",
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
            workers = 1 if way == "one" else result["workers"]
            equal = f"{measured['equal_rows']:,} of {result['images']:,}"
            kept = f"{measured['kept_rows']:,}" if "kept_rows" in measured else ""
            rows.append([name, _WAYS[way], str(workers), equal, kept, f"{measured['seconds']:.0f}"])
    return table(["measured", "by", "workers", "equal rows", "kept by the first attempt", "seconds"], rows, (0, 1))


def two_nodes(found: Mapping[str, Result]) -> str:
    """A line for each launcher."""
    words = {True: "yes", False: "**no**"}
    rows = [
        [by, result["version"], words[result["same_weights"]], words[result["same_predictions"]]]
        for measured in found.values()
        for by, result in measured["by"].items()
    ]
    return table(["by", "version", "the same weights, to the bit", "the same table, to the byte"], rows, (0, 1, 2, 3))
