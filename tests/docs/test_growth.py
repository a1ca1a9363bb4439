"""The section about growth in docs/results.md."""

from __future__ import annotations

import importlib


def found(**changes):
    sizes, seconds, peaks = (1000, 10_000, 40_000), (0.5, 5.0, 80.0), (500.0, 510.0, 1000.0)
    points = [
        {"size": size, "seconds": second, "start_memory_mb": 400.0, "peak_memory_mb": peak}
        for size, second, peak in zip(sizes, seconds, peaks)
    ]
    curve = {"what": "sorting", "axis": "rows", "points": points} | changes
    return {"threads": 2, "starts": {"import tapetum": 0.123}, "curves": {"sorting": curve}}


def lines(make_results, result):
    page = make_results.render_performance(growth={"two_cores": result})
    assert "## Growth" in page
    return [line for line in page.splitlines() if "results/growth/two_cores.json" in line]


def test_a_curve_is_a_line_with_its_sizes_seconds_and_memory(make_results):
    start, curve = lines(make_results, found())
    link = "| [two_cores](results/growth/two_cores.json) | 2 |"
    assert start == f"{link} `import tapetum` | – | – | 0.12 | – | – |"
    assert curve == (
        f"{link} sorting | rows | 1,000, 10,000, 40,000 | 0.5, 5, 80 ▁▄█ | **4.00** | 500, 510, 1,000 (400) ▁▁▂ |"
    )


def test_a_single_point_has_no_growth(make_results):
    point = {"size": 7, "seconds": 1.0, "start_memory_mb": 400.0, "peak_memory_mb": 500.0}
    _, curve = lines(make_results, found(points=[point]))
    assert "| 7 | 1 ▁ | – | 500 (400) ▁ |" in curve


def test_without_a_file_there_is_no_section(make_results):
    assert "## Growth" not in make_results.render_performance(growth={})


def test_every_doubling_adds_a_step_to_a_bar(make_results):
    tables = importlib.import_module("performance_tables")
    assert tables.bars([2.0, 1.0, 1.4, 8.0, 1000.0]) == "▂▁▁▄█"
    assert tables.doubling([1, 2], [3.0, 3.0]) == "**1.00**"
