"""Whatever a label file, a list or a folder holds, it is read or refused with a ValueError that says what is wrong."""

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tapetum.data.health.unreadable import readable
from tapetum.data.sources.open_source import open_source
from tapetum.verbs.check import check

NAMES = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png", "loose.png")
QUICK = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed") / "pool"
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 5), (number, 9, 9)).save(root / name)
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))


def result_or_refused(function, *arguments, **keywords):
    """What a function returns, or None where a ValueError refuses the input; anything else fails the test."""
    try:
        return function(*arguments, **keywords)
    except UnicodeError:  # a ValueError, too, but one that nobody wrote for people
        raise
    except ValueError:
        return None


def sound(source):
    if source is not None and source.labels is not None:
        assert len(source.labels.names) == len(source.store)
        assert source.labels.num_classes >= 2
        assert source.labels.fingerprint


# Mostly what such files are made of, so that many examples get past the first line.
paths = st.one_of(
    st.sampled_from((*NAMES, "1.png", "./dog/1.png", "../pool/cat/1.png", "nowhere.png")), st.text(max_size=9)
)
labels = st.one_of(st.sampled_from(("cat", "dog", "", "7", "-1", "é", "a,b", '"')), st.text(max_size=6))
lines = st.builds(
    lambda fields, comma: comma.join(fields), st.lists(st.one_of(paths, labels), max_size=3), st.sampled_from(",,,; \t")
)
texts = st.builds(
    lambda some, end: end.join(some), st.lists(lines, max_size=6), st.sampled_from(("\n", "\n\n", "\r\n", "\r"))
)


@QUICK
@given(st.sampled_from((".csv", ".txt", ".json", ".CSV", "")), st.one_of(texts.map(str.encode), st.binary(max_size=60)))
@example(".csv", b"path,label\n\0,x\n")
@example(".csv", b"a" * 5000 + b",x\n")
@example(".csv", b'"' + b"a" * 200_000)
@example(".json", b"[" * 50_000)
@example(".txt", b"\xef\xbb\xbf\n")
def test_label_files_of_any_text(pool, suffix, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"labels{suffix}")
        path.write_bytes(content)
        sound(result_or_refused(open_source, pool, path))


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), paths, labels),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(paths, st.sampled_from(("path", "label"))), inner, max_size=4),
    ),
    max_leaves=8,
)
entries = st.lists(
    st.one_of(st.tuples(paths, labels), st.fixed_dictionaries({"path": paths, "label": labels})), max_size=5
)


@QUICK
@given(st.one_of(values, entries, st.dictionaries(paths, st.one_of(labels, st.integers(), st.none()))))
def test_json_of_any_shape(pool, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "labels.json")
        path.write_text(json.dumps(content))
        sound(result_or_refused(open_source, pool, path))


@QUICK
@given(st.sampled_from((".csv", ".txt")), texts)
@example(".csv", "cat/1.png,a\ndog/1.png,b\nloose.png,\n")
@example(".txt", "\0\n")
def test_lists_of_images(pool, suffix, content):
    path = pool.parent / "pool" / f"list{suffix}"
    path.write_text(content)
    try:
        sound(result_or_refused(open_source, path))
    finally:
        path.unlink()


@QUICK
@given(
    st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)), max_size=6),
    st.sampled_from((None, "int8", "uint64", "float16", "complex64", "datetime64[s]", "object", "U", "S")),
)
def test_arrays_of_labels(given_labels, kind):
    with contextlib.suppress(ValueError, TypeError, OverflowError), np.errstate(all="ignore"):  # of making the array
        given_labels = np.array(given_labels, dtype=kind)
    sound(result_or_refused(open_source, np.zeros((5, 4, 4), np.uint8), given_labels))


def png(side=6):
    content = io.BytesIO()
    Image.fromarray(np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)).save(content, "PNG")
    return content.getvalue()


# Any name that a file system takes, such as one in another encoding.
names = st.binary(min_size=1, max_size=8).map(lambda raw: os.fsdecode(raw.replace(b"/", b"-").replace(b"\0", b"-")))
parts = st.one_of(
    st.sampled_from(("cat", "dog", "train", "test", "a b", "ü")), names.filter(lambda n: n not in (".", ".."))
)
contents = st.one_of(
    st.sampled_from((png(), png(9), png()[:-30], png()[:20], b"", b"<html>", b"GIF89a", b"\xff\xd8\xff\xe0", b"II*\0")),
    st.binary(max_size=40),
)
files = st.lists(
    st.tuples(st.lists(parts, max_size=2), parts, st.sampled_from((".png", ".JPG", ".tif", ".txt", "")), contents),
    max_size=7,
)


def write(root, tree):
    for folders, name, suffix, content in tree:
        path = root.joinpath(*folders, name + suffix)
        with contextlib.suppress(OSError):  # a file where a folder would have to be, or a name that is too long
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@settings(QUICK, max_examples=100)
@given(files, st.sampled_from((None, "none")))
def test_folders_of_any_files(tree, labels):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, tree)
        for split in ("train", "test"):
            source = result_or_refused(open_source, root, labels, split)
            sound(source)
            found = source and result_or_refused(readable, source)
            if found is not None:
                kept, unreadable = found
                assert len(kept.store) + len(unreadable) == len(source.store)
                assert len(kept.store.read(np.arange(len(kept.store)))) == len(kept.store)


@settings(QUICK, max_examples=40)
@given(files)
def test_check_looks_at_any_folder(tree):
    with tempfile.TemporaryDirectory() as folder:
        root, output = Path(folder, "pool"), Path(folder, "health")
        root.mkdir()
        write(root, tree)
        found = result_or_refused(check, root, "none", test=root, output=output)
        if found is not None:
            readable_ones = found["pool"]["images"] - len(found["pool"]["unreadable"])
            if not (root / "train").is_dir():  # else pool and test may be two parts
                assert found["leaked_with_the_same_pixels"] == readable_ones
            assert json.loads((output / "check.json").read_text()) == found
            assert (output / "check.html").read_text().endswith("</html>\n")
