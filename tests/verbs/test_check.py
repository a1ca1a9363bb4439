import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import tapetum
from tapetum.data.health import health
from tapetum.data.sources.open_source import open_source
from tapetum.ops.randomness import make_keys, uniform
from tapetum.verbs.check import check


def photograph(number, side=48):
    pixels = (uniform(make_keys("photograph", number), 6 * 6 * 3) * 255).reshape(6, 6, 3).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """24 sound images of 3 classes; what is wrong a test adds."""
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        save(tmp_path / "pets" / ("ape", "bat", "cow")[number % 3] / f"{number:02}.png", photograph(number))
    return tmp_path / "pets"


def names(found):
    return [[item["image"] for item in group] for group in found]


def test_a_sound_pool(pets, capsys):
    found = check("pets")
    assert found["findings"] == []
    assert found["classes"] == {"ape": 8, "bat": 8, "cow": 8}
    assert found["pool"] == {
        "images": 24,
        "labelled": 24,
        "unreadable": [],
        "sizes": {"48x48": 24},
        "modes": {"RGB": 24},
    }
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Pool: 24 images, 3 classes, from pets"
    assert said[-2:] == ["No problems found.", "Next: tapetum fit --images pets --output runs/first"]


def test_everything_that_can_be_wrong_is_found(pets, tmp_path, capsys):
    save(pets / "bat/again.bmp", photograph(1))  # other file, same pixels
    save(pets / "cow/small.jpg", photograph(0).resize((40, 40)))  # ape/00.png, smaller, in another class
    save(pets / "dog/1.png", photograph(90).convert("L"))
    (pets / "cow/broken.jpg").write_text("<html>")
    save(tmp_path / "test/ape/1.png", photograph(3))
    save(tmp_path / "test/bat/2.jpg", photograph(4), quality=60)
    save(tmp_path / "test/bat/3.png", photograph(91))
    (tmp_path / "test/bat/4.png").write_text("")
    found = check("pets", test="test", output="health")
    assert names(found["exact_duplicates"]) == [["bat/01.png", "bat/again.bmp"]]
    assert names(found["near_duplicates"]) == [["ape/00.png", "cow/small.jpg"]]
    assert names(found["label_conflicts"]) == [["ape/00.png", "cow/small.jpg"]]
    assert sorted(names(found["leakage"])) == [["ape/03.png", "test: ape/1.png"], ["bat/04.png", "test: bat/2.jpg"]]
    assert (found["leaked_test_images"], found["leaked_with_the_same_pixels"]) == (2, 1)
    assert found["classes_with_few_labels"] == {"dog": 1}
    assert found["pool"]["unreadable"][0]["image"] == "cow/broken.jpg"
    assert found["test"]["unreadable"][0]["image"] == "bat/4.png"
    assert found["pool"]["modes"] == {"RGB": 26, "L": 1}
    kinds = [finding.split(":")[0] for finding in found["findings"]]
    assert kinds == [
        "Leakage",
        "Label conflicts",
        "Unreadable",
        "Unreadable",
        "Exact duplicates",
        "Near duplicates",
        "Few labels",
    ]
    assert "2 of 4 test images are also in the pool (1 with identical pixels)" in found["findings"][0]
    assert "ape/00.png (ape) and cow/small.jpg (cow)" in found["findings"][1]
    assert "'dog' with 1" in found["findings"][-1]
    said = capsys.readouterr().out
    assert all(f"- {finding}" in said for finding in found["findings"])
    assert json.loads((tmp_path / "health/check.json").read_text()) == found


def test_the_page_shows_pictures_and_asks_nothing_of_the_network(pets, tmp_path):
    save(pets / "bat" / "<script>alert(1)</script>.png", photograph(1))
    check("pets", output="health")
    page = (tmp_path / "health/check.html").read_text()
    assert page.count("<img") == 2 + 3  # the duplicate's two, and a sheet for each class
    assert "<script" not in page
    assert "&lt;script&gt;" in page or "script&gt;" in page
    sources = re.findall(r"(?:src|href|url)[=(]\"?([^\"\s>)]*)", page)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert 'name="viewport"' in page
    assert all(alt for alt in re.findall(r'<img[^>]* alt="([^"]*)"', page))


def test_unlabelled_images_and_arrays(pets, tmp_path, capsys):
    found = check("pets", labels="none")
    assert (found["classes"], found["pool"]["labelled"]) == ({}, 0)
    assert "Next: tapetum fit --images pets --labels FILE --output" in capsys.readouterr().out
    images = np.stack([np.asarray(photograph(number, 20).convert("L")) for number in (1, 2, 1)])
    found = check(images, labels=["a", "b", "b"], test=images[1:2])
    assert names(found["label_conflicts"]) == [["0", "2"]]
    assert names(found["leakage"]) == [["1", "test: 0"]]
    assert found["pool"]["modes"] == {"L": 3}


def test_a_csv_may_label_a_few(pets, tmp_path):
    (tmp_path / "labels.csv").write_text("00.png,x\n01.png,y\n")
    found = check("pets", labels="labels.csv", output="health")
    assert found["classes"] == {"x": 1, "y": 1}
    assert "without a label (22)" in (tmp_path / "health/check.html").read_text()


def test_images_with_the_same_bytes_in_another_shape_are_no_copies(tmp_path):
    flat = np.full((6, 4, 3), 9, np.uint8)
    for name, pixels in (("1.png", flat), ("2.png", flat.reshape(4, 6, 3))):
        save(tmp_path / "plain" / name, Image.fromarray(pixels))
    assert check(tmp_path / "plain")["exact_duplicates"] == []


def test_simple_images_of_one_kind_are_not_called_copies():
    """Digits of 8x8 pixels, each of which looks like some others; one of the test's is in the pool."""
    images = (load_digits().images * 15).astype(np.uint8)
    found = check(images[:1300], test=images[1299:1400])
    assert names(found["leakage"]) == [["1299", "test: 0"]]
    assert found["near_duplicates"] == []
    assert found["lookalikes_per_image"] > 3
    assert [finding.split(":")[0] for finding in found["findings"]] == ["Leakage", "Near duplicates"]


def test_nothing_is_overwritten(pets, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/years.txt").write_text("of work")
    with pytest.raises(ValueError, match="thesis is not empty"):
        check("pets", output="thesis")


def test_a_pool_of_damaged_files_is_told(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_text("")
    found = check(tmp_path, output=tmp_path / "health")
    assert found["pool"]["sizes"] == {}
    assert found["findings"][0].startswith("Unreadable: 3 of 3 images, such as 0.jpg (cannot identify")


def test_it_is_public(pets):
    assert tapetum.check is check
    assert open_source(pets).labels is not None


def test_thumbnails_of_a_pool_are_not_copied(pets, monkeypatch):
    """For a million images they take 430 MB."""
    (pets / "ape" / "00.png").write_bytes(b"no image")  # so that numbers among the readable are not those of the pool
    save(pets / "bat" / "copy.png", photograph(23))
    seen, inspected = [], []
    compare, look = health.alike, check.__globals__["inspect"]
    monkeypatch.setattr(
        health, "alike", lambda pairs, thumbnails: seen.append(thumbnails) or compare(pairs, thumbnails)
    )
    monkeypatch.setitem(
        check.__globals__, "inspect", lambda *of, **how: inspected.append(look(*of, **how)) or inspected[-1]
    )
    found = check(pets)
    assert seen[0] is inspected[0].thumbnails
    assert [[one["image"] for one in group] for group in found["exact_duplicates"]] == [["bat/copy.png", "cow/23.png"]]
