"""docs/install.md: how to install, what that takes, and what was tried with which versions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from run_tables import ABSENT, Result, table

INTRODUCTION = """# Install

Made by `make docs` from files in [results/](results); do not edit. Python 3.11 or newer. The whole suite runs on Linux
with 3.11; the part that depends most on torch was run with [other versions](#which-versions-work), too. The workflow in
`.github/` runs all of it with 3.11, 3.12 and 3.13, and with the lowest versions of all packages; it has not been run
there yet.

## Without a GPU

From an empty machine with Python, two commands in the project's folder:

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install .

The first takes builds for CPUs from PyTorch's own index, which hold no CUDA. The second finds torch there and leaves it
alone. Without the first, pip on Linux takes the builds for CUDA, which work without a GPU as well but take several GB.
On macOS and Windows, the usual index has builds for CPUs, and the second command is enough.

## With an NVIDIA GPU

    pip install .

On Linux this takes torch for the newest CUDA that it supports. If your driver is older, take the first command from
above with another address ([pytorch.org](https://pytorch.org/get-started/locally/) has the list), such as `cu126`
instead of `cpu`.

## Extras

    pip install '.[timm,plots]'

Each extra brings the packages that one thing needs ([which](dependencies.md#optional)). Some, such as `timm`, bring
torchvision, which must be of the same kind as torch: without a GPU, begin with
`pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu`. `tapetum doctor --install` says what
works on this machine, what recipes will compute in, and which command brings what is missing
([more](verbs/doctor.md#the-installation)).

## In a container

    docker build -t tapetum .
    mkdir -p runs  # yours, or Docker makes it root's
    docker run --rm -v "$PWD/photos:/data:ro" -v "$PWD/runs:/runs" tapetum fit --images /data --output /runs/first

The [Dockerfile](../Dockerfile) makes an image for CPUs, which runs as user 1000, without rights: if you are another,
add `--user "$(id -u)"`. No test builds it; a test reads it, and tries what it installs and starts outside a container.
"""

INSTALL_INTRODUCTION = """## What it takes

Installed from this folder into an empty environment (`python -m venv`), used, and deleted again, by
`benchmarks/install.py`; the files hold each command with what it printed. *MB* is the whole environment. *For GPUs* is
what of it serves NVIDIA's GPUs alone: packages of CUDA, Triton, and torch's own files for CUDA. The build of torch for
CPUs came from a file, because PyTorch's own index, which the commands above name, was out of reach. Other programs
shared the two cores, and the seconds of `pip` are those of the network and disk where it ran.
"""

VERSIONS_INTRODUCTION = """## Which versions work

The part of the suite that depends most on torch, by `benchmarks/versions.py`; it takes any Python with any versions of
the packages. torchvision, an extra, is not so free: its compiled operators load only beside the torch that they were
built for, and one built for CUDA does not load beside a torch for CPUs. Where it is installed, `tapetum doctor
--install` runs such an operator, and says so if it fails.
"""


def install(found: Mapping[str, Result]) -> str:
    """A line for each installation, and the transcript of each."""
    rows = []
    for name, one in found.items():
        steps = one["steps"]
        pip = [key for key in steps if key.startswith("pip")]
        rows.append(
            [
                f"[{name}](results/install/{name}.json)",
                "; ".join(f"`{key}`" for key in pip),
                one["python"],
                one["torch"],
                f"{sum(steps[key]['seconds'] for key in pip):,.0f}",
                f"{one['megabytes']:,.0f}",
                f"{one['megabytes_for_gpus']:,.0f}",
                f"**{one['megabytes'] - one['megabytes_for_gpus']:,.0f}**",
                str(one["packages"]),
                *(f"{steps[key]['seconds']:.1f}" for key in ('python -c "import tapetum"', "tapetum --help")),
                f"{steps['tapetum demo']['seconds']:.0f}",
            ]
        )
    heads = ["environment", "command", "Python", "torch", "seconds", "MB", "for GPUs", "the rest", "packages"]
    lines = [table([*heads, "`import tapetum`, s", "`tapetum --help`, s", "`tapetum demo`, s"], rows, left=(0, 1))]
    return "\n".join([*lines, *(_transcript(name, one) for name, one in found.items())])


def _transcript(name: str, one: Result) -> str:
    lines = [f"*{name}*, packages from {one['from']}:\n", "```console"]
    for command, step in one["steps"].items():
        lines += [f"$ {command}    # {step['seconds']:.1f} s", *step["said"]]
    return "\n".join([*lines, "```\n"])


def versions(found: Mapping[str, Result]) -> str:
    """A line for each set of versions."""
    names = ("torch", "numpy", "pillow", "scipy", "scikit-learn", "lightning-fabric", "pydantic")
    rows = []
    for name, one in found.items():
        failed = f"{one['failed']}" if one["failed"] else ABSENT
        link = f"[{name}](results/versions/{name}.json)"
        tried = shlex.join(test.removeprefix("tests/") for test in one["tests"])
        counts = [str(one["passed"]), failed, str(one["skipped"])]
        rows.append([link, one["versions"]["python"], *(one["versions"][n] for n in names), *counts, tried])
    heads = ["tried", "Python", *names, "passed", "failed", "skipped", "of tests/"]
    return table(heads, rows, left=(0, len(heads) - 1))
