import pytest
import torch
from torch.nn.functional import normalize

from tapetum.nn.heads import unit_length
from tapetum.nn.prototypes import Prototypes

pytestmark = pytest.mark.usefixtures("one_thread")


def test_scores_are_cosines_also_inside_autocast():
    prototypes = Prototypes(6, (4, 3))
    rows = torch.randn(5, 6)
    outside = prototypes(unit_length(rows))
    for scores, weight in zip(outside, prototypes.parameters(), strict=True):
        expected = torch.stack([torch.cosine_similarity(row[None], weight) for row in rows])
        torch.testing.assert_close(scores, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = prototypes(unit_length(rows))
        lowered = prototypes(unit_length(rows.bfloat16()))
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))
    assert all(scores.dtype == torch.float32 for scores in lowered)


def test_they_begin_and_are_brought_back_to_unit_length_in_place():
    prototypes = Prototypes(6, (4,))
    weight = next(prototypes.parameters())
    torch.testing.assert_close(weight.detach().norm(dim=1), torch.ones(4))
    with torch.no_grad():
        weight.mul_(3.0).add_(1.0)
    expected = normalize(weight.detach(), dim=1)
    prototypes.normalise()
    assert next(prototypes.parameters()) is weight
    torch.testing.assert_close(weight.detach(), expected)


def test_frozen_ones_take_no_part_in_a_step():
    prototypes = Prototypes(6, (4,))
    before = next(prototypes.parameters()).detach().clone()
    optimizer = torch.optim.SGD(prototypes.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    prototypes(torch.randn(5, 6))[0].sum().backward()
    prototypes.freeze()
    optimizer.step()
    assert torch.equal(next(prototypes.parameters()), before)
    assert not optimizer.state


@pytest.mark.parametrize("counts", [(), (3, 1)])
def test_too_few_are_refused(counts):
    with pytest.raises(ValueError, match=r"^num_prototypes is \["):
        Prototypes(6, counts)
