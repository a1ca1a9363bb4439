"""BatchNorm over two processes against one. A file of its own: what it imports, every process imports."""

import torch
import torch.distributed as dist
from torch import nn

from tapetum.nn.batch_norm import convert_batch_norm

ROWS = {0: slice(0, 3), 1: slice(3, 8)}  # ranks bring different numbers of rows


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(16, 5),
        nn.BatchNorm1d(5, momentum=None),
        nn.BatchNorm1d(5, affine=False, track_running_stats=False),
        nn.Linear(5, 2),
    ]
    return nn.Sequential(*layers).double()


def _run(network: nn.Module, rows: slice) -> dict[str, torch.Tensor]:
    """Two training passes, the gradients of the second, and an evaluation pass."""
    generator = torch.Generator().manual_seed(1)
    x = (100 + torch.randn(8, 3, 4, 4, dtype=torch.float64, generator=generator))[rows].requires_grad_()
    weights = torch.randn(8, 2, dtype=torch.float64, generator=generator)[rows]
    network(x.detach() * 2)
    out = network(x)
    (out * weights).sum().backward()
    result = {"out": out.detach(), "x": x.grad}
    result |= {f"grad.{name}": p.grad for name, p in network.named_parameters()}
    result |= {name: buffer.clone() for name, buffer in network.named_buffers()}
    return result


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    result = _run(convert_batch_norm(_network()), ROWS[rank])
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    alone = _run(_network(), slice(None))
    assert parts[0].keys() == alone.keys()
    for name, expected in alone.items():
        first, second = (part[name] for part in parts)
        if name in ("out", "x"):
            ours = torch.cat([first, second])
        elif name.startswith("grad."):
            ours = first + second
        else:
            ours = first
            assert torch.equal(first, second)
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
