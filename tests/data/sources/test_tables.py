import io

import numpy as np
import pytest
from PIL import Image

from tapetum.data.sources.tables import RowStore, images_of_table, is_table, label_column, labels_of_table


class ClassLabel:
    names = ("cat", "dog")


class HuggingFace:
    """As much of `datasets.Dataset` as is asked for."""

    def __init__(self, features=None, **columns):
        self._columns = columns
        self.features = features or {}
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key):
        return self._columns[key] if isinstance(key, str) else {n: c[key] for n, c in self._columns.items()}


def png(colour, size=(5, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "png")
    return buffer.getvalue()


def test_rows_hold_images_in_many_forms(tmp_path):
    (tmp_path / "a.png").write_bytes(png("red"))
    rows = [
        Image.new("RGBA", (5, 4), (255, 0, 0, 255)),
        {"bytes": png("red"), "path": None},
        {"bytes": None, "path": str(tmp_path / "a.png")},
        png("red"),
        np.full((4, 5, 3), (255, 0, 0), np.uint8),
    ]
    store = images_of_table(HuggingFace(image=rows))
    assert isinstance(store, RowStore)
    assert (len(store), store.channels, store.image_size, store.names[4]) == (5, 3, (4, 5), "4")
    for image in store.read(np.arange(5)):
        assert image.shape == (3, 4, 5)
        assert image[:, 0, 0].tolist() == [255, 0, 0]
    grey = RowStore([np.full((4, 5, 1), 9, np.uint8)].__getitem__, 1).read(np.array([0]))[0]
    assert grey.unique().tolist() == [9]


def test_one_row_is_decoded_at_a_time():
    class Lazy(HuggingFace):
        def __getitem__(self, key):
            assert key != "img", "a whole column of decoded images would fill the memory"
            return super().__getitem__(key)

    assert len(images_of_table(Lazy(img=[Image.new("L", (3, 3))] * 4)).read(np.array([2, 3]))) == 2


def test_fingerprints_follow_from_pixels():
    one, other = ([Image.new("L", (3, 3), value) for value in values] for values in ((1, 2), (1, 3)))
    prints = {images_of_table(HuggingFace(img=rows)).fingerprint for rows in (one, list(one), other)}
    assert len(prints) == 2


def test_mixed_sizes():
    store = images_of_table(HuggingFace(img=[Image.new("L", (3, 4)), Image.new("L", (6, 5))]))
    assert (store.sizes.tolist(), store.image_size) == ([[4, 3], [5, 6]], None)


def test_class_numbers_get_their_names():
    table = HuggingFace({"label": ClassLabel()}, img=[0] * 4, label=[1, -1, 0, 1])
    assert is_table(table)
    assert labels_of_table(table, label_column(table, None)) == ["dog", None, "cat", "dog"]
    assert label_column(HuggingFace(img=[], fine_label=[]), None) is None
    with pytest.raises(ValueError, match=r"column label, row 0: the label is 2: use 0\.\.1"):
        labels_of_table(HuggingFace({"label": ClassLabel()}, label=[2]), "label")


@pytest.mark.parametrize(
    "table,message",
    [
        (HuggingFace(pixels=[1]), "has the columns pixels: rename the column of images"),
        (HuggingFace(image=[]), "has no rows"),
    ],
)
def test_tables_without_images(table, message):
    with pytest.raises(ValueError, match=message):
        images_of_table(table)


@pytest.mark.parametrize("row", [b"no image", np.zeros((2, 2)), {"bytes": None, "path": None}, 3])
def test_rows_without_an_image_are_named(row):
    with pytest.raises(ValueError, match="image in row 0 cannot be read"):
        RowStore([row].__getitem__, 1).read(np.array([0]))
