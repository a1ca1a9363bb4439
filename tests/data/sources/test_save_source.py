import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.data.sources.open_source import open_source
from tapetum.data.sources.save_source import is_path, save_source


def same(one, other):
    everything = np.arange(len(one.store))
    assert all(torch.equal(a, b) for a, b in zip(one.store.read(everything), other.store.read(everything), strict=True))
    if one.labels is None:
        assert other.labels is None
    else:
        assert (one.labels.classes, one.labels.values.tolist()) == (other.labels.classes, other.labels.values.tolist())
        assert one.labels.none.tolist() == other.labels.none.tolist()


@pytest.mark.parametrize("labels", [["a", "none of these", "b, c"], ["a", "", "b, c"], [7, -1, 10], None])
def test_arrays_come_back(tmp_path, labels):
    source = open_source(np.arange(3 * 8 * 8).reshape(3, 8, 8).astype(np.uint8), labels)
    same(source, open_source(save_source(source, tmp_path / "new" / "given")))


def test_files_come_back_whatever_they_are_called(tmp_path):
    paths = []
    for number, name in enumerate(("b/2, 3.png", "a/1.png", 'Grüße "x".png')):
        paths.append(tmp_path / name)
        paths[-1].parent.mkdir(exist_ok=True)
        Image.new("RGB", (4 + number, 5), (number, 9, 9)).save(paths[-1])
    for labels in (["y", "x", "y"], "none"):
        source = open_source(paths, labels)
        same(source, open_source(save_source(source, tmp_path / "given")))


def test_rows_of_a_table_come_back(tmp_path):
    class Frame:
        columns = ("image", "label")
        image = tuple(Image.new("RGB", (4 + number, 5), (number, 9, 9)) for number in range(3))
        label = ("x", "", "y")
        __getitem__ = object.__getattribute__

        def __len__(self):
            return 3

    source = open_source(Frame())
    for _ in range(2):  # the second time over what is there
        same(source, open_source(save_source(source, tmp_path)))


def test_what_is_a_path(tmp_path):
    assert is_path(tmp_path)
    assert is_path("a")
    assert not is_path(["a"])
