"""Chunks over two processes that share batch statistics. A file of its own: what it imports, every process imports."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tapetum.nn.batch_norm import convert_batch_norm
from tapetum.nn.recompute import embed_in_chunks
from tapetum.ops.collectives import gather_rows, rank

NUM_IMAGES, ROWS = 12, 6
IN_CHUNKS = [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]
"""The images as one process sees them: the two processes' first chunks, then their second ones."""


class Network(nn.Module):
    """Embeds all images in chunks, and compares each image of this process with those of all."""

    def __init__(self, rows: int, again: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5)]
        self.backbone, self.rows, self.again = nn.Sequential(*layers).double(), rows, again

    def forward(self, images: Tensor) -> Tensor:
        if self.again:
            embeddings = embed_in_chunks(self.backbone, images, self.rows)
        else:
            embeddings = torch.cat([self.backbone(chunk) for chunk in images.split(self.rows)])
        scores = (embeddings @ gather_rows(embeddings).T).log_softmax(1)
        return -scores[:, rank() * len(images) :].diagonal().mean()


def _images() -> Tensor:
    return torch.randn(NUM_IMAGES, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _results(network: Network, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    found = {"loss": loss.detach()} | {f"gradient of {name}": p.grad for name, p in network.named_parameters()}
    return found | {name: buffer.clone() for name, buffer in network.named_buffers()}


def _rank(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    results = []
    for again in (True, False):
        network = convert_batch_norm(Network(ROWS // 2, again))
        wrapped = DistributedDataParallel(network, find_unused_parameters=True)  # as the runtime wraps it
        results.append(_results(network, wrapped(_images().chunk(2)[number])))
    torch.save(results, f"{folder}/{number}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_chunks(tmp_path):
    """And the bits do not depend on whether activations are computed again."""
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{number}.pt") for number in (0, 1)]
    alone = Network(ROWS)
    expected = _results(alone, alone(_images()[IN_CHUNKS]))
    for again, kept in parts:
        assert again.keys() == kept.keys() == expected.keys()
        assert all(torch.equal(again[name], kept[name]) for name in again)
    (first, _), (second, _) = parts
    for name, value in expected.items():
        ours = ((first[name] + second[name]) / 2).to(value.dtype)
        torch.testing.assert_close(ours, value, rtol=1e-10, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")
    assert int(first["backbone.1.num_batches_tracked"]) == 2
