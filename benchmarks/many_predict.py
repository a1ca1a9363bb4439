"""Whether many workers predict as one process does, row for row, though one of them is killed in the middle.

    python benchmarks/many_predict.py RUN IMAGES [--workers 2] [--ways torchrun ray] [--one TABLE] [--json FILE]

First `tapetum predict` alone; then the same images by torchrun, and by Ray Data on a cluster of as many nodes, all on
this machine (`pip install 'tapetum[ray]'`). Each of them twice: undisturbed, and with `kill -9` for one
worker once a third of the rows are there. torchrun then ends, and the same command goes on; Ray replaces the worker.

Rows of torchrun are equal if the tables are, byte for byte; those of Ray, which come in any order, if all text is and
numbers are when written as in the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import machine, write_json

import tapetum

TAPETUM = (sys.executable, "-m", "tapetum")
WAYS = ("torchrun", "ray")
BATCH = 500


class Signed(tapetum.Predictor):
    """A predictor whose rows tell which process made them."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        rows = super().__call__(batch)
        return rows | {"worker": np.full(len(rows["label"]), os.getpid())}


def predict(run: Path, images: Path, table: Path) -> list[str]:
    """The arguments of the command."""
    return ["predict", str(run), str(images), "--output", str(table)]


def by_torchrun(words: list[str], workers: int) -> subprocess.Popen[str]:
    """Start the command in so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*launcher, "-m", "tapetum", *words], **pipes)


def finished(process: subprocess.Popen[str]) -> None:
    """Wait.

    Raises:
        RuntimeError: it failed; says what it printed.
    """
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(error)


def killed_at(process: subprocess.Popen[str], table: Path, rows: int) -> int:
    """Kill the last worker of torchrun once the table has so many rows; returns how many it has when all have ended."""
    state = table.with_name(table.name + ".partial.json")

    def done() -> int:
        return sum(json.loads(state.read_text())["counts"].values()) if state.exists() else 0

    while done() < rows:
        if process.poll() is not None:
            raise RuntimeError(f"it ended before {rows} rows were written: give more images")
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate()
    return done()


@contextmanager
def cluster(nodes: int) -> Iterator[None]:
    """A Ray cluster of nodes, with processes of their own on this machine."""
    for name in ("raylet_start_wait_time_s", "worker_register_timeout_seconds", "agent_register_timeout_ms"):
        os.environ.setdefault(f"RAY_{name}", "300000" if name.endswith("ms") else "300")  # on a busy machine
    import ray
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 2, "object_store_memory": 200 * 2**20}  # one to read with
    alone = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}  # what nobody looks at
    made = Cluster(initialize_head=True, head_node_args={**one, **alone})
    for _ in range(nodes - 1):
        made.add_node(**one)
    ray.init(address=made.address, log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()
        made.shutdown()


def by_ray(run: Path, images: Path, workers: int, kill_at: int | None) -> list[dict[str, Any]]:
    """Predict on a cluster; the worker of the first batch is killed once so many rows have come."""
    import ray.data

    count = sum(path.is_file() for path in images.rglob("*"))  # a task for each batch, so that some are left to do
    read = ray.data.read_binary_files(str(images), include_paths=True, override_num_blocks=-(-count // BATCH))
    predicted = read.map_batches(
        Signed,
        fn_constructor_args=[str(run)],
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    rows: list[dict[str, Any]] = []
    for row in predicted.iter_rows():
        rows.append(row)
        if len(rows) == kill_at:
            os.kill(int(rows[0]["worker"]), signal.SIGKILL)
    return rows


def equal_rows(rows: list[dict[str, Any]], table: Path, images: Path) -> int:
    """How many rows of Ray are those of the table; none if some are missing or come twice."""
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        expected = {row["path"]: row for row in csv.DictReader(file)}
    found = {str(Path(row["path"]).relative_to(images)): row for row in rows}
    if len(found) != len(rows) or found.keys() != expected.keys():
        return 0
    return sum(_is_same(found[path], row) for path, row in expected.items())


def _is_same(found: Mapping[str, Any], expected: Mapping[str, str]) -> bool:
    texts = (name for name in expected if name not in ("path", "problem"))
    return all(_as_written(name, found[name]) == expected[name] for name in texts)


def _as_written(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or np.isnan(value):
        return ""
    return f"{round(value, 6):g}" if name.endswith("_weight") else f"{value:.6g}"


def compare(run: Path, images: Path, workers: int, ways: list[str], one: Path) -> dict[str, Any]:
    """Predict in every way, and compare with the table of one process."""
    total = sum(1 for _ in csv.reader(one.open(newline="", errors="surrogateescape"))) - 1
    found: dict[str, Any] = {"images": total, "workers": workers, "ways": {}}
    for way in ways:
        for kill_at in (None, total // 3):
            measure = _torchrun if way == "torchrun" else _ray
            with tempfile.TemporaryDirectory() as folder:
                table = Path(folder, "one.csv")
                shutil.copyfile(one, table)
                result = measure(run, images, workers, table, kill_at)
            name = way if kill_at is None else f"{way}_killed"
            found["ways"][name] = result
            print(f"{name}: {result}", flush=True)
    return found


def _torchrun(run: Path, images: Path, workers: int, table: Path, kill_at: int | None) -> dict[str, Any]:
    own = table.with_name(f"torchrun-{kill_at}.csv")
    words = predict(run, images, own)
    kept = {} if kill_at is None else {"kept_rows": killed_at(by_torchrun(words, workers), own, kill_at)}
    finished(by_torchrun(words, workers))
    rows = len(table.read_bytes().splitlines()) - 1
    return {"equal_rows": rows if own.read_bytes() == table.read_bytes() else 0, **kept}


def _ray(run: Path, images: Path, workers: int, table: Path, kill_at: int | None) -> dict[str, Any]:
    with cluster(workers):
        rows = by_ray(run, images, workers, kill_at)
    return {"equal_rows": equal_rows(rows, table, images), "workers": len({row["worker"] for row in rows})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="what starts them")
    parser.add_argument("--one", type=Path, help="the table of one process; it is kept, or used if it is there")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    options = parser.parse_args()
    run, images = options.run.resolve(), options.images.resolve()
    with tempfile.TemporaryDirectory() as folder:
        one = options.one or Path(folder, "one.csv")
        if not one.exists():
            subprocess.run([*TAPETUM, *predict(run, images, one)], check=True, stdout=subprocess.DEVNULL)
        found = compare(run, images, options.workers, options.ways, one)
    write_json(options.json, {"section": "many", **found, "machine": machine()})


if __name__ == "__main__":
    main()
