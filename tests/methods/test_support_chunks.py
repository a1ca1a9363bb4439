"""Support images in chunks: every method that embeds any, and the way from a recipe to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tapetum.data.batches.samplers import SupportConfig
from tapetum.methods.base import Method
from tapetum.methods.registry import method_class
from tapetum.nn import recompute
from tapetum.recipe.recipe import RecipeError, load_recipe
from tapetum.runs.run import assemble

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("paws", "ropaws", "suncet", "suave", "supervised", "finetune", "fixmatch")
WITH_LARGE_VIEWS = tuple(kind for kind in KINDS if kind != "fixmatch")
"""In FixMatch, supports share a call with its strong views: test_fixmatch.py."""
CHUNK = 7


def make(family, kind: str) -> Method:
    return family.make(kind, **({"classifier_start": "uniform"} if kind == "finetune" else {}))


def without_batch_norm(method: Method) -> Method:
    """As it is, but with nothing in the backbone through which images of a chunk would see each other."""
    method.backbone.norm = nn.Identity()
    return method


def step(family, method: Method, chunk: int | None) -> dict[str, Tensor]:
    """Loss, gradients and buffers of a step, from the same seed."""
    method.support_chunk = chunk
    torch.manual_seed(3)
    output = method(family.batch_of(0), family.progress_of(5))
    output.loss.backward()
    found = {"loss": output.loss.detach(), **output.metrics}
    found |= {f"gradient of {name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
    return found | {name: buffer.clone() for name, buffer in method.named_buffers()}


def plain_checkpoint(function, *args, **_):
    """What torch's `checkpoint` computes, with everything kept."""
    return function(*args)


@pytest.mark.parametrize("of", KINDS)
def test_without_batch_norm_loss_and_gradients_are_those_of_one_pass(of, family):
    whole, chunked = (step(family, without_batch_norm(make(family, of)), chunk) for chunk in (None, CHUNK))
    assert whole.keys() == chunked.keys()
    assert any(name.startswith("gradient of backbone") for name in whole)
    for name, expected in whole.items():
        torch.testing.assert_close(chunked[name], expected, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("of", KINDS)
def test_bits_are_those_of_chunks_kept_in_memory(of, family, monkeypatch):
    again = step(family, make(family, of), CHUNK)
    monkeypatch.setattr(recompute, "checkpoint", plain_checkpoint)
    kept = step(family, make(family, of), CHUNK)
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    assert not torch.equal(kept["loss"], step(family, make(family, of), None)["loss"])  # batch statistics are a chunk's


@pytest.mark.parametrize("of", WITH_LARGE_VIEWS)
def test_supports_pass_in_chunks_and_once_more(of, family):
    """24 support views make 4 chunks of 6; nothing else passes twice."""
    method = make(family, of)
    step(family, method, CHUNK)
    views = [16, 16] if method_class(of).uses_views else []
    assert method.backbone.calls == [6] * 4 + views + [6] * 4


@pytest.mark.parametrize("of", WITH_LARGE_VIEWS)
def test_without_chunks_supports_and_large_views_share_a_call(of, family):
    method = make(family, of)
    step(family, method, None)
    assert method.backbone.calls == ([24 + 16, 16] if method_class(of).uses_views else [24])


def test_simclr_ct_needs_no_supports_after_its_last_supervised_epoch(family):
    method = family.make("suncet", supervised_epochs=1.5)
    method.support_chunk = CHUNK
    method(family.batch_of(9), family.progress_of(9)).loss.backward()
    assert method.backbone.calls == [16, 16]


def test_suncet_alone_passes_its_images_in_chunks(family):
    method = family.make("suncet", simclr_weight=0.0)
    step(family, method, CHUNK)
    assert method.backbone.calls == [6] * 8


def test_a_frozen_backbone_computes_nothing_again(family):
    method = family.make("finetune", freeze_backbone=True)
    step(family, method, CHUNK)
    assert method.backbone.calls == [6] * 4


@pytest.fixture
def noise(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=pixels, y_train=np.arange(40) % 2)
    return [f"data.images={tmp_path / 'noise.npz'}", "data.test=null", "data.batch_size=8", "runtime.threads=1"]


@pytest.mark.parametrize("chunk", [None, 6])
def test_a_recipe_sets_the_chunk(noise, chunk):
    setting = f"support.chunk={'null' if chunk is None else chunk}"
    run = assemble(load_recipe("paws_digits", [*noise, setting]))
    assert run.method.support_chunk == chunk


def test_sizes_are_global():
    config = SupportConfig(images_per_class=2, chunk=6)
    assert (config.chunk_here(1), config.chunk_here(3)) == (6, 2)
    assert SupportConfig(images_per_class=2).chunk_here(3) is None
    with pytest.raises(ValueError, match=r"^support.chunk is 6 over all 4 processes .* such as 4 or 8$"):
        config.chunk_here(4)


@pytest.mark.parametrize("value", ["0", "-3", "all", "2.5"])
def test_a_wrong_chunk_is_named(value):
    with pytest.raises(RecipeError, match=rf"support\.chunk is '?{value}'?: (give at least 1|expected a whole number)"):
        load_recipe("paws_digits", [f"support.chunk={value}"])
