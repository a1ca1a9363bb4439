"""The section about chosen labels in docs/results.md, and its picture."""

from __future__ import annotations

import importlib
import re

import pytest


@pytest.fixture
def tables(make_results):
    return importlib.import_module("suggest_tables")


def found(**changes):
    top1 = {"random": (30.0, 32.0), "doubt": (33.0, 33.5), "margin": (29.5, 31.0)}
    cells = [
        {
            "way": way,
            "draw": draw,
            "labels": 40,
            "classes": 9 + draw,
            "cpu_seconds": 1.0,
            "soft_nn": value,
            "linear": 20.0,
        }
        for way, values in top1.items()
        for draw, value in enumerate(values)
    ]
    known = {
        "data": "cifar10",
        "pool": 16000,
        "judges": 9000,
        "num_classes": 10,
        "embedding": "swav",
        "embedding_steps": 1500,
        "cells": cells,
    }
    return {"cifar": known | changes}


def lines(page):
    return [line for line in page.splitlines() if "results/suggest/cifar.json" in line]


def test_each_way_stands_beside_random_labels_of_the_same_draw(make_results):
    random, doubt, margin = lines(make_results.render([], suggest=found()))
    link = "| [cifar](results/suggest/cifar.json): CIFAR-10 (JPEG), "
    link += "16,000 to choose from, 9,000 judge; embedding of SwAV, 1,500 steps | 40 |"
    assert random == f"{link} `random` | 9.5 of 10 | 31.00 ± 1.41 | 20.00 ± 0.00 | – | 1.0 |"
    assert "| 33.25 ± 0.35 (**+2.25**, 2 of 2) | 20.00 ± 0.00 (**+0.00**, 0 of 2) | – |" in doubt
    assert "(**-0.75**, 0 of 2)" in margin


def test_trainings_are_told_where_there_are_any(make_results):
    content = found()["cifar"]
    for cell in content["cells"]:
        cell["paws"] = 50.0 + cell["draw"] + (cell["way"] == "doubt")
    _, doubt, _ = lines(make_results.render([], suggest=found(cells=content["cells"])))
    assert "| 51.50 ± 0.71 (**+1.00**, 2 of 2) |" in doubt


def test_a_way_that_did_what_another_did_is_told_once(make_results):
    cells = found()["cifar"]["cells"]
    again = [cell | {"way": "badge"} for cell in cells if cell["way"] == "doubt"]
    assert len(lines(make_results.render([], suggest=found(cells=cells + again)))) == 3


def test_without_a_file_there_is_no_section(make_results):
    assert "Which images to label" not in make_results.render([], suggest={})


def test_the_picture_has_a_dot_for_each_draw_at_its_gain(tables):
    drawn = tables.picture(found())
    assert drawn.count('<circle class="dot"') == 4  # two draws of two ways; random is the line at zero
    zero = float(re.search(r'class="zero" d="M([\d.]+) ', drawn).group(1))
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', drawn)]
    unit = (places[0] - zero) / 3.0
    assert [round((place - zero) / unit, 2) for place in places] == pytest.approx([3.0, 1.5, -0.5, -1.0], abs=0.02)
    assert "cifar, 40 labels: points above random labels" in drawn


def test_the_picture_is_up_to_date(make_results, tables):
    drawn = tables.picture(make_results.read_sections()["suggest"])
    assert make_results.SUGGEST_PICTURE.read_text(encoding="utf-8") == drawn
