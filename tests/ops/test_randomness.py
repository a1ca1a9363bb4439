"""Keys, numbers and permutations: pinned values, distributions, and nothing but their arguments."""

import numpy as np
import pytest
from scipy import stats

from tapetum.ops.randomness import make_keys, permutation, torch_seed, uniform

KEYS = {"seed alone": 7141179953334974231, "seed, purpose, epoch, image": 3880423222323712251}
UNIFORM = [0.7307277219693903, 0.8212866458002978]
PERMUTATION = [6, 1, 3, 5, 4, 2, 7, 0]
SEED = 8597850665122615077


def test_values_are_pinned():
    """Another value here would change every run ever made, and the rest of every run that is resumed."""
    assert int(make_keys(0)) == KEYS["seed alone"]
    assert int(make_keys(7, "views", 3, 11)) == KEYS["seed, purpose, epoch, image"]
    assert uniform(make_keys(7, "views"), 2).tolist() == UNIFORM
    assert permutation(make_keys(1, "order"), 8).tolist() == PERMUTATION
    assert torch_seed(3, "weights") == SEED


def test_splitmix64_reference():
    """The first outputs of SplitMix64 from state 0, as published with Java's SplittableRandom and xoshiro's seeding."""
    words = np.floor(uniform(np.asarray(0, dtype=np.uint64), 3) * 2.0**53).astype(np.uint64)
    published = np.array([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], dtype=np.uint64)
    assert np.array_equal(words, published >> np.uint64(11))


def test_a_key_is_a_function_of_its_own_parts():
    rows = make_keys(7, "views", 2, np.arange(5))
    assert rows.dtype == np.uint64
    assert [int(make_keys(7, "views", 2, i)) for i in range(5)] == rows.tolist()
    grid = make_keys(7, np.arange(3)[:, None], np.arange(4)[None, :])
    assert grid.shape == (3, 4)
    assert int(grid[2, 1]) == int(make_keys(7, 2, 1))


def test_number_types_do_not_matter():
    expected = int(make_keys(5, 3))
    for number in (np.int64(3), np.int32(3), np.uint8(3), np.array(3), 3 + 2**64):
        assert int(make_keys(5, number)) == expected, type(number)
    assert int(make_keys(-1)) == int(make_keys(np.int64(-1))) == int(make_keys(2**64 - 1))


def test_fractions_are_refused_rather_than_cut():
    with pytest.raises(AssertionError, match="integers and strings"):
        make_keys(0, 1.5)


def test_parts_keep_their_places():
    keys = [make_keys(0, 1, 2), make_keys(0, 2, 1), make_keys(1, 0, 2), make_keys(0, 12), make_keys(0, 1), make_keys(0)]
    keys += [make_keys(0, "view"), make_keys(0, "view", 0), make_keys(0, "views"), make_keys("view", 0)]
    assert len({int(key) for key in keys}) == len(keys)


def test_no_collisions_among_neighbouring_parts():
    grid = make_keys(np.arange(4)[:, None, None], "view", np.arange(250)[:, None], np.arange(250)[None, :])
    assert len(np.unique(grid)) == grid.size


def test_flipping_any_bit_of_a_part_flips_half_the_key():
    base = make_keys(12345)
    flipped = make_keys(np.uint64(12345) ^ (np.uint64(1) << np.arange(64, dtype=np.uint64)))
    counts = np.bitwise_count(flipped ^ base)
    assert 16 < counts.min() <= counts.max() < 48
    assert counts.mean() == pytest.approx(32, abs=2)


@pytest.mark.parametrize("axis", ["within a key", "over keys"])
def test_numbers_are_uniform(axis):
    keys = make_keys(3, "test", np.arange(20_000 if axis == "over keys" else 1))
    numbers = uniform(keys, 1 if axis == "over keys" else 20_000).ravel()
    assert 0 <= numbers.min() <= numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3


def test_numbers_are_independent_of_their_neighbours():
    numbers = uniform(make_keys(3, np.arange(300)), 300)
    pairs = [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]  # next number; next key
    for left, right in pairs:
        table = np.histogram2d(left.ravel(), right.ravel(), bins=10)[0]
        assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_more_numbers_begin_with_the_same_ones():
    keys = make_keys(3, np.arange(4).reshape(2, 2))
    assert uniform(keys, 5).shape == (2, 2, 5)
    assert np.array_equal(uniform(keys, 5)[..., :3], uniform(keys, 3))


def test_permutations_are_permutations_and_evenly_spread():
    assert sorted(permutation(make_keys(1), 1000).tolist()) == list(range(1000))
    assert permutation(make_keys(1), 0).tolist() == []
    assert permutation(make_keys(1), 1).dtype == np.int64
    orders = [tuple(permutation(make_keys(1, i), 3).tolist()) for i in range(3000)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_seeds_fit_torch():
    seeds = [torch_seed(i, "forward", j) for i in range(50) for j in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
