"""The PAWS loss against the published code's numbers, a slow plain version, and bf16 autocast."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.losses.paws import cross_entropy, mean_entropy_loss, paws_loss
from tapetum.ops.soft_neighbours import sharpen, smooth_one_hot, soft_neighbours

GOLDEN = Path(__file__).parents[1] / "golden"


def agrees(ours: torch.Tensor, golden: np.ndarray) -> bool:
    scale = np.abs(golden).max() or 1.0
    return bool(np.abs(ours.detach().numpy() - golden).max() / scale <= 1e-9)


def tensors(name: str) -> dict:
    with np.load(GOLDEN / name) as file:
        return {k: torch.from_numpy(file[k]) if file[k].ndim else file[k].item() for k in file.files}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_golden_loss_and_gradients(number):
    g = tensors(f"paws_loss_{number}.npz")
    leaves = {k: g[k].clone().requires_grad_() for k in ("anchor_views", "anchor_supports")}
    loss, me_max = paws_loss(
        **leaves,
        support_labels=g["support_labels"],
        target_views=g["target_views"],
        target_supports=g["target_supports"],
        num_small_views=int(g["num_small_views"]),
        temperature=float(g["temperature"]),
        sharpen_temperature=float(g["sharpen"]),
    )
    if not g["me_max"]:
        me_max = torch.zeros((), dtype=torch.float64)
    (loss + me_max).backward()
    assert agrees(loss, np.asarray(g["loss"]))
    assert agrees(me_max, np.asarray(g["me_max_loss"]))
    for name, leaf in leaves.items():
        assert agrees(leaf.grad, g[f"grad_{name}"].numpy()), name


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_labels_matrix(number):
    """Ours for explicit classes equals the published positional matrix; 3 has phantom columns that ours lacks."""
    with np.load(GOLDEN / f"labels_matrix_{number}.npz") as g:
        per_rank, images, ranks = (int(g[k]) for k in ("classes_per_batch", "images_per_class", "world_size"))
        unique, smoothing, golden = bool(g["unique_classes"]), float(g["smoothing"]), g["labels"]
    if unique:
        labels = torch.cat([r * per_rank + torch.arange(per_rank).repeat(images) for r in range(ranks)])
        classes = torch.arange(per_rank * ranks)
    else:
        labels, classes = torch.arange(per_rank).repeat(images * ranks), torch.arange(per_rank)
    ours = smooth_one_hot(labels, classes, smoothing, dtype=torch.float64)
    assert agrees(ours, golden[:, : len(classes)])


def plain_paws(views, supports, labels, targets, target_supports, small, tau, sharp):
    """Row by row, as one would write it on a blackboard."""

    def predict(q, s):
        w = [np.exp(q @ a / np.linalg.norm(q) / np.linalg.norm(a) / tau) for a in s]
        return sum(wi * y for wi, y in zip(w, labels)) / sum(w)

    def sharper(p):
        return p ** (1 / sharp) / (p ** (1 / sharp)).sum()

    p = np.stack([predict(q, supports) for q in views])
    t = [sharper(predict(q, target_supports)) for q in targets]
    half = len(t) // 2
    t += [(t[i] + t[half + i]) / 2 for _ in range(small) for i in range(half)]
    t = np.where(np.stack(t) < 1e-4, 0, np.stack(t))
    mean = np.stack([sharper(row) for row in p]).mean(0)
    return -(t * np.log(p)).sum(1).mean(), (mean * np.log(mean)).sum()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    small=st.integers(0, 3),
    images=st.integers(1, 4),
    classes=st.integers(2, 4),
    tau=st.sampled_from([0.1, 0.5]),
    sharp=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_equal_to_the_plain_version(seed, small, images, classes, tau, sharp):
    generator = np.random.default_rng(seed)
    counts = ((2 + small) * images, 2 * classes, 2 * images, 2 * classes)
    views, supports, targets, target_supports = (generator.normal(size=(count, 5)) for count in counts)
    labels = smooth_one_hot(torch.arange(classes).repeat(2), torch.arange(classes), 0.1).double().numpy()
    ours = paws_loss(*map(torch.from_numpy, (views, supports, labels, targets, target_supports)), small, tau, sharp)
    plain = plain_paws(views, supports, labels, targets, target_supports, small, tau, sharp)
    assert np.allclose([float(x) for x in ours], plain, rtol=1e-10)


def test_autocast_changes_no_bit():
    torch.manual_seed(0)
    views, supports = torch.randn(32, 16), torch.randn(12, 16)
    labels = smooth_one_hot(torch.arange(3).repeat(4), torch.arange(3), 0.1)
    p = soft_neighbours(views, supports, labels, 0.1)

    def everything():
        return [
            *paws_loss(views, supports, labels, views[:16], supports, 2, 0.1, 0.25),
            soft_neighbours(views.bfloat16(), supports.bfloat16(), labels, 0.1),
            sharpen(p, 0.25),
            cross_entropy(p, p),
            mean_entropy_loss(p, 0.25),
            smooth_one_hot(torch.arange(3), torch.arange(3), 0.1),
        ]

    outside = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = everything()
    for a, b in zip(outside, inside, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_even_classes_reach_the_bound():
    assert mean_entropy_loss(torch.eye(4).repeat(3, 1), 0.25) == pytest.approx(-np.log(4))


def test_zero_prediction_with_zero_target_has_no_gradient_trouble():
    p = torch.tensor([[0.0, 1.0]], requires_grad=True)
    cross_entropy(torch.tensor([[0.0, 1.0]]), p).sum().backward()
    assert p.grad is not None
    assert torch.isfinite(p.grad).all()
