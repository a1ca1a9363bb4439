import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from tapetum.data.health.duplicates import (
    alike,
    close_pairs,
    difference_hashes,
    grey_rows,
    groups,
    lookalikes,
    thumbnail,
)
from tapetum.ops.randomness import make_keys, uniform


def photograph(number, side=64):
    """Smooth random colours, as photographs have."""
    pixels = (uniform(make_keys("photograph", number), 6 * 6 * 3) * 255).reshape(6, 6, 3).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def described(images):
    rows = np.stack([grey_rows(image) for image in images])
    return difference_hashes(rows), np.stack([thumbnail(image) for image in images])


def test_a_bit_says_whether_the_right_neighbour_is_lighter():
    rows = np.zeros((2, 72), np.uint8)
    rows[0, 0], rows[1, 71] = 7, 7
    falling, rising = difference_hashes(rows).tolist()
    assert falling == 0
    assert rising == 1
    assert difference_hashes(np.tile(np.arange(9, dtype=np.uint8), (1, 8))).tolist() == [2**64 - 1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(2, 60))
def test_all_close_pairs_are_found_and_no_others(seed, radius, count):
    hashes = (uniform(make_keys("hashes", seed), count) * 2**53).astype(np.uint64) << np.uint64(11)
    bits = make_keys("flips", seed, np.arange(count * 10)).reshape(count, 10) % np.uint64(64)
    near = hashes.copy()
    for number in range(10):  # flip up to ten bits of a copy of each, so that the border is met
        chosen = np.arange(count) % 11 > number
        near[chosen] ^= np.uint64(1) << bits[chosen, number]
    every = np.concatenate([hashes, near, hashes[:3]])
    differing = np.bitwise_count(every[:, None] ^ every[None])
    expected = np.argwhere(np.triu(differing <= radius, k=1))
    assert np.array_equal(close_pairs(every, radius), expected)


def test_few_hashes_have_few_pairs():
    assert close_pairs(np.zeros(0, np.uint64)).shape == (0, 2)
    assert close_pairs(np.zeros(1, np.uint64)).shape == (0, 2)
    assert close_pairs(np.zeros(3, np.uint64)).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_pairs_are_compared_a_chunk_at_a_time(monkeypatch):
    hashes = np.array([0, 1, 3, 7, 2**40], np.uint64)
    expected = close_pairs(hashes)
    monkeypatch.setattr("tapetum.data.health.duplicates._CHUNK", 1)
    assert np.array_equal(close_pairs(hashes), expected)


CHANGES = {
    "smaller": lambda image: image.resize((24, 24)),
    "wider": lambda image: image.resize((90, 60)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "cut": lambda image: image.crop((1, 1, 63, 63)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_near_duplicates_and_other_images_are_not(change):
    images = [photograph(number) for number in range(40)]
    hashes, thumbnails = described([*images, *(CHANGES[change](image) for image in images)])
    found = alike(close_pairs(hashes), thumbnails)
    assert found.tolist() == [[i, i + 40] for i in range(40)]


def test_one_layout_in_other_colours_is_no_duplicate():
    """The sky is what two aeroplanes have in common."""
    sky = np.zeros((64, 64, 3), np.uint8)
    sky[...] = (np.arange(64)[None, :, None] // 4 + np.array([60, 120, 200])).astype(np.uint8)
    one, other = sky.copy(), sky.copy()
    one[20:30, 20:40], other[34:38, 30:36] = 20, 250
    hashes, thumbnails = described([Image.fromarray(one), Image.fromarray(other)])
    assert not len(alike(np.array([[0, 1]]), thumbnails))
    assert np.bitwise_count(hashes[0] ^ hashes[1]) <= 9


def test_plain_images_are_no_near_duplicates():
    _, thumbnails = described([Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")])
    assert not len(alike(np.array([[0, 1]]), thumbnails))


def test_pairs_make_groups():
    assert groups(np.array([[4, 7], [1, 3], [3, 5], [0, 5]]), 9) == [[0, 1, 3, 5], [4, 7]]
    assert groups(np.empty((0, 2), np.int64), 9) == []


def test_lookalikes_are_counted_exactly_where_images_are_few():
    images = [photograph(number) for number in range(30)]
    hashes, thumbnails = described([*images, *images[:6]])
    assert lookalikes(hashes, thumbnails) == pytest.approx(2 * 6 / 36)
    assert lookalikes(hashes[:1], thumbnails[:1]) == lookalikes(hashes[:0], thumbnails[:0]) == 0


def test_lookalikes_are_estimated_where_images_are_many(monkeypatch):
    """Ten images, a hundred of each: 99 others are alike."""
    hashes, thumbnails = described([photograph(number) for number in range(10)])
    every = np.arange(1000) % 10
    assert lookalikes(hashes[every], thumbnails[every]) == pytest.approx(99)
    monkeypatch.setattr("tapetum.data.health.duplicates._SAMPLE", 20_000)
    assert lookalikes(hashes[every], thumbnails[every]) == pytest.approx(99, rel=0.1)


def test_lookalikes_are_counted_among_some_rows():
    hashes, thumbnails = described([photograph(number) for number in (0, 1, 2, 1, 4, 2)])
    some = np.array([5, 1, 3])
    assert lookalikes(hashes[some], thumbnails, some) == lookalikes(hashes[some], thumbnails[some]) > 0
