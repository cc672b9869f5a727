"""The covariance roots: operators, derivatives, and covariances that are hard to invert."""

import pytest
import torch

from anynorm.ops.whitening import inverse_root, moments

ROOT = torch.ops.anynorm.inverse_square_root.default
TRACK = torch.ops.anynorm.track_.default


def covariance(groups=2, channels=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(groups, channels, 20, generator=generator, dtype=torch.float64)
    return moments(x)[1] + torch.diag(torch.arange(1.0, 1.0 + channels, dtype=torch.float64))


def test_opcheck():
    torch.library.opcheck(ROOT, (covariance().requires_grad_(),))


@pytest.mark.parametrize("counted", [True, False])
def test_opcheck_of_the_running_update(counted):
    count = torch.tensor(0) if counted else None
    batch = torch.randn(3), torch.rand(3)
    torch.library.opcheck(TRACK, (torch.zeros(3), torch.ones(3), count, *batch, 0.1, 1.25))


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_the_root_whitens(kind):
    sigma = covariance()
    root = inverse_root(sigma, kind, 0.0)
    eye = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    torch.testing.assert_close(root @ sigma @ root.mT, eye)


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_first_and_second_derivatives(kind):
    def function(matrix):
        return inverse_root((matrix + matrix.mT) / 2, kind, 1e-3)

    assert torch.autograd.gradcheck(function, (covariance().requires_grad_(),))
    assert torch.autograd.gradgradcheck(function, (covariance().requires_grad_(),))


def test_equal_eigenvalues_have_a_finite_gradient():
    sigma = torch.eye(3, dtype=torch.float64)[None].requires_grad_()

    def function(matrix):
        return inverse_root((matrix + matrix.mT) / 2, "zca", 1e-3)

    assert torch.autograd.gradcheck(function, (sigma,))


def test_vmap():
    many = torch.stack([covariance(), 2 * covariance()])
    each = torch.stack([inverse_root(sigma, "zca", 1e-5) for sigma in many])
    torch.testing.assert_close(torch.vmap(lambda s: inverse_root(s, "zca", 1e-5))(many), each)
    torch.testing.assert_close(torch.vmap(ROOT)(many), torch.stack([ROOT(sigma) for sigma in many]))


def test_a_group_that_is_not_finite_leaves_the_others_alone():
    sigma = covariance()
    expected = inverse_root(sigma, "zca", 1e-5)[1]
    sigma[0, 0, 0] = float("nan")
    torch.testing.assert_close(inverse_root(sigma, "zca", 1e-5)[1], expected)
