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
