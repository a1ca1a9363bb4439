"""Images of which none is labelled: methods that need no label learn from them, and nothing pretends to classes."""

import numpy as np
import pytest

import tapetum

SWAV = ["method.kind=swav", "method.num_prototypes=[6]", "data.test=null", "data.labels_per_class=null"]
SWAV += ["data.held_out_per_class=null", "data.images=images.npy"]


@pytest.fixture
def unlabelled(recipe):
    """The recipe, made one of SwAV for the same images without their labels."""
    np.save("images.npy", np.load("colours.npz")["x_train"])
    text = recipe.read_text().replace("supervised_weight: 0.5, ", "").replace("support: {images_per_class: 2}\n", "")
    recipe.write_text(text)
    return recipe


def test_they_are_learned_from_clustered_and_embedded(unlabelled, capsys):
    summary = tapetum.train(unlabelled, "run", SWAV)
    assert (summary["num_classes"], summary["num_labels"], summary["num_images"]) == (0, 0, 60)
    assert "heldout_top1" not in summary
    assert "test_top1" not in summary
    assert "tapetum cluster run images.npy" in capsys.readouterr().out
    assert sum(tapetum.cluster("run", "images.npy", "clusters")["clusters"].values()) == 60
    with np.load(tapetum.embed("run", "images.npy", "embeddings.npz")) as written:
        assert written["embeddings"].shape[0] == 60
        assert np.isfinite(written["embeddings"]).all()
    before = (unlabelled.parent / "run" / "metrics.csv").read_bytes()
    assert tapetum.resume("run")["steps"] == 6
    assert (unlabelled.parent / "run" / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize(
    "verb", [tapetum.plot, tapetum.report, lambda run: tapetum.predict(run, "images.npy", "p.csv")]
)
def test_what_needs_classes_says_so(unlabelled, verb):
    tapetum.train(unlabelled, "run", [*SWAV, "trainer.steps=1"])
    with pytest.raises(ValueError, match=r"was trained without labels, so it has no classes to predict: .*--init run"):
        verb("run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["method.kind=suave", "support.images_per_class=2"], "images.npy has no labels: give a CSV"),
        (["data.held_out_share=0.2"], "images.npy has no labels, which data.held_out_share needs"),
        (["data.test=colours.npz"], "images.npy has no labels, which data.test needs"),
    ],
)
def test_what_needs_labels_says_so_before_it_starts(unlabelled, changes, message):
    with pytest.raises(ValueError, match=message):
        tapetum.train(unlabelled, "run", [*SWAV, *changes])
