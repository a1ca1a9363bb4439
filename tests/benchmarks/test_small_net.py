"""Ways to compute the small network are timed in turn, and count the same operations."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEAKS = {"float32_per_cpu_second": 80.0, "bfloat16_per_cpu_second": 200.0}


@pytest.fixture
def small_net(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script; matrix peaks, which take seconds, are made up, and nothing is compiled, which takes minutes."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module, threads = importlib.import_module("small_net"), torch.get_num_threads()
    monkeypatch.setattr(module, "peaks", lambda threads: PEAKS)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    yield module
    torch.set_num_threads(threads)
    sys.modules.pop("small_net")


def test_ways_take_turns(small_net, monkeypatch, tmp_path: Path, capsys) -> None:
    arguments = ["--rounds", "1", "--images", "4", "--json", str(tmp_path / "ways.json")]
    monkeypatch.setattr(sys, "argv", ["small_net.py", *arguments])
    small_net.main()
    found = json.loads((tmp_path / "ways.json").read_text())["ways"]
    assert set(found) == set(small_net.WAYS) - {"compiled"}
    gflop = found["as shipped"]["gflop"]
    assert {name for name, one in found.items() if one["gflop"] != gflop} == {"stem of 32 channels"}
    assert {name for name, one in found.items() if one["type"] == "float32"} == {"float32"}
    assert all(one["share_of_peak"] > 0 and len(one["cpu_seconds"]) == 1 for one in found.values())
    assert "of the bfloat16 peak" in capsys.readouterr().out


@pytest.mark.parametrize("size", [2, 3, 23])
def test_pooling_by_slices_is_max_pooling(small_net, size: int) -> None:
    images = torch.randn(2, 3, size, size)
    torch.testing.assert_close(small_net.slices_pooled(images, 2), torch.nn.functional.max_pool2d(images, 2))


def test_groups_with_channels_first_are_the_same_network(small_net) -> None:
    images = torch.randn(2, 3, 24, 24)
    ways = [small_net.WAYS[name] for name in ("as shipped", "channels last, then first")]
    plain, laid_out_anew = (small_net.network_of(way)(images) for way in ways)
    torch.testing.assert_close(plain, laid_out_anew)
