"""Blocks that are computed again, against the same blocks kept in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, TimmConfig, WideResNetConfig, build_backbone
from tapetum.nn.multi_crop import embed_views
from tapetum.nn.recompute import embed_in_chunks, recompute_blocks

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = {
    "wide_resnet": WideResNetConfig(depth=10, width=1, dropout=0.3),
    "small_net": SmallNetConfig(stem=4, widths=(8, 8)),
}
TIMM = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
SLOW_NETWORKS = {
    "resnet": ResNetConfig(depth=18, stem="small"),
    "timm": TimmConfig(name="vit_tiny_patch16_224", options={**TIMM, "proj_drop_rate": 0.2}),
    "timm_cnn": TimmConfig(name="resnet26d"),
}


def network(name: str, again: bool) -> nn.Module:
    torch.manual_seed(0)
    made = build_backbone((NETWORKS | SLOW_NETWORKS)[name]).train()
    if again:
        recompute_blocks(made)
    return made


def pictures(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def views_of(made: nn.Module) -> Tensor:
    """Large views, and small ones, which leave the running statistics alone."""
    return embed_views(made, [pictures(6, 12), pictures(4, 8)])


def chunks_of(made: nn.Module) -> Tensor:
    return embed_in_chunks(made, pictures(6, 12), 2)


def results(made: nn.Module, embed: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    embeddings = embed(made)
    embeddings.square().sum().backward()
    found = {"embeddings": embeddings.detach(), "the next draw": torch.rand(2)}
    found |= {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    return found | {name: buffer.clone() for name, buffer in made.named_buffers()}


@pytest.mark.parametrize("embed", [views_of, chunks_of])
@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_NETWORKS)])
def test_bits_are_those_of_blocks_kept_in_memory(name, embed):
    """Embeddings, gradients, running statistics after both passes, and what a generator draws next."""
    if name == "timm" and embed is views_of:
        embed = lambda made: embed_views(made, [pictures(6, 8), pictures(4, 4)])  # noqa: E731
    again, kept = (results(network(name, again), embed) for again in (True, False))
    assert again.keys() == kept.keys()
    assert [key for key in kept if not torch.equal(again[key], kept[key])] == []


def test_memory_holds_what_goes_into_blocks():
    saved = []
    for again in (True, False):
        kept: dict[int, int] = {}

        def pack(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        made = network("wide_resnet", again)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            embeddings = made(pictures(8, 16))
            saved.append(sum(kept.values()))
        del embeddings
    assert saved[0] < saved[1] / 3


def test_names_stay_and_copies_are_copies():
    made = network("wide_resnet", again=True)
    assert made.state_dict().keys() == network("wide_resnet", again=False).state_dict().keys()
    copied = copy.deepcopy(made)
    copied(pictures(4, 8)).sum().backward()
    assert all(p.grad is None for p in made.parameters())
    assert all(p.grad is not None for p in copied.parameters())


def test_a_network_without_blocks_is_refused():
    with pytest.raises(ValueError, match=r"^runtime.recompute is blocks, but Sequential is no stack of blocks: set it"):
        recompute_blocks(nn.Sequential(nn.Linear(2, 2)))
