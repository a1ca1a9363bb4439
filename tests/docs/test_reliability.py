"""docs/reliability.md: it is up to date, and failures are told."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture
def reliability(make_results) -> ModuleType:
    return importlib.import_module("reliability_tables")


def injection(verb="train", outcome="ended", then="same", processes=1):
    about = {"case": f"{verb}-paws-{processes}", "verb": verb, "method": "paws", "processes": processes}
    return about | {"moment": 3, "where": "", "code": -9, "outcome": outcome, "then": then, "seconds": 0.5}


def of_kill(*injections):
    return {"section": "faults", "fault": "kill", "about": "kill -9", "seed": 0, "injections": list(injections)}


def test_the_page_is_up_to_date(make_results, reliability):
    page = reliability.render(make_results.read_folder("reliability"))
    assert make_results.RELIABILITY_PAGE.read_text(encoding="utf-8") == page


def test_faults_are_counted_by_how_they_ended(reliability):
    found = of_kill(
        injection(), injection(), injection(outcome="goes on"), injection(outcome="saved"), injection("add_class")
    )
    page = reliability.render({"killed": found})
    assert "| [kill](results/reliability/killed.json) | kill -9 | 5 | 2 | 1 | 1 | 3 | 5 | **0** |" in page
    assert "| `train` | 1 | 4 |" in page
    assert "| `add-class` | 1 | 1 |" in page
    assert "In all, 5 injections." in page


@pytest.mark.parametrize("wrong", [{"outcome": "traceback: KeyError: 1"}, {"then": "differs: run/metrics.csv"}])
def test_what_failed_is_told(reliability, wrong):
    page = reliability.render({"killed": of_kill(injection(), injection(processes=4), injection(**wrong))})
    assert page.count("**1**") == 1
    assert "| `train` | 1 | 2 (1 failed) |" in page
    assert "| `train` | 4 | 1 |" in page


def test_sections_without_files_are_left_out(reliability):
    assert "## Faults" not in reliability.render({})


def test_rows_of_many_workers_are_counted(reliability):
    ways = {
        "torchrun_killed": {"equal_rows": 3000, "kept_rows": 1000},
        "ray_killed": {"equal_rows": 2999, "workers": 3},
    }
    page = reliability.render({"many_ray": {"section": "many", "images": 3000, "workers": 2, "ways": ways}})
    link = "[many_ray](results/reliability/many_ray.json)"
    assert f"| {link} | torchrun, one killed; then the same command | 2 | 3,000 of 3,000 | 1,000 |  |" in page
    assert f"| {link} | Ray Data, one killed | 2 | 2,999 of 3,000 |  | 3 |" in page


def test_unequal_nodes_are_told(reliability):
    by = {"torchrun": {"version": "torch 2", "same_weights": True, "same_predictions": False}}
    page = reliability.render({"two_nodes": {"section": "two_nodes", "by": by}})
    assert "| [torchrun](results/reliability/two_nodes.json) | torch 2 | yes | **no** |" in page


def test_failures_on_hostile_files_are_told_with_those_before(reliability):
    good = {"inputs": 700, "accepted": 100, "refused": 600, "failures": {}, "starved": 1}
    good |= {"slowest_seconds": 0.5, "largest_memory_mb": 9}
    bad = good | {"refused": 598, "failures": {"hang": 2}}
    limits = {"seconds": 10.0, "memory_mb": 2048}
    now = {"section": "fuzz", "seed": 0, "limits": limits, "kinds": {"images": good, "label_formats": bad}}
    guided = {"images": {"inputs": 900, "reached_by_valid": 20, "reached": 30, "failures": {"traceback": 1}}}
    found = {"fuzz": now, "fuzz_before": now | {"kinds": {"images": bad}}}
    page = reliability.render(found | {"fuzz_guided": {"section": "guided", "guided_seconds": 9, "kinds": guided}})
    assert "| images | 700 | 100 | 600 | 1 | 2 hang | **0** | 0.50 | 9 |" in page
    assert "| label formats | 700 | 100 | 598 | 1 | – | **2** | 0.50 | 9 |" in page
    assert "| all | 1,400 | 200 | 1,198 | 2 | 2 | **2** | – | – |" in page
    assert "| images | 900 | 20 | 30 | **1** |" in page
    assert "## Strangers" not in reliability.render({})
