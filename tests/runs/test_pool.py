import numpy as np
from PIL import Image

from tapetum.data.batches.data_config import DataConfig
from tapetum.runs.new_images import open_new_images
from tapetum.runs.pool import open_pool
from tapetum.runs.test_set import open_test


def test_what_a_run_looks_at_is_shrunk_as_its_recipe_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    for name in ("ash", "birch"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((20 + number, 30, 3), 40 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    photos = tmp_path / "photos"
    whole, small = (open_pool(DataConfig(images=str(photos), shrink_to=to)) for to in (None, 12))
    assert whole.store.sizes.min() == 20
    assert whole.fingerprint["data"] != small.fingerprint["data"]
    stores = [small.store, open_test(photos, ("ash", "birch"), shrink_to=12)[0], open_new_images(photos, 12)]
    stores.append(open_pool(DataConfig(images=str(photos), shrink_to=12), decode=False).store)
    for store in stores:
        assert store.sizes.min(axis=1).tolist() == [12] * 6
        assert [image.shape[1:] for image in store.read(np.arange(6))] == [tuple(size) for size in store.sizes]


def test_images_of_none_of_the_classes_leave_the_pool(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "labels.csv").write_text("0.png,ash\n1.png,birch\n4.png,none of these\n")
    config = DataConfig(images=str(tmp_path / "photos"), labels=str(tmp_path / "labels.csv"))
    found = open_pool(config)
    assert found.pool.tolist() == [0, 1, 2, 3, 5]
    (tmp_path / "labels.csv").write_text("0.png,ash\n1.png,birch\n")
    before = open_pool(config).fingerprint
    assert {name for name in before if before[name] != found.fingerprint[name]} == {"pool"}
