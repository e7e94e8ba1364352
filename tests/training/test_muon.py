import pytest
import torch
from torch import nn

from convvae.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(4, 4), (3, 40), (40, 3), (1, 9)])
def test_singular_values_come_near_one_and_the_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    middle = u.T @ found @ v.T
    torch.testing.assert_close(middle, middle.diag().diag(), rtol=0, atol=1e-3)


def make(weights, lr=0.1, weight_decay=0.0):
    return Muon(
        weights,
        lr=torch.tensor(lr),
        betas=(0.9, 0.999),
        weight_decay=weight_decay,
        capturable=False,
    )


def test_the_first_step_is_along_the_orthogonalised_gradient():
    weight = nn.Parameter(torch.randn(6, 2, 3, 3))
    before, weight.grad = weight.detach().clone(), torch.randn(6, 2, 3, 3)
    make([weight], lr=0.1).step()
    expected = orthogonalise(weight.grad.flatten(1)).view_as(weight) * (0.1 * 0.2 * 18**0.5)
    torch.testing.assert_close(before - weight.detach(), expected, rtol=1e-4, atol=1e-5)
    assert (before - weight.detach()).square().mean().sqrt().item() == pytest.approx(0.02, rel=0.2)


def test_momentum_is_nesterovs():
    weight, gradients = nn.Parameter(torch.zeros(2, 5)), torch.randn(2, 2, 5)
    optimizer = make([weight])
    for gradient in gradients:
        before, weight.grad = weight.detach().clone(), gradient
        optimizer.step()
    momentum = 0.95 * 0.05 * gradients[0] + 0.05 * gradients[1]
    step = orthogonalise(0.05 * gradients[1] + 0.95 * momentum) * (0.1 * 0.2 * 5**0.5)
    torch.testing.assert_close(before - weight.detach(), step, rtol=1e-3, atol=1e-5)


def test_vectors_follow_adam_with_decoupled_decay():
    bias, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    ours = make([bias], lr=0.01, weight_decay=0.1)
    theirs = torch.optim.AdamW([other], lr=0.01, weight_decay=0.1)
    for _ in range(3):
        bias.grad = other.grad = torch.tensor([1.0, -2.0, 0.5])
        ours.step()
        theirs.step()
    torch.testing.assert_close(bias, other)


def test_matrices_decay():
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    make([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.95))


def test_a_weight_without_a_gradient_stays():
    weight = nn.Parameter(torch.ones(2, 2))
    make([weight], weight_decay=0.5).step()
    assert torch.equal(weight.detach(), torch.ones(2, 2))
