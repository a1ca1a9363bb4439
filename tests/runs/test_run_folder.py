"""The summary of a run, which several verbs write."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tapetum.runs.run_folder import read_summary, update_summary, write_summary

WINDOWS = """
import sys
sys.modules["resource"] = None  # as where Python has no such module
from tapetum.runs.run_folder import environment
sys.platform = "win32"
print(environment()["peak_memory_mb"])
"""


def test_entries_that_several_set_at_once_all_stay(tmp_path):
    (tmp_path / "recipe.yaml").write_text("kept")
    write_summary(tmp_path, {"steps": 3, "test_top1": 1.0})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: update_summary(tmp_path, {str(i): i}), range(40)))
    assert update_summary(tmp_path, {"test_top1": 2.0}) == read_summary(tmp_path)
    expected = {"steps": 3, "test_top1": 2.0, **{str(i): i for i in range(40)}}
    assert json.loads((tmp_path / "summary.json").read_text()) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "summary.json"]
    assert (tmp_path / "recipe.yaml").read_text() == "kept"


def test_windows_has_a_summary_without_peak_memory():
    assert subprocess.run([sys.executable, "-c", WINDOWS], capture_output=True, text=True).stdout == "None\n"
