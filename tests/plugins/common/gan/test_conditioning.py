"""Conditioning augmentation and its KL term."""

import math

import pytest
import torch
from torch.nn import functional as F

from t2i.plugins.common.gan.conditioning.augmentation import ConditioningAugmentation, kl_loss


def test_kl_is_that_of_the_two_gaussians():
    mean, logvar = torch.tensor([[0.5, -1.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [-2.0, 0.3]])
    ours = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    exact = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).mean()
    assert kl_loss(mean, logvar).item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize(("activation", "width"), [("relu", 6), ("glu", 12)])
def test_augmentation_draws_from_its_gaussian_and_zeros_give_the_mean(activation, width):
    torch.manual_seed(0)
    augment = ConditioningAugmentation(4, 3, activation)
    assert augment.linear.weight.shape == (width, 4)
    phi, eps = torch.randn(2, 4), torch.randn(2, 3)
    hidden = F.linear(phi, augment.linear.weight, augment.linear.bias)
    both = hidden.relu() if activation == "relu" else hidden[:, :6] * hidden[:, 6:].sigmoid()
    drawn, mean, logvar = augment(phi, eps)
    torch.testing.assert_close(torch.cat([mean, logvar], 1), both)
    torch.testing.assert_close(drawn, mean + eps * torch.sqrt(logvar.exp()))
    assert torch.equal(augment(phi, torch.zeros(2, 3))[0], mean)
    assert math.isfinite(kl_loss(mean, logvar))
