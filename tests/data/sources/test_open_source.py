import gzip
import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits

from tapetum.data.images.stores import ArrayStore, FileStore
from tapetum.data.sources.open_source import open_source


def write_images(root, names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (i, i, i)).save(root / name)
    return root


def labels_by_name(source):
    values = source.labels.values
    return {n: source.labels.classes[v] if v >= 0 else None for n, v in zip(source.store.names, values, strict=True)}


def test_folder_of_class_folders(tmp_path):
    root = write_images(tmp_path / "pets", ["dog/b.JPG", "dog/a.png", "cat/x/c.webp", "loose.jpg"])
    for other in (".hidden.jpg", "dog/notes.txt", "__MACOSX/d.jpg", ".cache/e.jpg"):
        (root / other).parent.mkdir(exist_ok=True)
        (root / other).write_text("no image")
    source = open_source(root)
    assert isinstance(source.store, FileStore)
    assert labels_by_name(source) == {"cat/x/c.webp": "cat", "dog/a.png": "dog", "dog/b.JPG": "dog", "loose.jpg": None}
    assert source.description == "4 images, 2 classes, 3 labelled, from pets"
    assert open_source(root, labels="none").labels is None


def test_flat_folder_without_and_with_csv(tmp_path):
    root = write_images(tmp_path / "pool", ["1.jpg", "2.jpg", "3.jpg"])
    assert open_source(root).labels is None
    assert open_source(str(root)).description == "3 images, no labels, from pool"
    (tmp_path / "labels.csv").write_text("1.jpg,a\n3.jpg,b\n")
    assert labels_by_name(open_source(root, tmp_path / "labels.csv")) == {"1.jpg": "a", "2.jpg": None, "3.jpg": "b"}


def test_a_csv_overrules_folders(tmp_path):
    root = write_images(tmp_path, ["2023/1.jpg", "2024/1.jpg", "2024/2.jpg"])
    (tmp_path / "labels.csv").write_text(f"path,label\n{root}/2023/1.jpg,b\n2.jpg,a\n")
    labels = labels_by_name(open_source(root, root / "labels.csv"))
    assert labels == {"2023/1.jpg": "b", "2024/1.jpg": None, "2024/2.jpg": "a"}


@pytest.mark.parametrize(("train", "test_name"), [("train", "test"), ("train", "val"), ("Train", "TEST")])
def test_train_and_test_folders(tmp_path, train, test_name):
    write_images(tmp_path, [f"{train}/a/1.jpg", f"{train}/b/2.jpg", f"{test_name}/a/3.jpg", f"{test_name}/b/4.jpg"])
    assert list(open_source(tmp_path).store.names) == ["a/1.jpg", "b/2.jpg"]
    assert list(open_source(tmp_path, split="test").store.names) == ["a/3.jpg", "b/4.jpg"]


def test_a_class_may_be_called_train(tmp_path):
    write_images(tmp_path, ["train/1.jpg", "plane/1.jpg"])
    assert open_source(tmp_path).labels.classes == ("plane", "train")
    with pytest.raises(ValueError, match="has no test part"):
        open_source(tmp_path, split="test")


def test_folders_linked_in_a_circle(tmp_path):
    root = write_images(tmp_path / "pool", ["a/1.jpg", "b/2.jpg"])
    (root / "a" / "up").symlink_to(root)
    write_images(tmp_path / "elsewhere", ["3.jpg"])
    (root / "c").symlink_to(tmp_path / "elsewhere")
    assert list(open_source(root).store.names) == ["a/1.jpg", "b/2.jpg", "c/3.jpg"]


def cifar_batch(n, seed):
    data = (np.arange(n * 3072) * (seed + 1) % 256).astype(np.uint8).reshape(n, 3072)
    return {b"data": data, b"labels": [(i + seed) % 10 for i in range(n)], b"filenames": [b"x.png"] * n}


CIFAR_CLASSES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]


def test_cifar_10(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(cifar_batch(4, i), protocol=2))
    (folder / "test_batch").write_bytes(pickle.dumps(cifar_batch(3, 9), protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": CIFAR_CLASSES}, protocol=2))
    for path in (tmp_path, folder):
        train, test = open_source(path), open_source(path, split="test")
        assert train.description == "20 images of 32x32 pixels, 10 classes, from cifar-10-batches-py (train)"
        assert (len(test.store), test.labels.classes[6]) == (3, "frog")
        assert train.labels.values[:5].tolist() == [1, 2, 3, 4, 2]
        assert np.array_equal(train.store.read(np.array([4]))[0].numpy().ravel(), cifar_batch(4, 2)[b"data"][0])
    (folder / "data_batch_3").unlink()
    with pytest.raises(ValueError, match="data_batch_3"):
        open_source(tmp_path)
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((2, 7), np.uint8), b"labels": [0, 1]}))
    with pytest.raises(ValueError, match=r"test_batch lacks data \(N, 3072\)"):
        open_source(tmp_path, split="test")


def test_cifar_100(tmp_path):
    batch = cifar_batch(4, 0) | {b"fine_labels": [0, 1, 1, 2]}
    for name in ("train", "test"):
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"apple", b"baby", b"bear"]}, protocol=2))
    assert open_source(tmp_path, split="test").labels.counts.tolist() == [1, 2, 1]


def test_idx(tmp_path):
    images = np.arange(3 * 28 * 28).astype(np.uint8).reshape(3, 28, 28)
    for part in ("train", "t10k"):
        raw = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(raw))
        raw = struct.pack(">4BI", 0, 0, 8, 1, 3) + bytes([4, 0, 4])
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(raw))
    for split in ("train", "test"):
        source = open_source(tmp_path, split=split)
        assert (source.store.channels, source.store.image_size) == (1, (28, 28))
        assert np.array_equal(source.store.read(np.arange(3))[:, 0].numpy(), images)
        assert labels_by_name(source) == {"0": "4", "1": "0", "2": "4"}


def test_digits():
    source = open_source("digits")
    assert source.description == "1297 images of 8x8 pixels, 10 classes, from scikit-learn's digits (train)"
    pixels = source.store.read(np.arange(len(source.store)))
    assert (int(pixels.min()), int(pixels.max()), source.store.channels) == (0, 255, 1)


def test_the_parts_of_digits_make_the_whole():
    parts = [open_source("digits", split=split) for split in ("train", "test")]
    assert parts[1].labels.counts.tolist() == [50] * 10
    shown = [part.store.read(np.arange(len(part.store))).reshape(-1, 64).numpy() for part in parts]
    whole = np.rint(load_digits().data * (255 / 16))
    assert np.array_equal(np.unique(np.concatenate(shown), axis=0), np.unique(whole, axis=0))
    assert sum(map(len, shown)) == len(whole) == 1797


def test_a_folder_called_digits_is_reached_by_its_path(tmp_path, monkeypatch):
    write_images(tmp_path, ["digits/1.jpg"])
    monkeypatch.chdir(tmp_path)
    assert len(open_source("./digits").store) == 1


@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (6, 8, 8, 3), (6, 1, 8, 8), (6, 8, 8, 1), (6, 8, 8)])
def test_arrays_in_memory(shape):
    source = open_source(np.zeros(shape, np.uint8), ["a", "b", "", "a", "b", ""])
    assert isinstance(source.store, ArrayStore)
    assert source.store.image_size == (8, 8)
    assert source.labels.values.tolist() == [0, 1, -1, 0, 1, -1]
    assert open_source(np.zeros(shape, np.uint8)).labels is None


def test_array_files(tmp_path):
    images, values = np.zeros((4, 8, 8, 3), np.uint8), np.array([3, 5, -1, 3])
    np.savez(tmp_path / "a.npz", images=images, labels=values)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "y.npy", values)
    (tmp_path / "y.csv").write_text("0,3\n1,5\n3,3\n")
    assert open_source(tmp_path / "a.npy").labels is None
    for source in (
        open_source(tmp_path / "a.npz"),
        open_source(tmp_path / "a.npy", tmp_path / "y.npy"),
        open_source(tmp_path / "a.npy", tmp_path / "y.csv"),
    ):
        assert labels_by_name(source) == {"0": "3", "1": "5", "2": None, "3": "3"}
    assert open_source(tmp_path / "a.npz", "none").labels is None


def test_a_list_of_paths(tmp_path, monkeypatch):
    write_images(tmp_path / "pets", ["dog/b.JPG", "dog/a.png", "cat/c.webp", "cat/unlisted.png"])
    (tmp_path / "list.txt").write_text(f"pets/dog/b.JPG\n\n{tmp_path}/pets/cat/c.webp\n  pets/dog/a.png\n")
    expected = {"cat/c.webp": "cat", "dog/a.png": "dog", "dog/b.JPG": "dog"}
    source = open_source(tmp_path / "list.txt")
    assert labels_by_name(source) == expected
    assert source.store.root == tmp_path / "pets"
    monkeypatch.chdir(tmp_path)
    assert labels_by_name(open_source(["pets/dog/b.JPG", tmp_path / "pets/cat/c.webp", "pets/dog/a.png"])) == expected
    write_images(tmp_path / "named", ["ape/1.jpg", "bat/2.jpg"])
    joined = labels_by_name(open_source(tmp_path / "list.txt", tmp_path / "named"))
    assert sorted(filter(None, joined.values())) == ["ape", "bat"]
    assert len(joined) == 5
    with pytest.raises(ValueError, match="has no test part"):
        open_source(tmp_path / "list.txt", split="test")
    with pytest.raises(ValueError, match=r"image 1 of the list: there is no image .*typo\.jpg"):
        open_source(["pets/dog/b.JPG", "typo.jpg"])


def test_a_csv_of_images_and_labels(tmp_path):
    write_images(tmp_path / "pool", ["1.jpg", "2.jpg", "3.jpg"])
    (tmp_path / "list.csv").write_text("pool/2.jpg,b\npool/1.jpg,a\npool/3.jpg,\n")
    assert labels_by_name(open_source(tmp_path / "list.csv")) == {"2.jpg": "b", "1.jpg": "a", "3.jpg": None}
    (tmp_path / "few.txt").write_text("1.jpg\n2.jpg\n")
    assert open_source(tmp_path / "list.csv", tmp_path / "few.txt").labels.counts.tolist() == [1, 1]
    assert open_source(tmp_path / "list.csv", "none").labels is None


def test_endings_in_capitals(tmp_path):
    write_images(tmp_path / "pool", ["1.jpg", "2.jpg"])
    for name, text in {"LIST.CSV": "pool/2.jpg,b\npool/1.jpg,a\n", "LIST.TXT": "pool/1.jpg\npool/2.jpg\n"}.items():
        (tmp_path / name).write_text(text)
        assert sorted(open_source(tmp_path / name).store.names) == ["1.jpg", "2.jpg"]
    images = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    for name, values in {"IMAGES.NPY": images, "LABELS.NPY": np.array([0, 1, 0])}.items():
        with (tmp_path / name).open("wb") as file:
            np.save(file, values)
    assert open_source(tmp_path / "IMAGES.NPY", tmp_path / "LABELS.NPY").labels.counts.tolist() == [2, 1]
    with (tmp_path / "POOL.NPZ").open("wb") as file:
        np.savez(file, images=images, labels=np.array([0, 1, 1]))
    assert open_source(tmp_path / "POOL.NPZ").labels.counts.tolist() == [1, 2]


def test_lists_of_names_choose_among_the_rows_of_cifar(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(cifar_batch(4, i), protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": CIFAR_CLASSES}, protocol=2))
    (tmp_path / "spc.txt").write_text("0\n5\n19\n")
    labels = open_source(folder, tmp_path / "spc.txt").labels
    assert labels.labelled.tolist() == [0, 5, 19]
    assert [labels.classes[v] for v in labels.values[[0, 5, 19]]] == ["automobile", "cat", "ship"]


def test_svhn(tmp_path):
    images = np.arange(32 * 32 * 3 * 4).reshape(32, 32, 3, 4).astype(np.uint8)
    for split in ("train", "test"):
        content = {"X": images, "y": np.array([[10], [1], [9], [10]], np.uint8)}
        savemat(tmp_path / f"{split}_32x32.mat", content, do_compression=True)
    for source in (open_source(tmp_path, split="test"), open_source(tmp_path / "train_32x32.mat")):
        assert labels_by_name(source) == {"0": "0", "1": "1", "2": "9", "3": "0"}
        assert np.array_equal(source.store.read(np.array([2]))[0].numpy(), images[..., 2].transpose(2, 0, 1))
    for faulty in ({"a": images}, {"X": images[..., :3], "y": content["y"]}, {"X": images, "y": content["y"] + 1}):
        savemat(tmp_path / "train_32x32.mat", faulty)
        with pytest.raises(ValueError, match=r"train_32x32\.mat is not a file of SVHN"):
            open_source(tmp_path)


def test_dicts_of_arrays_and_tables():
    images, values = np.zeros((2, 8, 8), np.uint8), [4, 5]
    assert labels_by_name(open_source({"images": images, "labels": values})) == {"0": "4", "1": "5"}
    parts = {"x_train": images, "y_train": values, "x_test": images[:1], "y_test": values[:1]}
    assert len(open_source(parts, "none", "test").store) == 1
    tables = {"train": Frame(img=list(images), label=values)}
    assert labels_by_name(open_source(tables)) == {"0": "4", "1": "5"}
    with pytest.raises(ValueError, match="has no test part; it holds train"):
        open_source(tables, split="test")


class Frame:
    """As much of a data frame as is asked for."""

    def __init__(self, **columns):
        self._columns = columns
        self.columns = list(columns)

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name):
        return self._columns[name]


def test_a_data_frame_of_paths(tmp_path, monkeypatch):
    write_images(tmp_path, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    monkeypatch.chdir(tmp_path)
    frame = Frame(path=[f"{i}.jpg" for i in (3, 1, 2, 4)], kind=["x", "y", None, "x "], label=[1.0, 2.0, np.nan, -1])
    source = open_source(frame)
    assert isinstance(source.store, FileStore)
    assert labels_by_name(source) == {"3.jpg": "1", "1.jpg": "2", "2.jpg": None, "4.jpg": None}
    assert labels_by_name(open_source(frame, "kind")) == {"3.jpg": "x", "1.jpg": "y", "2.jpg": None, "4.jpg": "x"}
    assert open_source(frame, "none").labels is None
    (tmp_path / "labels.csv").write_text("1.jpg,p\n2.jpg,q\n")
    assert open_source(frame, "labels.csv").labels.classes == ("p", "q")
    with pytest.raises(ValueError, match="no such column, only path, kind, label"):
        open_source(frame, "species")
    with pytest.raises(ValueError, match=r"column label, row 1: the label is 1\.5"):
        open_source(Frame(path=["1.jpg", "2.jpg"], label=[1, 1.5]))


@pytest.mark.parametrize(
    "images,message",
    [
        (np.zeros((2, 8, 8), np.float32), "float32 of shape"),
        (np.zeros((2, 8), np.uint8), r"shape \(2, 8\)"),
        (np.zeros((0, 8, 8), np.uint8), r"shape \(0, 8, 8\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), "channels, 1 or 3"),
    ],
)
def test_faulty_arrays(images, message):
    with pytest.raises(ValueError, match=message):
        open_source(images)


def test_faulty_places(tmp_path):
    with pytest.raises(ValueError, match="there is nothing at"):
        open_source(tmp_path / "typo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images in .*empty"):
        open_source(tmp_path / "empty")
    (tmp_path / "a.rar").touch()
    with pytest.raises(ValueError, match=r"a\.rar is a file"):
        open_source(tmp_path / "a.rar")
    write_images(tmp_path / "one", ["cat/1.jpg", "cat/2.jpg"])
    with pytest.raises(ValueError, match=r"only the class 'cat'.*one folder per class.*'none'"):
        open_source(tmp_path / "one")
    with pytest.raises(ValueError, match="no labels file"):
        open_source(tmp_path / "one", tmp_path / "typo.csv")
    with pytest.raises(ValueError, match="choose 'train' or 'test'"):
        open_source(tmp_path / "one", split="val")
