"""Two processes under averaged gradients equal one. This file is also the program that each of the two runs."""

import subprocess
import sys

import torch
import torch.distributed as dist
from torch import Tensor

from tapetum.evaluation.soft_neighbours import classify_by_neighbours
from tapetum.losses.paws import paws_loss
from tapetum.ops import collectives
from tapetum.ops.soft_neighbours import smooth_one_hot, soft_neighbours

NUM_ROWS, NUM_IMAGES, NUM_CLASSES = 6, 4, 3


def _inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return {"weight": normal(5, 4), "rows": normal(NUM_ROWS, 5), "views": normal(3, NUM_IMAGES, 5), "mix": normal(4)}


def _share(tensor: Tensor, rank: int, ranks: int, dim: int = 0) -> Tensor:
    return tensor.chunk(ranks, dim)[rank]


def _by_gather_and_mean(weight: Tensor, rank: int, ranks: int) -> Tensor:
    """A loss of this rank's rows against everybody's, and of everybody's mean."""
    inputs = _inputs()
    local = _share(inputs["rows"], rank, ranks) @ weight
    gathered = collectives.gather_rows(local)
    mean = collectives.mean_over_ranks(local.sigmoid().mean(0))
    return (local @ gathered.T).logsumexp(1).mean() + (mean.log() * inputs["mix"]).sum()


def _by_sum(weight: Tensor, rank: int, ranks: int) -> Tensor:
    """Of everybody's sum, once on each rank."""
    inputs = _inputs()
    total = collectives.sum_over_ranks((_share(inputs["rows"], rank, ranks) @ weight).sigmoid().sum(0))
    return (total.log() * inputs["mix"]).sum()


def _by_paws(weight: Tensor, rank: int, ranks: int) -> Tensor:
    """PAWS with 2 large views and 1 small one; each rank has its images and its supports."""
    inputs = _inputs()
    views = (_share(inputs["views"], rank, ranks, dim=1) @ weight).flatten(0, 1)
    supports = _share(inputs["rows"], rank, ranks) @ weight
    labels = smooth_one_hot(
        _share(torch.arange(NUM_CLASSES).repeat(2), rank, ranks), torch.arange(NUM_CLASSES), 0.1, dtype=torch.float64
    )
    first, second, _ = views.detach().chunk(3)
    return sum(paws_loss(views, supports, labels, torch.cat([second, first]), supports.detach(), 1, 0.1, 0.25))


LOSSES = {"gather and mean": _by_gather_and_mean, "sum": _by_sum, "paws": _by_paws}


def _results(rank: int, ranks: int) -> dict[str, Tensor]:
    results = {}
    for name, loss_of in LOSSES.items():
        weight = _inputs()["weight"].requires_grad_()
        loss = loss_of(weight, rank, ranks)
        loss.backward()
        results |= {f"{name}: loss": loss.detach(), f"{name}: gradient": weight.grad}
    rows = _inputs()["rows"]
    results["column-major"] = collectives.gather_rows(_share(rows, rank, ranks).T.contiguous().T)
    results["integers"] = collectives.gather_rows(_share(torch.arange(NUM_ROWS), rank, ranks))
    # Evaluation gives every rank all supports: none may be fetched from the others once more.
    own = rows[rank:] if ranks == 2 else rows
    results["alone"] = soft_neighbours(own, own, torch.eye(len(own), dtype=torch.float64), 0.1, over_ranks=False)
    results["evaluation"] = classify_by_neighbours(own, own, torch.arange(len(own)), len(own))
    results["world"] = torch.tensor([collectives.rank(), collectives.world_size()])
    return results


def _main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(_results(rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_alone_they_are_the_identity():
    value = torch.ones(3, requires_grad=True)
    for function in (collectives.gather_rows, collectives.mean_over_ranks, collectives.sum_over_ranks):
        assert function(value) is value
    assert (collectives.rank(), collectives.world_size()) == (0, 1)


def test_two_processes_equal_one(tmp_path):
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    finally:
        for process in ranks:  # one that failed leaves the other waiting
            process.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    one = _results(0, 1)
    for name in LOSSES:
        mean_loss = (first[f"{name}: loss"] + second[f"{name}: loss"]) / 2
        averaged = (first[f"{name}: gradient"] + second[f"{name}: gradient"]) / 2  # as DistributedDataParallel does
        torch.testing.assert_close(mean_loss, one[f"{name}: loss"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(averaged, one[f"{name}: gradient"], rtol=1e-11, atol=1e-12)
    for parts in (first, second):
        assert torch.equal(parts["column-major"], _inputs()["rows"])
        assert torch.equal(parts["integers"], torch.arange(NUM_ROWS))
    for name in ("alone", "evaluation"):  # the second rank's supports are fewer: a gather would fail or add rows
        assert torch.equal(first[name], one[name])
        assert second[name].shape == (NUM_ROWS - 1, NUM_ROWS - 1)
    assert [parts["world"].tolist() for parts in (first, second)] == [[0, 2], [1, 2]]


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
