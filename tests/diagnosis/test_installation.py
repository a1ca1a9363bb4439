"""What `tapetum doctor --install` finds: on this machine, and in environments where something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import torchvision

import tapetum
from tapetum.diagnosis.installation import EXTRAS, inspect_installation
from tapetum.engine.runtime import Runtime, RuntimeConfig

ROOT = Path(__file__).parents[2]
FOR_DEVELOPERS = {"dev", "docs"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    (cache / "images").write_bytes(bytes(1234))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAPETUM_CACHE", str(cache))
        return inspect_installation()


def packages(folder, **versions):
    """Metadata of packages, as pip leaves it, in a folder that comes first on sys.path."""
    for name, (number, *requires) in versions.items():
        info = folder / f"{name}-{number}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {number}"]
        (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires)]) + "\n")


def broken(monkeypatch, folder):
    monkeypatch.syspath_prepend(str(folder))
    return inspect_installation()["broken"]


def test_this_machine(found):
    runtime = Runtime(RuntimeConfig())
    machine = found["machine"]
    assert found["broken"] == []
    assert (machine["device"], machine["precision"]) == (runtime.device.type, runtime.precision)
    assert (machine["torch"], machine["channels_last"]) == (torch.__version__, runtime.channels_last)
    assert found["cache"]["bytes"] == 1234
    assert {package["name"]: package["version"] for package in found["packages"]}["pillow"] == version("pillow")


def test_every_extra_has_a_purpose_and_a_command(found):
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(offered) - FOR_DEVELOPERS
    for extra in found["extras"]:
        assert extra["command"] == f"pip install 'tapetum[{extra['name']}]'"
    missing = {extra["name"]: extra["missing"] for extra in found["extras"]}
    assert missing["plots"] == []  # an extra of the developers' environment


def test_torchvision_of_another_torch(tmp_path, monkeypatch):
    packages(tmp_path, torchvision=(version("torchvision"), "torch (==2.0.1)"))
    (sentence,) = broken(monkeypatch, tmp_path)
    assert sentence.startswith(f"torchvision {version('torchvision')} was built for torch==2.0.1, but torch ")
    assert "pip install 'torch==2.0.1' 'torchvision==" in sentence


def test_a_package_that_is_too_old(tmp_path, monkeypatch):
    packages(tmp_path, numpy=("1.2.3",), h5py=("3.0",))
    needed, extra = broken(monkeypatch, tmp_path)
    assert needed.startswith("numpy 1.2.3 does not suit Tapetum, which needs >=2")
    assert extra.startswith("h5py 3.0 does not suit Tapetum")


def test_a_torch_that_cannot_be_imported(tmp_path):
    """With `python -S` there are no packages but ours: torch's metadata is there, torch is not."""
    packages(tmp_path, tapetum=("1", "torch"), torch=("2.0",))
    said = doctor_alone(tmp_path)
    assert said.returncode == 1
    assert "torch does not work here (ModuleNotFoundError: No module named 'torch')" in said.stdout


def test_a_missing_package(tmp_path):
    packages(tmp_path, tapetum=("1", "torch", "nothing-like-it>=3; extra != 'timm'", 'timm; extra == "timm"'))
    said = doctor_alone(tmp_path)
    assert said.returncode == 1
    assert "- torch is missing: pip install 'torch'." in said.stdout
    assert "- nothing-like-it is missing: pip install 'nothing-like-it>=3'." in said.stdout


def doctor_alone(folder):
    """The command where nothing is installed but what the command line itself needs."""
    of_typer = ("click", "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "shellingham", "rich")
    for name in ("packaging", "typer", "typing_extensions", "annotated_doc", *of_typer):
        for place in map(Path, sys.path):
            for path in (place / name, place / f"{name}.py"):
                if place.name == "site-packages" and path.exists() and not (folder / path.name).exists():
                    (folder / path.name).symlink_to(path)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, "-S", "-m", "tapetum", "doctor", "--install"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "file" / "cache"))
    (sentence,) = inspect_installation()["broken"]
    assert sentence.startswith(f"Decoded images cannot be kept in {tmp_path}/file/cache: set TAPETUM_CACHE")


def test_wrong_arithmetic_is_noticed(monkeypatch):
    true = torch.nn.functional.conv2d
    monkeypatch.setattr(
        torch.nn.functional, "conv2d", lambda x, w: true(x, w) * (1.5 if x.dtype == torch.float32 else 1)
    )
    (sentence,) = inspect_installation()["broken"]
    assert "a convolution on cpu is wrong by 50%" in sentence


def test_the_verb_prints_it(found, capsys):
    result = tapetum.doctor(install=True, json=True)
    assert json.loads(capsys.readouterr().out) == result
    tapetum.doctor(install=True)
    said = capsys.readouterr().out
    assert f"torchvision {torchvision.__version__}: a pair\n" in said
    assert said.splitlines()[-1] == "Next: tapetum demo"


@pytest.mark.parametrize("words", [{}, {"run": "r", "install": True}])
def test_it_looks_at_one_thing(words):
    with pytest.raises(ValueError, match=r"name the folder of a run, or use --install"):
        tapetum.doctor(**words)
