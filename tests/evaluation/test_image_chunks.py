"""Images on their way to the network: every size and mode, in order, in bounded memory, damaged ones named."""

import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.data.images.stores import ArrayStore, FileStore
from tapetum.data.views.apply import evaluation_view
from tapetum.data.views.draw import EvaluationViewConfig
from tapetum.evaluation import image_chunks as reading
from tapetum.evaluation.image_chunks import in_batches, read_chunks

VIEW = EvaluationViewConfig(crop=8, resize=10)


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    for i, (size, mode) in enumerate([((12, 20), "RGB"), ((9, 9), "L"), ((40, 10), "RGBA"), ((10, 10), "P")] * 3):
        bands = {"RGB": 3, "RGBA": 4}.get(mode)
        shape = size[::-1] if bands is None else (*size[::-1], bands)
        Image.fromarray(generator.integers(0, 256, shape).astype(np.uint8), None).convert(mode).save(
            tmp_path / f"{i:02}.png"
        )
    return FileStore(tmp_path, [f"{i:02}.png" for i in range(12)])


def joined(store, indices, view=VIEW, channels=3, size=5):
    chunks = list(read_chunks(store, in_batches(np.array(indices), size), view, channels))
    pixels = torch.cat([chunk.pixels for chunk in chunks])
    unreadable = {i: text for chunk in chunks for i, text in chunk.unreadable.items()}
    return np.concatenate([chunk.indices for chunk in chunks]).tolist(), pixels, unreadable


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("held", [0, 10**9])
def test_each_image_is_its_evaluation_view_in_the_order_asked_for(files, monkeypatch, size, held):
    monkeypatch.setattr(reading, "_VALUES_HELD", held)
    order = [7, 0, 3, 3, 11, 2]
    indices, pixels, unreadable = joined(files, order, size=size)
    assert (indices, unreadable) == (order, {})
    for index, row in zip(order, pixels, strict=True):
        assert torch.equal(row, evaluation_view(files.read(np.array([index])), VIEW)[0])


def test_damaged_images_are_named_and_the_others_read(files):
    (files.root / "04.png").write_bytes(b"no picture")
    (files.root / "07.png").unlink()
    indices, pixels, unreadable = joined(files, range(12))
    assert indices == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]
    assert len(pixels) == 10
    assert unreadable.keys() == {4, 7}
    assert "04.png cannot be read" in unreadable[4]
    assert "07.png does not exist" in unreadable[7]
    assert joined(files, [4, 7])[1].shape == (0, 3, 8, 8)


def test_an_image_smaller_than_the_crop_is_named(files):
    indices, _, unreadable = joined(files, range(4), EvaluationViewConfig(crop=10))
    assert indices == [0, 2, 3]
    assert "01.png has 9x9 pixels, less than views.evaluation.crop (10)" in unreadable[1]


def test_channels_become_those_of_the_network(files):
    grey = joined(files, [0, 1], channels=1)[1]
    assert grey.shape == (2, 1, 8, 8)
    colour = evaluation_view([image.float().mean(0, keepdim=True).to(torch.uint8) for image in files.read([1])], VIEW)
    assert torch.equal(grey[1], colour[0])  # grey already: luminance keeps it
    arrays = ArrayStore(np.arange(200, dtype=np.uint8).reshape(2, 1, 10, 10))
    one, three = joined(arrays, [1, 0], channels=1)[1], joined(arrays, [1, 0], channels=3)[1]
    assert torch.equal(three, one.expand(2, 3, 8, 8))


def test_luminance_is_pillows():
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    store = ArrayStore(pixels.transpose(2, 0, 1)[None].copy())
    ours = joined(store, [0], EvaluationViewConfig(crop=8), channels=1)[1][0, 0].int()
    theirs = torch.from_numpy(np.asarray(Image.fromarray(pixels).convert("L"))).int()
    assert int((ours - theirs).abs().max()) <= 1


def test_a_reader_that_stops_early_leaves_no_thread_reading(files, monkeypatch):
    read: list[int] = []
    whole = FileStore.read
    monkeypatch.setattr(FileStore, "read", lambda self, rows: read.append(int(rows[0])) or whole(self, rows))
    chunks = read_chunks(files, in_batches(np.arange(12), 1), VIEW, 3)
    next(chunks)
    chunks.close()
    assert len(read) <= 4
