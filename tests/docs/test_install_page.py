"""docs/install.md is up to date, and the scripts behind it count rightly."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = {
    "python -m venv env": 3.0,
    "pip install .": 90.4,
    'python -c "import tapetum"': 0.04,
    "tapetum --help": 0.24,
    "tapetum demo": 12.0,
}


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("install"), importlib.import_module("versions")


def test_the_page_is_up_to_date(make_results):
    assert make_results.INSTALL_PAGE.read_text(encoding="utf-8") == make_results.render_install(
        **make_results.read_sections()
    )


def test_an_installation_is_a_row_and_a_transcript(make_results):
    steps = {command: {"seconds": seconds, "said": []} for command, seconds in STEPS.items()}
    steps["tapetum demo"]["said"] = ["all of it"]
    one = {"python": "3.11.7", "torch": "2.14.1", "megabytes": 5500.0, "megabytes_for_gpus": 4400.0, "packages": 60}
    page = make_results.render_install(install={"plain": {**one, "from": "a disk", "steps": steps}})
    (row,) = [line for line in page.splitlines() if "results/install/plain.json" in line]
    assert row.split(" | ")[1:] == [
        *("`pip install .`", "3.11.7", "2.14.1", "90", "5,500", "4,400", "**1,100**", "60", "0.0", "0.2", "12 |")
    ]
    assert "$ tapetum demo    # 12.0 s\nall of it\n```" in page


def test_a_set_of_versions_is_a_row(make_results):
    names = ("torch", "numpy", "pillow", "scipy", "scikit-learn", "lightning-fabric", "pydantic")
    one = {"versions": {"python": "3.12.1", **dict.fromkeys(names, "1.0")}, "tests": ["tests/ops", "tests/nn"]}
    page = make_results.render_install(versions={"old": {**one, "passed": 700, "failed": 0, "skipped": 2}})
    (row,) = [line for line in page.splitlines() if "results/versions/old.json" in line]
    assert row.endswith("| 700 | – | 2 | ops nn |")


def test_what_serves_gpus_is_counted_apart(scripts, tmp_path):
    packages = tmp_path / "lib/python3.11/site-packages"
    for name, file, count in (("nvidia-x", "nvidia/x.so", 3), ("torch", "torch/libtorch_cuda.so", 2), ("a", "a.py", 1)):
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).write_bytes(bytes(count * 1_000_000))
        info = packages / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "RECORD").write_text(f"{file},,\n")
    found = scripts[0].contents(tmp_path)
    assert (found["megabytes"], found["megabytes_for_gpus"], found["packages"]) == (6.0, 5.0, 3)
    assert next(iter(found["largest"].items())) == ("nvidia-x", 3.0)


def test_outcomes_of_a_suite_are_counted(scripts, tmp_path):
    cases = '<testcase classname="a" name="x"/><testcase classname="a" name="y"><failure/></testcase>'
    (tmp_path / "report.xml").write_text(f"<testsuite>{cases}<testcase name='z'><skipped/></testcase></testsuite>")
    assert scripts[1].outcomes(tmp_path / "report.xml") == ({"passed": 1, "failed": 1, "skipped": 1}, ["a::y"])
