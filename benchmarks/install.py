"""Install Tapetum from this folder into an empty virtual environment, and write down what that took and brought.

    python benchmarks/install.py NAME [--first torch==2.13.0] [--extras timm,plots] [--python PYTHON] [--keep FOLDER]

writes docs/results/install/NAME.json: the commands with their seconds, the MB of the environment and of its largest
packages, the MB that only serve NVIDIA's GPUs, how long `import tapetum` and `tapetum --help` take, and what `tapetum
demo` says there. How long a download takes depends on the network: `from` says where packages came from. `--first` is
installed by a command of its own, as a build of torch for CPUs is. The file is written once all of it worked; the
environment is removed in any case, also after SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "results" / "install"
TORCH = ("torch", "torchvision")
FOR_GPUS = ("nvidia-", "triton", "cuda-")
CUDA_FILES = ("_cuda", "cudart", "cublas", "cudnn", "nvshmem", "nccl")
"""Parts of names of torch's own files that a build for CPUs does not have."""


def timed(*command: str | Path, cwd: Path | None = None) -> dict[str, Any]:
    """Run a command to its end; what it was, how long it took, and the last lines that it printed."""
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"install: error: {' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return {"seconds": round(seconds, 2), "said": done.stdout.strip().splitlines()[-12:]}


def size(package: Distribution) -> tuple[int, int]:
    """Bytes of a package's files, and those of them that serve GPUs alone."""
    name, total, cuda = package.metadata["Name"].lower(), 0, 0
    for file in package.files or ():
        path = Path(str(file.locate()))
        count = path.stat().st_size if path.is_file() else 0
        total += count
        is_cuda = name.startswith(FOR_GPUS) or (name in TORCH and any(part in path.name for part in CUDA_FILES))
        cuda += count if is_cuda else 0
    return total, cuda


def contents(environment: Path) -> dict[str, Any]:
    """MB of the environment, without what serves GPUs alone, and of its largest packages."""
    (packages,) = environment.glob("lib/python*/site-packages")
    sizes = {package.metadata["Name"]: size(package) for package in distributions(path=[str(packages)])}
    whole = sum(path.lstat().st_size for path in environment.rglob("*") if not path.is_symlink() and path.is_file())
    largest = sorted(sizes, key=lambda name: -sizes[name][0])[:12]
    return {
        "megabytes": round(whole / 1e6, 1),
        "megabytes_for_gpus": round(sum(cuda for _, cuda in sizes.values()) / 1e6, 1),
        "packages": len(sizes),
        "largest": {name: round(sizes[name][0] / 1e6, 1) for name in largest},
        "versions": {package.metadata["Name"]: package.version for package in distributions(path=[str(packages)])},
    }


def install(environment: Path, python: str, extras: str, first: str) -> dict[str, Any]:
    """Make an environment, install, and use it."""
    target = f"{ROOT}[{extras}]" if extras else str(ROOT)
    binary, empty = environment / "bin", environment.parent / "empty"
    empty.mkdir()
    shown = f"pip install {chr(39)}.[{extras}]{chr(39)}" if extras else "pip install ."
    pip = (binary / "pip", "install", "--progress-bar", "off")
    steps = {"python -m venv env": timed(python, "-m", "venv", environment)}
    if first:
        steps[f"pip install {first}"] = timed(*pip, *first.split())
    steps[shown] = timed(*pip, target)
    quiet = list(steps)
    for name in ("import tapetum", "import torch"):
        steps[f'python -c "{name}"'] = timed(binary / "python", "-c", name, cwd=empty)
    steps["tapetum --help"] = timed(binary / "tapetum", "--help", cwd=empty)
    steps["tapetum doctor --install"] = timed(binary / "tapetum", "doctor", "--install", cwd=empty)
    steps["tapetum demo"] = timed(binary / "tapetum", "demo", "--output", "run", cwd=empty)
    for step in steps.values():
        step["said"] = [line.replace(str(environment.parent), "...").replace(str(ROOT), ".") for line in step["said"]]
    for name in (*quiet, "tapetum --help"):
        steps[name]["said"] = []
    return {"steps": steps, **contents(environment)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--extras", default="")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--first", default="", metavar="REQUIREMENTS")
    parser.add_argument("--from", dest="origin", default="a package index in the same network")
    parser.add_argument("--keep", type=Path, help="make the environment here and leave it")
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("install: error: stopped"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) if words.keep is None else words.keep
        place.mkdir(parents=True, exist_ok=True)
        found = install(place / "env", words.python, words.extras, words.first)
    release = found["versions"]
    result = {
        "name": words.name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": timed(words.python, "--version")["said"][0].split()[-1],
        "system": f"{platform.system()} {platform.machine()}",
        "from": words.origin,
        "extras": words.extras,
        "torch": release["torch"],
        **found,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{words.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"Written: {FOLDER / words.name}.json")


if __name__ == "__main__":
    main()
