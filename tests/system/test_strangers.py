"""Limits on what a file from a stranger may cost."""

import contextlib
import gzip
import io
import pickle

import numpy as np
import pytest

from tapetum.system import strangers
from tapetum.system.strangers import check_pickle, read_unpacked, refuse_bomb, short_reason, shown


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_honest_pickles_pass(protocol):
    shared = ("a", (1, 2), frozenset([3]))
    content = {"w": np.ones((3, 4)), "list": [shared] * 500, ("k", 1): {"x": [1, 2.5, None, True, "é", b"z"]}, 1: {2}}
    check_pickle(io.BytesIO(pickle.dumps(content, protocol)))


def levels(count, width=2):
    """A tuple that holds the tuple before it several times, and so on."""
    content = ("a",)
    for _ in range(count):
        content = (content,) * width
    return content


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("content", [levels(40), levels(3, 1000), [levels(18)] * 200, {levels(22): 1, 2: levels(23)}])
def test_tuples_that_hold_each_other_are_refused(protocol, content):
    with pytest.raises(ValueError, match="repeat each other more than"):
        check_pickle(io.BytesIO(pickle.dumps(content, protocol)))


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p2147483647\n", b"q\xff"])
def test_places_far_away_are_refused(put):
    with pytest.raises(ValueError, match="of its memo is out of order"):
        check_pickle(io.BytesIO(b"\x80\2}" + put + b"."))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\2", b"(((((", b"0000.", b"\x86\x86."])
def test_what_is_no_pickle_is_refused_or_left_to_the_reader(content):
    with contextlib.suppress(ValueError):
        check_pickle(io.BytesIO(content))


def test_a_bomb_is_told_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(strangers, "MOST_UNPACKED", 1000)
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    refuse_bomb(path, 10 * strangers.MOST_TIMES)
    with pytest.raises(ValueError, match="10 bytes would unpack to 2,001"):
        refuse_bomb(path, 10 * strangers.MOST_TIMES + 1)


def test_no_more_is_unpacked_than_asked_for(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" * 10**6))
    (tmp_path / "a").write_bytes(b"y" * 100)
    assert read_unpacked(tmp_path / "a.gz", 7) == b"x" * 7
    assert read_unpacked(tmp_path / "a", 7) == b"y" * 7


def test_what_errors_repeat_is_short():
    assert len(shown("a" * 10**6)) < 100
    assert len(shown([[["a"] * 1000] * 1000] * 1000)) < 1000
    assert short_reason(KeyError()) == "KeyError"
    assert short_reason(ValueError("a\n b")) == "a b"
    assert len(short_reason(ValueError("a" * 10**6))) == 203
