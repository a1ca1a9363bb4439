"""What examples/detection reads and draws, and how it measures."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pycocotools", reason="measures detections: pip install 'tapetum[detection]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, detection):
    folder = tmp_path_factory.mktemp("shapes")
    detection("shapes").make_shapes(folder, train=6, test=5)
    return folder


@pytest.fixture
def drawn(detection, folder):
    """The test part of the drawn set."""
    return detection("coco").read_coco(folder / "test", folder / "test.json")


def as_found(picture, **changes):
    scores = torch.linspace(0.9, 0.5, len(picture.boxes))
    return {"boxes": picture.boxes, "labels": picture.labels, "scores": scores, **changes}


def test_exact_boxes_have_all_the_precision_and_none_has_none(detection, drawn):
    average_precision = detection("coco").average_precision
    perfect = [(picture.id, as_found(picture)) for picture in drawn.pictures]
    assert average_precision(drawn, perfect) == {"AP": 100.0, "AP50": 100.0, "AP75": 100.0}
    assert average_precision(drawn, []) == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    wrong = [(p.id, as_found(p, labels=(p.labels + 1) % 3)) for p in drawn.pictures]
    assert average_precision(drawn, wrong)["AP"] < 20.0


def test_boxes_that_are_too_narrow_count_up_to_their_overlap(detection, drawn):
    """Four fifths of the width: an overlap of 0.8, which counts up to the threshold 0.8."""
    narrow = torch.tensor([1.0, 1.0, 0.8, 1.0])
    found = []
    for picture in drawn.pictures:
        corner = picture.boxes[:, [0, 1, 0, 1]]
        found.append((picture.id, as_found(picture, boxes=corner + (picture.boxes - corner) * narrow)))
    figures = detection("coco").average_precision(drawn, found)
    assert figures["AP50"] == figures["AP75"] == 100.0
    assert 60.0 <= figures["AP"] <= 70.0  # six or seven of ten thresholds


def test_classes_follow_the_order_of_category_ids_which_may_have_gaps(detection, folder, tmp_path):
    content = json.loads((folder / "test.json").read_text())
    far = {1: 90, 2: 7, 3: 44}
    for category in content["categories"]:
        category["id"] = far[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = far[annotation["category_id"]]
    (tmp_path / "far.json").write_text(json.dumps(content))
    coco = detection("coco").read_coco(folder / "test", tmp_path / "far.json")
    assert coco.categories == (7, 44, 90)
    assert coco.names == ("square", "triangle", "disc")
    found = [(picture.id, as_found(picture)) for picture in coco.pictures]
    assert detection("coco").average_precision(coco, found)["AP"] == 100.0


def test_crowds_and_boxes_without_area_are_not_trained_on(detection, folder, tmp_path):
    content = json.loads((folder / "test.json").read_text())
    first, *others = content["annotations"]
    crowd, flat = {**first, "id": 900, "iscrowd": 1}, {**first, "id": 901, "bbox": [3, 3, 0, 5]}
    (tmp_path / "more.json").write_text(json.dumps({**content, "annotations": [crowd, flat, *others]}))
    coco = detection("coco").read_coco(folder / "test", tmp_path / "more.json")
    assert sum(len(picture.boxes) for picture in coco.pictures) == len(others)
    (tmp_path / "none.json").write_text(json.dumps({**content, "annotations": [crowd]}))
    with pytest.raises(ValueError, match="has no box to train on"):
        _ = detection("coco").read_coco(folder / "test", tmp_path / "none.json").with_boxes


@pytest.mark.parametrize("change, complaint", [
    ("{", "is no JSON"),
    ("[]", "lacks images, annotations, categories"),
    ('{"images": [], "annotations": []}', "lacks categories"),
    ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "has an entry of images without file_name"),
    ('{"images": [{"id": 1, "file_name": "x.png"}], "annotations": [], "categories": []}', "names x.png, which is not"),
])  # fmt: skip
def test_files_that_are_not_cocos_are_refused(detection, folder, tmp_path, change, complaint):
    (tmp_path / "bad.json").write_text(change)
    with pytest.raises(ValueError, match=complaint):
        detection("coco").read_coco(folder / "test", tmp_path / "bad.json")


def test_examples_are_a_function_of_seed_and_number(detection, drawn):
    coco, recipe = detection("coco"), detection("recipe")
    config = recipe.DataConfig(train_images="", train_annotations="", test_images="", test_annotations="")
    one, other = (coco.Examples(drawn.pictures, config, seed=3) for _ in range(2))
    for number in (7, 2, 12):  # in any order
        assert torch.equal(one[number][0], other[number][0])
    whole = sorted(picture.boxes.sum().item() for picture in drawn.pictures)
    plain = coco.Examples(drawn.pictures, dataclasses.replace(config, flip=0.0), seed=3)
    for epoch in (0, 1):  # each image once in an epoch
        numbers = range(5 * epoch, 5 * epoch + 5)
        assert sorted(plain[n][1]["boxes"].sum().item() for n in numbers) == pytest.approx(whole)


def test_boxes_are_mirrored_and_cropped_with_their_image(detection, tmp_path):
    """The box is that of the white pixels, before and after."""
    coco, recipe = detection("coco"), detection("recipe")
    pixels = np.zeros((450, 700, 3), dtype=np.uint8)
    pixels[200:260, 300:420] = 255
    Image.fromarray(pixels).save(tmp_path / "white.png")
    picture = coco.Picture(1, tmp_path / "white.png", torch.tensor([[300.0, 200.0, 420.0, 260.0]]), torch.tensor([0]))
    config = recipe.DataConfig(
        train_images="", train_annotations="", test_images="", test_annotations="", flip=0.5, crop=0.8
    )
    examples = coco.Examples([picture], config, seed=0)
    shapes = set()
    for number in range(30):
        image, target = examples[number]
        shapes.add(tuple(image.shape[1:]))
        white = image[0] == 255
        if not len(target["boxes"]):
            assert not white.any()
            continue
        rows, columns = white.any(1).nonzero().flatten(), white.any(0).nonzero().flatten()
        exact = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert target["boxes"][0].tolist() == [float(edge) for edge in exact]
    assert len(shapes) > 10
    assert (450, 700) in shapes


def test_drawn_shapes_have_their_boxes_and_the_same_seed_gives_the_same_files(detection, folder, tmp_path):
    shapes = detection("shapes")
    shapes.make_shapes(tmp_path / "again", train=6, test=5)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(names) == 6 + 5 + 2
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    draws = np.random.default_rng(0)
    for _ in range(20):
        pixels, (shape,) = shapes.draw_image(draws, [], most=1)
        x, y, width, height = shape["bbox"]
        assert 0 <= x < x + width <= pixels.shape[1] <= 128
        assert 0 <= y < y + height <= pixels.shape[0] <= 128
        colour = pixels[y + height // 2, x + width // 2]
        rows, columns = np.nonzero((pixels == colour).all(2))
        inside = (rows >= y) & (rows < y + height) & (columns >= x) & (columns < x + width)
        assert inside.sum() >= shape["area"] > 0.4 * width * height  # a triangle covers half of its box
        assert {rows[inside].min(), rows[inside].max()} == {y, y + height - 1}
        assert {columns[inside].min(), columns[inside].max()} == {x, x + width - 1}


def test_photographs_are_cut_for_backgrounds(detection, tmp_path):
    Image.new("RGB", (200, 150), (10, 20, 30)).save(tmp_path / "one.png")
    pixels, _ = detection("shapes").draw_image(np.random.default_rng(1), [tmp_path / "one.png"])
    assert ((pixels == [10, 20, 30]).all(2)).mean() > 0.3
    with pytest.raises(ValueError, match="holds no photograph"):
        detection("shapes").make_shapes(tmp_path / "set", backgrounds=tmp_path / "empty")
    with pytest.raises(ValueError, match="train is 0: draw at least one"):
        detection("shapes").make_shapes(tmp_path / "set", train=0)
