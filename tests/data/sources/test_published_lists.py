"""Labelled subsets in the forms in which they are published, given as labels."""

import pickle

import numpy as np
import pytest
from PIL import Image

from tapetum.data.sources.open_source import open_source

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar(tmp_path):
    """Five batches of four images; image i has the class (7 * i) % 10."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for batch in range(5):
        labels = [7 * i % 10 for i in range(4 * batch, 4 * batch + 4)]
        content = {b"data": np.zeros((4, 3072), np.uint8), b"labels": labels, b"filenames": [b"x.png"] * 4}
        (folder / f"data_batch_{batch + 1}").write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [c.encode() for c in CLASSES]}, protocol=2))
    return folder


def write_images(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(root / name)
    return root


def kept(source):
    values = source.labels.values
    return {source.store.names[i]: source.labels.classes[values[i]] for i in source.labels.labelled}


def test_indices_for_cifar_count_over_its_batches_in_order(cifar, tmp_path):
    expected = {str(i): CLASSES[7 * i % 10] for i in (3, 4, 17)}
    (tmp_path / "spc.4000_split.152.txt").write_text("17\n3\n4\n")
    np.save(tmp_path / "random_idx.npy", np.array([17, 3, 4]))
    for name in ("spc.4000_split.152.txt", "random_idx.npy"):
        source = open_source(cifar, tmp_path / name)
        assert kept(source) == expected
        assert source.labels.classes == tuple(CLASSES)
        assert source.description.startswith("20 images of 32x32 pixels, 10 classes, 3 labelled")


@pytest.mark.parametrize(
    "indices,message",
    [
        ([3, 20], "20 .*out of range"),
        ([0, 10], "class 'airplane' only"),
    ],
)
def test_faulty_indices_for_cifar(cifar, tmp_path, indices, message):
    np.save(tmp_path / "few.npy", indices)
    (tmp_path / "few.txt").write_text("\n".join(map(str, indices)))
    for name in ("few.npy", "few.txt"):
        with pytest.raises(ValueError, match=rf"{name}.*({message})"):
            open_source(cifar, tmp_path / name)


def test_indices_may_be_drawn_with_replacement(cifar, tmp_path):
    """The published random_idx.npy holds 4,000 indices, 3,856 of them distinct."""
    drawn = np.append(np.arange(12), 3)
    np.save(tmp_path / "random_idx.npy", drawn)
    assert open_source(cifar, tmp_path / "random_idx.npy").labels.labelled.tolist() == list(range(12))
    np.save(tmp_path / "classes.npy", drawn % 6)
    with pytest.raises(ValueError, match=r"classes\.npy: .* numpy\.unique keeps one of each"):
        open_source(cifar, tmp_path / "classes.npy")


def test_names_of_imagenet_are_found_in_its_class_folders(tmp_path):
    names = [f"{wnid}/{wnid}_{i}.JPEG" for wnid in ("n01440764", "n01443537", "n02119789") for i in (18, 10026, 293)]
    write_images(tmp_path / "imagenet" / "train", names)
    write_images(tmp_path / "imagenet" / "val", ["n01440764/ILSVRC2012_val_1.JPEG", "n01443537/ILSVRC2012_val_2.JPEG"])
    path = tmp_path / "90percent.txt"
    path.write_text("n02119789_18.JPEG\nn01440764_10026.JPEG\nn01440764_18.JPEG\n")
    source = open_source(tmp_path / "imagenet", path)
    assert len(source.store) == 9
    assert source.labels.classes == ("n01440764", "n01443537", "n02119789")
    assert kept(source) == {
        "n01440764/n01440764_10026.JPEG": "n01440764",
        "n01440764/n01440764_18.JPEG": "n01440764",
        "n02119789/n02119789_18.JPEG": "n02119789",
    }
    path.write_text("n02119789_18.JPEG\nn01440764_7.JPEG\n")
    with pytest.raises(ValueError, match=r"90percent\.txt, line 2: there is no image 'n01440764_7\.JPEG'"):
        open_source(tmp_path / "imagenet", path)


def test_indices_for_files_count_in_the_order_of_the_pool(tmp_path):
    """Sorted paths below a folder, but the lines of a list."""
    write_images(tmp_path / "pool", ["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"])
    (tmp_path / "list.txt").write_text("pool/dog/d.png\npool/cat/b.png\npool/dog/c.png\npool/cat/a.png\n")
    (tmp_path / "few.txt").write_text("0\n3\n")
    np.save(tmp_path / "few.npy", [0, 3])
    for name in ("few.txt", "few.npy"):
        assert kept(open_source(tmp_path / "pool", tmp_path / name)) == {"cat/a.png": "cat", "dog/d.png": "dog"}
        assert kept(open_source(tmp_path / "list.txt", tmp_path / name)) == {"dog/d.png": "dog", "cat/a.png": "cat"}
    np.save(tmp_path / "few.npy", [0, 1, 2])
    assert kept(open_source(tmp_path / "list.txt", tmp_path / "few.npy")) == {
        "dog/d.png": "dog",
        "cat/b.png": "cat",
        "dog/c.png": "dog",
    }


def test_images_without_own_labels_have_none_to_keep(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((5, 4, 4), np.uint8))
    write_images(tmp_path / "flat", ["a.png", "b.png", "c.png"])
    np.save(tmp_path / "few.npy", [0, 1])
    (tmp_path / "few.txt").write_text("0\n1\n")
    for images in ("images.npy", "flat"):
        for name in ("few.npy", "few.txt"):
            with pytest.raises(ValueError, match="images have no labels of their own"):
                open_source(tmp_path / images, tmp_path / name)
