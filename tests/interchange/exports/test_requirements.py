"""Formats that need torchvision say so where there is none; nothing else needs it."""

import subprocess
import sys

import pytest

from tapetum.interchange.exports.torch_hub import export_torch_hub
from tapetum.interchange.exports.torchvision import export_torchvision


@pytest.mark.parametrize(
    ("export", "format"),
    [(export_torchvision, "torchvision"), (export_torch_hub, "torch.hub")],
    ids=["torchvision", "torch.hub"],
)
def test_without_torchvision_the_command_that_brings_it_is_told(resnet, tmp_path, monkeypatch, export, format):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match=rf"--format {format} needs torchvision: pip install 'tapetum\[torchvision\]'"):
        export(resnet, tmp_path / "trees.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_torchvision_of_another_torch_is_told(resnet, tmp_path, monkeypatch):
    def unfit(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("tapetum.interchange.exports.requirements.importlib.import_module", unfit)
    with pytest.raises(ValueError, match=r"does not load beside this torch \(operator torchvision::nms .* doctor"):
        export_torchvision(resnet, tmp_path / "trees.pth")


def test_all_modules_but_the_exported_one_are_imported_without_torchvision():
    program = (
        "import importlib, pkgutil, sys\n"
        "sys.modules['torchvision'] = None\n"
        "import tapetum\n"
        "for module in pkgutil.walk_packages(tapetum.__path__, 'tapetum.'):\n"
        "    if module.name not in ('tapetum.__main__', 'tapetum.interchange.exports.hubconf'):\n"
        "        importlib.import_module(module.name)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
