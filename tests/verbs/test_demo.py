import numpy as np
import pytest

import tapetum
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.run_folder import SUMMARY, read_summary
from tapetum.verbs.demo import demo

DRAWS = range(5)
"""Label draws that are reported. The recipe was tuned on draws from 100 on, with digits of the pool."""


@pytest.mark.usefixtures("one_thread")
def test_what_it_says_and_writes(tmp_path, capsys):
    summary = demo(tmp_path / "run", steps=2)
    said = capsys.readouterr().out
    others = summary["baselines"]
    for number in (summary["test_top1"], *(others[n] for n in others if not n.endswith(("setting", "average")))):
        assert f"{number:.2f}%" in said
    assert "500 digits that no method has seen, from the same 100 labels" in said
    assert others["label_spreading_best_setting"] in said
    assert said.splitlines()[-1].startswith("Next, your own images: tapetum fit ")
    assert (summary["steps"], summary["num_images"], summary["test"]["soft_neighbours"]["count"]) == (2, 1297, 500)
    assert read_summary(tmp_path / "run") == summary
    # The numbers of the other methods have nothing to do with the training.
    assert 90 < others["label_spreading_average"] < others["label_spreading"] <= others["label_spreading_best"] < 100
    assert 80 < others["nearest_neighbour"] < 97


@pytest.mark.usefixtures("one_thread")
def test_without_output_it_names_a_temporary_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    demo(steps=1)
    (folder,) = tmp_path.iterdir()
    assert (folder / SUMMARY).is_file()
    assert f"temporary folder {folder}" in capsys.readouterr().out


def test_the_recipe_never_mirrors_and_has_a_fixed_length():
    recipe = load_recipe("paws_digits")
    kinds = [kind for kind in (recipe.views.large, recipe.views.small, recipe.views.support) if kind]
    assert all(kind.flip == 0 for kind in kinds)
    assert recipe.trainer.steps is not None
    assert recipe.data.labels_per_class == 10


def test_a_full_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="is not empty"):
        demo(tmp_path)


def test_it_is_public():
    assert tapetum.demo is demo


@pytest.mark.slow
def test_five_label_draws(tmp_path):
    """At least 97% in the mean, none under 95%, and better than both others in the mean."""
    rows = []
    for draw in DRAWS:
        summary = demo(tmp_path / str(draw), label_seed=draw)
        others = summary["baselines"]
        rows.append((summary["test_top1"], others["label_spreading"], others["nearest_neighbour"]))
    paws, spreading, neighbour = np.array(rows).T
    print(np.array(rows))
    assert paws.mean() >= 97
    assert paws.min() >= 95
    assert paws.mean() > spreading.mean() > neighbour.mean()
