import subprocess
import sys

import pytest
import torch

from tapetum.nn.memory_bank import UNKNOWN, MemoryBank

POOL = torch.tensor([1, 2, 4, 7, 8])


def make() -> MemoryBank:
    return MemoryBank(POOL, torch.arange(2 * 5 * 3.0).view(2, 5, 3), num_images=10)


def test_updated_rows_are_those_of_the_images():
    bank, before = make(), make()
    bank.update(torch.tensor([8, 2]), torch.tensor([[[1.0] * 3, [2.0] * 3], [[3.0] * 3, [4.0] * 3]]))
    assert bank.rows(0)[[4, 1], 0].tolist() == [1.0, 2.0]
    assert bank.rows(1)[[4, 1], 0].tolist() == [3.0, 4.0]
    for view in (0, 1):
        assert torch.equal(bank.rows(view)[[0, 2, 3]], before.rows(view)[[0, 2, 3]])


def test_views_are_taken_in_turn():
    assert torch.equal(make().rows(2), make().rows(0))
    assert not torch.equal(make().rows(1), make().rows(0))


def test_some_rows_are_distinct_rows_of_the_bank_drawn_by_seed_and_view():
    bank = make()
    drawn = bank.some_rows(0, 5, seed=3)
    assert sorted(drawn[:, 0].tolist()) == bank.rows(0)[:, 0].tolist()
    assert torch.equal(drawn[:2], bank.some_rows(0, 2, seed=3))
    assert not torch.equal(drawn, bank.some_rows(0, 5, seed=4))
    assert not torch.equal(drawn, bank.some_rows(2, 5, seed=3))
    with pytest.raises(ValueError, match="num_prototypes has 6, but there are only 5 images: use fewer"):
        bank.some_rows(0, 6, seed=3)


def test_labels_by_image():
    assert make().everyones(torch.tensor([5, 0, 3, 0, 9])).tolist() == [
        *(UNKNOWN, 5, 0, UNKNOWN, 3),
        *(UNKNOWN, UNKNOWN, 0, 9, UNKNOWN),
    ]


def test_a_bank_of_another_number_of_processes_is_refused():
    state = make().state()
    with pytest.raises(ValueError, match=r"has 3 images and not 5: .* resume with as many as before"):
        MemoryBank.from_state({**state, "bank": state["bank"][:, :3]}, num_images=10)


@pytest.mark.slow
def test_imagenet_fits_into_4_gb():
    """1.3 million images, two banks of 128 dimensions, 3,000 clusters: the first bank, k-means, and labels."""
    code = """
import resource, torch
from tapetum.methods.deepcluster import DeepCluster, DeepClusterConfig
from tapetum.methods.base import Progress
from tapetum.nn.heads import HeadConfig

class Backbone(torch.nn.Module):
    num_features = 256

torch.set_num_threads(2)
COUNT, PART = 1_300_000, 5_000
config = DeepClusterConfig(num_prototypes=(3000,), iterations=1, head=HeadConfig(hidden=256, output=128, layers=2))
method = DeepCluster(config, Backbone(), num_classes=0, num_images=COUNT)

def embed_all(then):
    with torch.no_grad():
        return torch.arange(COUNT), torch.cat([then(torch.randn(PART, 256)) for _ in range(COUNT // PART)])

method.before_epoch(Progress(0, 1, 1), embed_all)
assert method.labels.shape == (1, COUNT) and method.labels.min() >= 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    printed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert float(printed) < 4


def test_state_comes_back():
    bank = make()
    copy = MemoryBank.from_state(bank.state(), 10)
    assert copy is not None
    assert torch.equal(copy.rows(1), bank.rows(1))
    assert torch.equal(copy.own_images, POOL)
    assert MemoryBank.from_state({}, 10) is None
