"""Wheel and sdist are installed into empty environments, with and without extras, and work there; and in a container.

"Empty" but for torch, torchvision and what of CUDA they bring, which are several GB: these are linked from the
environment of the tests. benchmarks/install.py installs them as well.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINKED = ("torch", "torchvision", "triton", "nvidia-", "cuda-")
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def run(*words: str | Path, **options: object) -> str:
    """What a command printed; its complaints are the test's."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == 0, f"{shlex.join(map(str, words))}: {done.stdout}{done.stderr}"
    return done.stdout


def build(target: str, source: Path, folder: Path) -> Path:
    """Build a wheel or an sdist, without a network."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: nothing can be built without a network")
    run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder, cwd=source)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def torch_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to torch and what comes with it, and nothing else."""
    folder = tmp_path_factory.mktemp("torch")
    for package in distributions():
        if re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower().startswith(LINKED):
            for file in package.files or ():
                name, origin = file.parts[0], Path(str(package.locate_file("")))
                if name not in ("..", "__pycache__") and not (folder / name).is_symlink():
                    (folder / name).symlink_to(origin / name)
    return folder


@pytest.fixture(scope="module")
def empty(torch_alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """bin/ of a new environment that sees torch alone."""
    place = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", place / "env")
    (packages,) = (place / "env").glob("lib/python*/site-packages")
    (packages / "torch.pth").write_text(f"{torch_alone}\n")
    command = [place / "env/bin/pip", "download", "--no-deps", "--quiet", "--dest", place / "tried", "packaging"]
    if subprocess.run(command, capture_output=True, timeout=120).returncode:
        pytest.skip("pip reaches no package index")
    return place / "env/bin"


def environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of the tests' own environment, which pytest has put on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "OMP_NUM_THREADS": "1", "TAPETUM_CACHE": str(tmp_path / "cache")}


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_runs_the_demo_and_then_takes_extras(
    empty: Path, wheel: Path, tmp_path: Path
) -> None:
    alone = {"env": environment(tmp_path), "cwd": tmp_path}
    run(empty / "pip", "install", "--quiet", wheel, **alone)
    found = json.loads(run(empty / "tapetum", "doctor", "--install", "--json", **alone))
    assert found["broken"] == []
    missing = {extra["name"] for extra in found["extras"] if extra["missing"]}
    assert {"timm", "plots", "label", "onnx"} <= missing
    assert "Accuracy on 500 digits" in run(empty / "tapetum", "demo", "--output", "demo", **alone)
    refused = subprocess.run([empty / "tapetum", "plot", "demo"], capture_output=True, text=True, **alone)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "pip install 'tapetum[plots]'" in refused.stderr
    run(empty / "pip", "install", "--quiet", f"{wheel}[timm,plots]", **alone)
    run(empty / "tapetum", "plot", "demo", **alone)
    found = json.loads(run(empty / "tapetum", "doctor", "--install", "--json", **alone))
    assert {extra["name"] for extra in found["extras"] if not extra["missing"]} >= {"timm", "plots"}


@pytest.mark.slow
def test_an_sdist_installs_as_the_wheel_does(empty: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    alone = {"env": environment(tmp_path), "cwd": tmp_path}
    run(empty / "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "made", sdist, **alone)
    (made,) = (tmp_path / "made").iterdir()
    with zipfile.ZipFile(made) as ours, zipfile.ZipFile(wheel) as direct:
        assert sorted(ours.namelist()) == sorted(direct.namelist())
    run(empty / "pip", "install", "--quiet", "--no-deps", "--force-reinstall", sdist, **alone)
    assert run(empty / "tapetum", "--version", **alone) == f"tapetum {PROJECT['version']}\n"


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_the_container_starts_the_command_as_a_user_without_rights() -> None:
    assert json.loads(instructions("ENTRYPOINT")[0])[0] in PROJECT["scripts"]
    assert instructions("USER") == ["tapetum"]
    assert DOCKERFILE.index("\nUSER ") > DOCKERFILE.rindex("\nRUN ")
    assert f"{instructions('RUN')[-1]}".startswith("useradd")
    image = re.fullmatch(r"python:(\d\.\d+)-slim", instructions("FROM")[0])
    assert image is not None
    assert f"Programming Language :: Python :: {image[1]}" in PROJECT["classifiers"]


def test_the_container_installs_extras_that_exist() -> None:
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_the_files_that_the_container_gets_are_enough_to_build(wheel: Path, tmp_path: Path) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [name for line in instructions("COPY") for name in line.split()[:-1]]
    assert set(copied) == kept
    source = tmp_path / "source"
    source.mkdir()
    for name in copied:
        run("cp", "-r", ROOT / name, source / name)
    with zipfile.ZipFile(build("wheel", source, tmp_path / "built")) as ours, zipfile.ZipFile(wheel) as direct:
        assert sorted(ours.namelist()) == sorted(direct.namelist())


def test_the_workflow_tries_every_python_that_is_promised() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    promised = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert set(promised) <= set(jobs["tests"]["strategy"]["matrix"]["python"])
    assert jobs["tests"]["steps"][-1]["run"] == ".ci/run"
    assert "make site" in [step.get("run") for step in jobs["site"]["steps"]]
