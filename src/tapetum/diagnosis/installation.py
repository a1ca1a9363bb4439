"""Whether this installation works: its packages, what recipes will compute with, the cache's folder, and the extras.

Packages are judged by their metadata first. torch and what builds on it are imported inside functions, and only if that
judgement was good, so a missing or unfit package is reported rather than met as an exception.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from tapetum.system.machine import available_threads, memory_bytes

EXTRAS = {
    "torchvision": "tapetum export --format torchvision or torch.hub",
    "timm": "any network of timm as a backbone, and its published weights",
    "plots": "tapetum plot: curves, maps and confusions as pictures",
    "umap": "tapetum plot --umap: a map by UMAP",
    "label": "tapetum label: a page to label images in the browser (any browser)",
    "onnx": "tapetum export --format onnx",
    "parquet": "images in Parquet files; tapetum embed --output FILE.parquet",
    "remote": "images and labels at addresses: s3://, gs://, hf://, https:// and others",
    "keras": "weights that Keras saved as .h5",
    "slurm": "tapetum submit: jobs of a Slurm cluster",
    "ray": "tapetum.Predictor as the worker of Ray Data, on a cluster",
    "tensorboard": "curves in TensorBoard (trainer.tensorboard=true)",
    "detection": "examples/detection: detectors of boxes",
}
"""Extra of the package -> what it is for; those for developers are left out."""

_LITTLE_ROOM = 2**30
_TOLERANCE = 0.05  # of one convolution's result in bfloat16, which has 8 bits


def inspect_installation() -> dict[str, Any]:
    """Look at packages, machine, folders and extras.

    Returns:
        `tapetum`, `python`, `system`; `packages`, each with `name`, `version` (None: missing), `wanted` and `problem`
        (None: none); `extras`, each with `name`, `purpose`, `missing` (names of packages) and `command`; `machine`
        (see `look_at_machine`; None if packages are broken); `cache` (`folder`, `bytes`, `free_bytes`); `broken`, a
        sentence with the fix for each thing that does not work, and `notes`, for what works but could be better.
    """
    needed, extras = _requirements()
    packages = [_package(requirement) for requirement in needed]
    broken = [package["problem"] for package in packages if package["problem"]]
    broken += [] if needed else ["Tapetum is not installed as a package: run pip install . in its folder."]
    broken += _unpaired()
    machine, notes = None, []
    if not broken:
        try:
            machine = look_at_machine()
        except Exception as error:  # whatever a broken build raises: that is what this function is for
            broken.append(f"torch does not work here ({_one_line(error)}): install torch anew.")
        else:
            notes = _notes(machine)
    cache, problems = _cache()
    found = [_extra(name, requirements) for name, requirements in extras.items()]
    too_old = [package["problem"] for extra in found for package in extra.pop("packages") if package["version"]]
    return {
        "tapetum": _version("tapetum"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "machine": machine,
        "cache": cache,
        "extras": found,
        "broken": [*broken, *problems, *filter(None, too_old)],
        "notes": notes,
    }


def look_at_machine() -> dict[str, Any]:
    """Import torch, and try on the device that recipes would take what they would compute in.

    Returns:
        `torch`, `torchvision` (None: not installed), `cuda` (CUDA release that torch was built for, or None), `cpu`,
        `threads`, `instruction_sets`, `memory_bytes`, `gpus` (`name`, `memory_bytes`), `device`, `precision`,
        `channels_last`.

    Raises:
        Exception: torch (or a torchvision that is installed) cannot be imported, or an operation fails or is wrong.
    """
    torch = importlib.import_module("torch")
    from tapetum.engine.runtime import cpu_has, has_bf16_units

    paired = None
    if _version("torchvision") is not None:
        torchvision = importlib.import_module("torchvision")
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        torchvision.ops.nms(boxes, torch.ones(1), 0.5)  # a compiled operator: fails beside another torch
        paired = str(torchvision.__version__)
    kind = "mps" if torch.backends.mps.is_available() else "cuda" if torch.cuda.is_available() else "cpu"
    units = has_bf16_units(torch.device(kind))
    _try_a_convolution(torch, kind, units)
    sets = {"avx512_bf16": "AVX512-BF16", "amx_tile": "AMX"}
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "torch": str(torch.__version__),
        "torchvision": paired,
        "cuda": torch.version.cuda,
        "cpu": _cpu_name(),
        "threads": available_threads(),
        "instruction_sets": [
            torch.backends.cpu.get_cpu_capability(),
            *(name for unit, name in sets.items() if cpu_has(unit)),
        ],
        "memory_bytes": memory_bytes(),
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "device": kind,
        "precision": "bf16" if units else "float32",
        "channels_last": units,
    }


def _try_a_convolution(torch: Any, kind: str, units: bool) -> None:
    """Compare one convolution and its gradient with float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    weights = torch.rand(4, 3, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv2d(images, weights)
    (gradient,) = torch.autograd.grad(expected.sum(), weights)
    ours = weights.detach().float().to(kind).requires_grad_()
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=units):
        found = torch.nn.functional.conv2d(images.float().to(kind), ours)
    (slope,) = torch.autograd.grad(found.float().sum(), ours)
    for right, result in ((expected, found), (gradient, slope)):
        right = right.detach()
        error = float((result.detach().cpu().double() - right).abs().max() / right.abs().max())
        if not error < _TOLERANCE:
            raise ArithmeticError(f"a convolution on {kind} is wrong by {error:.0%}")


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Return what Tapetum needs here, and what each extra of `EXTRAS` adds."""
    try:
        found = [Requirement(line) for line in requires("tapetum") or ()]
        offered = metadata("tapetum").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return [], {}
    needed = [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]
    added = {
        name: [one for one in found if one not in needed and one.marker and one.marker.evaluate({"extra": name})]
        for name in EXTRAS
        if name in offered
    }
    return needed, added


def _package(requirement: Requirement) -> dict[str, Any]:
    name, found, wanted = requirement.name, _version(requirement.name), str(requirement.specifier)
    problem = None
    if found is None:
        problem = f"{name} is missing: pip install '{name}{wanted}'."
    elif not requirement.specifier.contains(found, prereleases=True):
        problem = f"{name} {found} does not suit Tapetum, which needs {wanted}: pip install '{name}{wanted}'."
    return {"name": name, "version": found, "wanted": wanted, "problem": problem}


def _extra(name: str, requirements: list[Requirement]) -> dict[str, Any]:
    packages = [_package(requirement) for requirement in requirements]
    return {
        "name": name,
        "purpose": EXTRAS[name],
        "missing": [package["name"] for package in packages if package["version"] is None],
        "command": f"pip install 'tapetum[{name}]'",
        "packages": packages,
    }


def _unpaired() -> list[str]:
    """Return a sentence if torchvision was built for another torch than the installed one."""
    torch, torchvision = _version("torch"), _version("torchvision")
    if torch is None or torchvision is None:
        return []
    for line in requires("torchvision") or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # somebody else's metadata
            continue
        if requirement.name == "torch" and not requirement.specifier.contains(torch, prereleases=True):
            return [
                f"torchvision {torchvision} was built for torch{requirement.specifier}, but torch {torch} is there: "
                f"pip install 'torch{requirement.specifier}' 'torchvision=={torchvision.partition('+')[0]}'."
            ]
    return []


def _notes(machine: dict[str, Any]) -> list[str]:
    if machine["device"] == "cpu" and machine["cuda"]:
        return [
            f"torch was built for CUDA {machine['cuda']}, but there is no GPU that it can use: a build for CPUs takes "
            "a fraction of the disk (docs/install.md)."
        ]
    if machine["device"] == "cpu" and shutil.which("nvidia-smi"):
        return ["There is an NVIDIA driver, but torch was built without CUDA: docs/install.md shows another build."]
    return []


def _cache() -> tuple[dict[str, Any], list[str]]:
    """Return the folder of decoded images, its size and room, and what is wrong with it."""
    try:
        from tapetum.data.images.cache import cache_folder
    except ImportError:  # a package is missing, which is reported elsewhere
        return {"folder": None, "bytes": 0, "free_bytes": 0}, []
    folder = cache_folder()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, problems = shutil.disk_usage(there).free, []
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        problems.append(f"Decoded images cannot be kept in {folder}: set TAPETUM_CACHE to a folder that you may write.")
    elif free < _LITTLE_ROOM:
        problems.append(f"Only {free / 1e6:.0f} MB are free for {folder}: free some, or set TAPETUM_CACHE elsewhere.")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {"folder": str(folder), "bytes": size, "free_bytes": free}, problems


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
