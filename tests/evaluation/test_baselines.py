import numpy as np
import pytest

from tapetum.data.sources.open_source import open_source
from tapetum.evaluation.baselines import SPREADING_SETTINGS, in_words, label_spreading, nearest_neighbour, pixel_rows


def test_pixel_rows():
    assert pixel_rows(np.full((2, 3, 4, 5), 255, np.uint8)).tolist() == np.ones((2, 60)).tolist()


def test_nearest_neighbour_looks_at_labelled_images_alone():
    pool = np.array([[0.0, 0.0], [1.0, 1.0], [0.9, 0.9]])
    labels = np.array([0, 1, -1])
    test = np.array([[0.1, 0.0], [0.8, 0.9], [0.4, 0.4]])
    assert nearest_neighbour(pool, labels, test, np.array([0, 1, 0])) == 100
    assert nearest_neighbour(pool, labels, test, np.array([1, 0, 1])) == 0


@pytest.mark.slow
def test_both_on_digits():
    train, test = open_source("digits"), open_source("digits", split="test")
    pool, unseen = (pixel_rows(s.store.read(np.arange(len(s.store))).numpy()) for s in (train, test))
    labels = train.labels.values.copy()
    labels[200:] = -1
    neighbour = nearest_neighbour(pool, labels, unseen, test.labels.values)
    spreading = label_spreading(pool, labels, unseen, test.labels.values)
    assert 85 < neighbour < spreading.average < spreading.best < 100
    assert neighbour < spreading.tuned <= spreading.best
    assert spreading.best_setting in [in_words(setting) for setting in SPREADING_SETTINGS]
