"""Measuring several ways of doing one thing in turn, each in a process of its own, on a machine that is not quiet.

A way is measured once in every round (A B A B ...), so that whatever else the machine does falls on all of them. What
counts are the ratios within rounds; CPU seconds are printed beside wall seconds, because other programs take far less
from those.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Sample = dict[str, Any]
"""What one measurement of one way found."""

PEAK_CODE = "import json, side_by_side; print(json.dumps(side_by_side.measure_peaks({})))"


def photographs(count: int) -> npt.NDArray[np.uint8]:
    """(count, 32, 32, 3) smooth random images: views cost what they cost on CIFAR-10, and nothing is downloaded."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 9, 9, 3)).astype(np.float32)
    grid = np.linspace(0, 8, 32)
    low = np.minimum(grid.astype(int), 7)
    part = (grid - low)[:, None, None].astype(np.float32)
    rows = coarse[:, low] * (1 - part) + coarse[:, low + 1] * part
    part = part[None, :, 0]
    images: npt.NDArray[np.uint8] = np.rint(rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part).astype(np.uint8)
    return images


def save_photographs(folder: Path, count: int, classes: int = 10) -> Path:
    """Write `photographs` with labels of so many classes to a file that `data.images` takes; returns its path."""
    path = folder / "images.npz"
    np.savez(path, images=photographs(count), labels=np.arange(count) % classes)
    return path


def cpu_seconds() -> float:
    """User and system time of this process and of its living worker processes."""
    total = time_of_process()
    for worker in multiprocessing.active_children():
        stat = Path(f"/proc/{worker.pid}/stat")
        if stat.exists():
            ticks = stat.read_text().rpartition(")")[2].split()[11:13]
            total += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return total


def time_of_process() -> float:
    """User and system time of this process alone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_memory_mb() -> float:
    """The most memory this process ever held."""
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def in_own_process(script: Path, arguments: Sequence[str], threads: int) -> Sample:
    """Run a script; its last line is its finding as JSON."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: Sample = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_peaks(threads: int) -> dict[str, float]:
    """GFLOP/s of matrix products with this many threads, and by the CPU second of one thread."""
    from matrix_peak import matrix_peak, matrix_peaks

    torch.set_num_threads(threads)
    found = matrix_peaks()
    torch.set_num_threads(1)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        found[f"{name}_per_cpu_second"] = round(matrix_peak(dtype, clock=time.thread_time), 1)
    return found


def peaks(threads: int) -> dict[str, float]:
    """`measure_peaks` in a process of its own."""
    code, folder = PEAK_CODE.format(threads), Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def alternate(
    script: Path, ways: Sequence[str], arguments: Sequence[str], *, rounds: int, threads: int
) -> dict[str, list[Sample]]:
    """Measure every way once a round, in the same order."""
    samples: dict[str, list[Sample]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            found = in_own_process(script, ["--way", way, *arguments], threads)
            samples[way].append(found)
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            print(f"round {number + 1} of {rounds}, {way}: {numbers}", flush=True)
    return samples


def ratios(samples: dict[str, list[Sample]], way: str, rate: str) -> list[float]:
    """`way` over `usual`, round by round."""
    return [mine[rate] / usual[rate] for mine, usual in zip(samples[way], samples["usual"])]


def print_ratios(samples: dict[str, list[Sample]], rates: Sequence[str]) -> dict[str, dict[str, float]]:
    """One line for each way and rate; returns the medians of the ratios."""
    medians: dict[str, dict[str, float]] = {}
    for way in samples:
        medians[way] = {}
        for rate in rates:
            per_round = ratios(samples, way, rate)
            medians[way][rate] = round(median(per_round), 3)
            speed = median(sample[rate] for sample in samples[way])
            each = " ".join(f"{r:.2f}" for r in per_round)
            print(
                f"{way:>9}  {rate:<28} median {speed:9.2f}   ratio to usual {median(per_round):5.2f}   by pair {each}"
            )
    return medians


def views_in_turn(
    script: Path,
    ways: Sequence[str],
    arguments: Sequence[str],
    rates: Sequence[str],
    *,
    images: int,
    rounds: int,
    what: str,
) -> dict[str, Any]:
    """Measure all ways to make views in turn, on one thread each, and print the ratios."""
    before = peaks(threads=1)
    samples = alternate(script, ways, arguments, rounds=rounds, threads=1)
    after = peaks(threads=1)
    print(f"\n{what}, one thread; matrix peak GFLOP/s before {before}, after {after}")
    result = {"images": images, "rounds": samples, "ratio_to_usual": print_ratios(samples, rates), "machine": machine()}
    return {**result, "matrix_gflops": {"before": before, "after": after}}


def machine() -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    features = ("avx512_bf16", "amx_tile")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor_units": [feature for feature in features if feature in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def data_name(place: str | Path) -> str:
    """The last folder of a path, or the one above it if that only says which part it is."""
    path = Path(place)
    return path.parent.name if path.name in ("train", "test") and path.parent.name else path.name


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
