import pytest
from PIL import Image

from tapetum.data.sources.folders import refuse_among
from tapetum.data.sources.open_source import open_source


def write_images(root, names, level=0):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        # Sizes differ, so that different images have different numbers of bytes.
        Image.new("RGB", (4 + i, 4), (level, i, i)).save(root / name, format="BMP")


def labels_by_name(source):
    values = source.labels.values
    return {n: source.labels.classes[v] if v >= 0 else None for n, v in zip(source.store.names, values, strict=True)}


def test_a_folder_beside_the_images_joins_the_pool(tmp_path):
    write_images(tmp_path / "all", ["1.bmp", "2.bmp"])
    write_images(tmp_path / "labelled", ["cat/x.bmp", "dog/y.bmp"])
    source = open_source(tmp_path / "all", tmp_path / "labelled")
    assert labels_by_name(source) == {
        "../labelled/cat/x.bmp": "cat",
        "../labelled/dog/y.bmp": "dog",
        "1.bmp": None,
        "2.bmp": None,
    }
    assert source.description == "4 images, 2 classes, 2 labelled, from all"
    assert len(source.store.read([0, 3])) == 2


def test_copies_of_labelled_images_count_once(tmp_path):
    names = ["1.bmp", "2.bmp", "3.bmp", "cat/4.bmp", "5.bmp"]
    write_images(tmp_path / "all", names)
    for there, here in (("cat/1.bmp", names[0]), ("dog/2.bmp", names[1]), ("cat/4.bmp", names[3])):
        (tmp_path / "labelled" / there).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labelled" / there).write_bytes((tmp_path / "all" / here).read_bytes())
    write_images(tmp_path / "labelled" / "dog", ["5.bmp"])  # of another size: another image of the same name
    assert labels_by_name(open_source(tmp_path / "all", tmp_path / "labelled")) == {
        "../labelled/cat/1.bmp": "cat",
        "../labelled/cat/4.bmp": "cat",
        "../labelled/dog/2.bmp": "dog",
        "../labelled/dog/5.bmp": "dog",
        "3.bmp": None,
        "5.bmp": None,
    }


def test_other_pictures_of_one_name_and_size_are_no_copies(tmp_path):
    write_images(tmp_path / "all", ["1.bmp", "2.bmp"])
    write_images(tmp_path / "labelled", ["cat/1.bmp", "dog/2.bmp"], level=9)
    assert len(open_source(tmp_path / "all", tmp_path / "labelled").store) == 4
    pixels = Image.new("RGB", (200, 200))
    for number, folder in enumerate(("all", "labelled/cat")):
        pixels.putpixel(
            (9, 60), (number, 0, 0)
        )  # neither in the first bytes of the file, nor in its middle or last ones
        pixels.save(tmp_path / folder / "large.bmp")
    assert len(open_source(tmp_path / "all", tmp_path / "labelled").store) == 6


def test_bare_names_that_are_not_unique_are_no_copies(tmp_path):
    write_images(tmp_path / "all", ["1.bmp"])
    for name in ("cat", "dog"):
        write_images(tmp_path / "labelled" / name, ["1.bmp"])
    assert len(open_source(tmp_path / "all", tmp_path / "labelled").store) == 3


def test_a_folder_inside_the_images(tmp_path):
    write_images(tmp_path, ["1.bmp", "labelled/cat/2.bmp", "labelled/dog/3.bmp", "other/4.bmp"])
    assert labels_by_name(open_source(tmp_path, tmp_path / "labelled")) == {
        "1.bmp": None,
        "labelled/cat/2.bmp": "cat",
        "labelled/dog/3.bmp": "dog",
        "other/4.bmp": None,
    }


def test_the_images_inside_the_labelled_folder_are_no_class(tmp_path):
    write_images(tmp_path, ["cat/1.bmp", "dog/2.bmp", "more/3.bmp", "more/x/4.bmp"])
    assert labels_by_name(open_source(tmp_path / "more", tmp_path)) == {
        "../cat/1.bmp": "cat",
        "../dog/2.bmp": "dog",
        "3.bmp": None,
        "x/4.bmp": None,
    }


@pytest.mark.parametrize("labels", ["", "train"])
def test_the_folder_of_all_images_again(tmp_path, labels):
    write_images(tmp_path, ["train/cat/1.bmp", "train/dog/2.bmp", "test/cat/3.bmp", "test/dog/4.bmp"])
    source = open_source(tmp_path, tmp_path / labels)
    assert labels_by_name(source) == {"cat/1.bmp": "cat", "dog/2.bmp": "dog"}


def test_links_are_followed(tmp_path):
    write_images(tmp_path / "far" / "all", ["1.bmp"])
    write_images(tmp_path / "labelled", ["cat/x.bmp", "dog/y.bmp"])
    (tmp_path / "all").symlink_to(tmp_path / "far" / "all")
    source = open_source(tmp_path / "all", tmp_path / "labelled")
    assert len(source.store.read([0, 1, 2])) == 3


def test_pictures_that_a_run_draws_of_itself_do_not_join_its_images(tmp_path):
    write_images(tmp_path / "all", ["1.bmp", "runs/first/plots/loss.bmp", "runs/2.bmp"])
    (tmp_path / "all/runs/first/checkpoints").mkdir()
    (tmp_path / "all/runs/first/recipe.yaml").touch()
    assert open_source(tmp_path / "all", "none").store.names == ("1.bmp", "runs/2.bmp")
    for place in ("all/sheet.png", "all/runs/sheet.png"):
        with pytest.raises(
            ValueError, match=r"^\S*sheet.png lies among the images of .*: give an --output elsewhere\.$"
        ):
            refuse_among(tmp_path / place, tmp_path / "all")
    for place in ("sheet.png", "all/.mine/sheet.png", "all/runs/first/sheets/1.png"):
        refuse_among(tmp_path / place, str(tmp_path / "all"))
    refuse_among(tmp_path / "all/sheet.png", "digits")


def test_mistakes(tmp_path):
    write_images(tmp_path / "all", ["1.bmp"])
    write_images(tmp_path / "flat", ["1.bmp"])
    write_images(tmp_path / "one" / "cat", ["1.bmp"])
    with pytest.raises(ValueError, match="flat has no class folders: give a folder with one folder of images per"):
        open_source(tmp_path / "all", tmp_path / "flat")
    with pytest.raises(ValueError, match="one has only the class folder 'cat'"):
        open_source(tmp_path / "all", tmp_path / "one")
    with pytest.raises(ValueError, match="the images are not files"):
        open_source("digits", tmp_path / "one")
