"""Muon in float32 takes the steps of torch's, which computes them in bfloat16."""

import torch
from torch import nn

from stages.toy.muon import Muon, orthogonal


def test_steps_are_those_of_torchs_but_for_its_rounding():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (24, 8), (8, 24), (16, 16))]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    one = Muon(ours, lr=0.1, weight_decay=0.01)
    other = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        before = [weight.detach().clone() for weight in theirs]
        for mine, its in zip(ours, theirs, strict=True):
            its.grad = torch.randn_like(its)
            mine.grad = its.grad.clone()
        one.step()
        other.step()
        for mine, its, was in zip(ours, theirs, before, strict=True):
            assert (mine - its).norm() < 0.05 * (its - was).norm()


def test_singular_values_become_about_one_and_directions_stay():
    torch.manual_seed(1)
    matrices = torch.randn(2, 6, 10)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    for found in (orthogonal(matrices), orthogonal(matrices.mT).mT):
        values = left.mT @ found @ right.mT
        diagonal = values.diagonal(dim1=1, dim2=2)
        assert ((diagonal > 0.5) & (diagonal < 1.5)).all()
        torch.testing.assert_close(values, torch.diag_embed(diagonal), atol=1e-4, rtol=0)


def test_a_weight_by_hand():
    """A single column g becomes g/‖g‖ times what the quintic makes of 1 in five turns; the first average is 0.05 g."""
    weight = nn.Parameter(torch.tensor([[1.0], [2.0]]))
    weight.grad = torch.tensor([[3.0], [4.0]])
    value = 1.0
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    moved = 0.1 * 0.2 * 2**0.5 * value
    expected = torch.tensor([[1.0 * 0.95 - 0.6 * moved], [2.0 * 0.95 - 0.8 * moved]])
    torch.testing.assert_close(weight.detach(), expected)
