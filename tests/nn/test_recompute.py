"""Chunks whose activations are computed again, against the same chunks kept in memory and against one pass of all."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tapetum.nn.batch_norm import convert_batch_norm, running_statistics_frozen
from tapetum.nn.multi_crop import embed_views
from tapetum.nn.recompute import buffers_kept, embed_in_chunks, embed_with_supports
from tapetum.nn.small_net import SmallNet, SmallNetConfig

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_IMAGES, ROWS, NUM_CHUNKS = 10, 4, 3


def network(norm: bool = True, dropout: float = 0.0, momentum: float | None = 0.1) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3), nn.GELU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(96, 5)]
    if norm:
        layers[1:1] = [nn.BatchNorm2d(6, momentum=momentum)]
        layers += [nn.BatchNorm1d(5, momentum=momentum)]
    return nn.Sequential(*layers).double()


def pictures(count: int = NUM_IMAGES, size: int = 6) -> Tensor:
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


def plainly(backbone: nn.Module, images: Tensor) -> Tensor:
    """Chunks of 4, 3 and 3 images, with everything kept for the backward pass."""
    return torch.cat([backbone(images[0:4]), backbone(images[4:7]), backbone(images[7:10])])


def result(backbone: nn.Module, embeddings: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Embeddings, gradients of a loss that looks at all of them together, and buffers after both passes."""
    (embeddings @ embeddings.T).softmax(1).diagonal().log().sum().backward()
    found = {"embeddings": embeddings.detach(), "images": images.grad}
    found |= {f"gradient of {name}": p.grad for name, p in backbone.named_parameters()}
    return found | {name: buffer.clone() for name, buffer in backbone.named_buffers()}


def chunked_and(reference: Any, images: Tensor | None = None, **settings: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, in chunks computed again, by `reference`) of all results, from the same seed."""
    images = pictures() if images is None else images
    results = []
    for embed in (lambda backbone, x: embed_in_chunks(backbone, x, ROWS), reference):
        backbone, leaf = network(**settings), images.clone().requires_grad_()
        torch.manual_seed(1)
        results.append(result(backbone, embed(backbone, leaf), leaf))
    assert results[0].keys() == results[1].keys()
    yield from ((name, results[0][name], results[1][name]) for name in results[0])


def test_without_batch_norm_gradients_are_those_of_one_pass():
    for name, chunked, whole in chunked_and(lambda backbone, x: backbone(x), norm=False):
        torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12, msg=name)


def test_with_fixed_statistics_gradients_are_those_of_one_pass():
    results = []
    for rows in (ROWS, None):
        backbone, leaf = network(), pictures().requires_grad_()
        backbone(pictures())  # so that the statistics are not those of a new layer
        before = {name: buffer.clone() for name, buffer in backbone.eval().named_buffers()}
        results.append(result(backbone, embed_in_chunks(backbone, leaf, rows), leaf))
        assert all(torch.equal(results[-1][name], buffer) for name, buffer in before.items())
    for name, whole in results[1].items():
        torch.testing.assert_close(results[0][name], whole, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_with_batch_norm_the_bits_are_those_of_chunks_kept_in_memory(momentum):
    for name, again, kept in chunked_and(plainly, momentum=momentum):
        assert torch.equal(again, kept), name


def test_dropout_draws_the_same_numbers_again():
    for name, again, kept in chunked_and(plainly, dropout=0.5):
        assert torch.equal(again, kept), name


def test_later_draws_do_not_depend_on_the_second_pass():
    drawn = []
    for embed in (lambda backbone, x: embed_in_chunks(backbone, x, ROWS), plainly):
        backbone = network(dropout=0.5)
        torch.manual_seed(1)
        embed(backbone, pictures()).sum().backward()
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_running_statistics_are_updated_once_a_chunk():
    backbone = network()
    embed_in_chunks(backbone, pictures(), ROWS).sum().backward()
    counts = [int(buffer) for name, buffer in backbone.named_buffers() if "num_batches" in name]
    assert counts == [NUM_CHUNKS] * 2


def test_frozen_statistics_stay_frozen():
    backbone = network()
    with running_statistics_frozen(backbone):
        embed_in_chunks(backbone, pictures(), ROWS).sum().backward()
    assert [int(buffer) for name, buffer in backbone.named_buffers() if "num_batches" in name] == [0, 0]


def test_buffers_are_put_back_after_an_error():
    backbone = network()
    before = dict(backbone.named_buffers())
    with pytest.raises(RuntimeError, match="channels"), buffers_kept(backbone):
        backbone(torch.zeros(2, 5, 6, 6, dtype=torch.float64))
    assert all(buffer is before[name] for name, buffer in backbone.named_buffers())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bits_under_autocast_and_in_both_memory_formats(memory_format):
    """Autocast keeps weights that it has cast; the second pass casts them anew."""
    gradients = []
    for embed in (lambda backbone, x: embed_in_chunks(backbone, x, ROWS), plainly):
        torch.manual_seed(0)
        backbone = SmallNet(SmallNetConfig(stem=4, widths=(8, 8))).to(memory_format=memory_format)
        images = pictures(size=12).float().to(memory_format=memory_format)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings = embed(backbone, images)
        embeddings.float().square().sum().backward()
        gradients.append([p.grad for p in backbone.parameters()])
    assert all(torch.equal(again, kept) for again, kept in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("count", "rows", "sizes"), [(10, 4, [4, 3, 3]), (9, 3, [3, 3, 3]), (3, 8, [3]), (7, 6, [4, 3])]
)
def test_chunks_differ_by_one_image_at_most(count, rows, sizes):
    seen: list[int] = []

    class Noting(nn.Flatten):
        def forward(self, input: Tensor) -> Tensor:
            seen.append(len(input))
            return super().forward(input)

    images = pictures(count)
    assert torch.equal(embed_in_chunks(Noting(), images, rows), images.flatten(1))
    assert seen == sizes


def test_without_gradients_nothing_is_kept():
    backbone = network()
    with torch.no_grad():
        embeddings = embed_in_chunks(backbone, pictures(), ROWS)
    assert not embeddings.requires_grad
    assert torch.equal(embeddings, plainly(network(), pictures()))


def test_supports_come_first_and_small_views_move_no_statistics():
    supports, groups = pictures(), [pictures(8), pictures(12)]
    backbone, reference = network(), network()
    ours = embed_with_supports(backbone, supports, groups, ROWS)
    expected = [plainly(reference, supports), reference(groups[0])]
    with running_statistics_frozen(reference):
        expected.append(reference(groups[1]))
    assert torch.equal(ours, torch.cat(expected))
    ours.sum().backward()
    for (name, buffer), theirs in zip(backbone.named_buffers(), reference.buffers(), strict=True):
        assert torch.equal(buffer, theirs), name


@pytest.mark.parametrize("rows", [None, ROWS])
def test_without_chunks_or_without_supports_there_is_one_call_for_each_size(rows):
    supports = pictures() if rows is None else pictures()[:0]
    groups = [pictures(8), pictures(12)]
    ours = embed_with_supports(network(), supports, groups, rows)
    assert torch.equal(ours, embed_views(network(), [torch.cat([supports, groups[0]]), groups[1]]))


class LiveBytes(TorchDispatchMode):
    """Follows every tensor that is made, until its memory is given back."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.data_ptr(), storage.nbytes())

    def _gone(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


@contextmanager
def bytes_saved() -> Iterator[dict[int, int]]:
    """Bytes that are kept for the backward pass, by address, each once."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def bytes_of_step(rows: int | None) -> tuple[int, int]:
    """What is saved after the forward pass, and the most that is alive in both, with 64 images."""
    torch.manual_seed(0)
    backbone, images = SmallNet(SmallNetConfig(stem=8, widths=(16, 16))), torch.randn(64, 3, 16, 16)
    with LiveBytes() as live, bytes_saved() as saved:
        loss = embed_in_chunks(backbone, images, rows).square().sum()
        kept = sum(saved.values())
        loss.backward()
    return kept, live.peak


def test_memory_holds_the_activations_of_one_chunk():
    """Both after the forward pass and in the backward pass, where they are computed again."""
    (all_saved, all_alive), (saved, alive), (_, fewer) = (bytes_of_step(rows) for rows in (None, 8, 4))
    assert saved < all_saved / 20
    assert alive < all_alive / 4
    assert fewer < alive


def test_layers_over_ranks_are_the_same_in_one_process():
    results = []
    for convert in (convert_batch_norm, lambda module: module):
        backbone, leaf = convert(network()), pictures().requires_grad_()
        results.append(result(backbone, embed_in_chunks(backbone, leaf, ROWS), leaf))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[1])
