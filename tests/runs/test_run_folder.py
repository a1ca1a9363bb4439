"""The summary of a run, which several verbs write."""

import json
from concurrent.futures import ThreadPoolExecutor

from tapetum.runs.run_folder import read_summary, update_summary, write_summary


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
