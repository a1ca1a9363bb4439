import numpy as np
from PIL import Image

from tapetum import opening
from tapetum.data.pipeline import DataConfig
from tapetum.trained_run import open_new_images


def test_only_long_jobs_are_told_of(monkeypatch):
    clock, said = [0.0], []
    monkeypatch.setattr(opening.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(opening, "notify", said.append)

    def job(seconds):
        said.clear()
        report = opening.telling("decoded")
        for done in range(1, 2049):
            clock[0] += seconds / 2048  # exact
            report(done, 2048)
        return [line.split(" of ")[0] for line in said]

    assert job(4) == []
    assert job(6) == ["decoded 1,707", "decoded 2,048"]
    assert job(20) == ["decoded 512", "decoded 1,024", "decoded 1,536", "decoded 2,048"]
    assert said[-1] == "decoded 2,048 of 2,048 images, once for this and later runs"


def test_what_a_run_looks_at_is_shrunk_as_its_recipe_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    for name in ("ash", "birch"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((20 + number, 30, 3), 40 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    photos = tmp_path / "photos"
    whole, small = (opening.open_pool(DataConfig(images=str(photos), shrink_to=to)) for to in (None, 12))
    assert whole.store.sizes.min() == 20
    assert whole.fingerprint["data"] != small.fingerprint["data"]
    stores = [small.store, opening.open_test(photos, ("ash", "birch"), shrink_to=12)[0], open_new_images(photos, 12)]
    stores.append(opening.open_pool(DataConfig(images=str(photos), shrink_to=12), decode=False).store)
    for store in stores:
        assert store.sizes.min(axis=1).tolist() == [12] * 6
        assert [image.shape[1:] for image in store.read(np.arange(6))] == [tuple(size) for size in store.sizes]
