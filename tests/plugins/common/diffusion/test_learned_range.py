"""Learned variances and their loss against closed forms; respacing against the papers."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from t2i.core.errors import UserError
from t2i.core.families.schedule import DiscreteSchedule, add_noise
from t2i.core.registry.tables import registry
from t2i.plugins.common.diffusion.learned_range import (
    extremes,
    log_of_levels,
    log_variance,
    variational_bits,
)
from t2i.plugins.common.diffusion.respacing import respaced, respaced_steps

BETAS = torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=torch.float64)
SCHEDULE = DiscreteSchedule(BETAS)


def posterior(x_0, x_t, t):
    """q(x_{t-1} | x_t, x_0) by Bayes' rule: the product of N(x_t; sqrt(1 - beta) x, beta) and
    N(x; sqrt(abar) x_0, 1 - abar), in x."""
    before = (1 - BETAS[:t]).prod()
    precision = (1 - BETAS[t]) / BETAS[t] + 1 / (1 - before)
    mean = ((1 - BETAS[t]).sqrt() * x_t / BETAS[t] + before.sqrt() * x_0 / (1 - before)) / precision
    return Normal(mean, (1 / precision).sqrt() * torch.ones_like(mean))


def test_the_ends_of_the_range_are_beta_and_the_posteriors_variance():
    least, most = extremes(SCHEDULE)
    torch.testing.assert_close(most.exp(), BETAS)
    x = torch.zeros(1, dtype=torch.float64)
    variances = torch.stack([posterior(x, x, t).variance[0] for t in (1, 2, 3)])
    torch.testing.assert_close(least[1:].exp(), variances)
    assert least[0] == least[1]
    t = torch.tensor([2, 2, 2])
    v = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None]
    middle = (variances[1] * BETAS[2]).sqrt()
    torch.testing.assert_close(
        log_variance(SCHEDULE, t, v)[:, 0].exp(), torch.stack([variances[1], middle, BETAS[2]])
    )


def test_the_bound_is_the_divergence_of_gaussians_in_bits():
    torch.manual_seed(0)
    z_0, x_0, eps, v = torch.randn(4, 3, 2, 5, dtype=torch.float64)
    t = torch.tensor([1, 2, 3])
    z_t = add_noise(SCHEDULE, z_0, t, eps)
    expected = []
    for i in range(3):
        true, ours = (posterior(x[i], z_t[i], int(t[i])) for x in (z_0, x_0))
        std = (log_variance(SCHEDULE, t, v)[i] / 2).exp()
        expected.append(kl_divergence(true, Normal(ours.mean, std)).mean() / math.log(2))
    torch.testing.assert_close(
        variational_bits(SCHEDULE, z_0, z_t, t, x_0, v), torch.stack(expected)
    )
    exact = variational_bits(SCHEDULE, z_0, z_t, t, z_0, torch.full_like(v, -1))
    torch.testing.assert_close(exact, torch.zeros_like(exact), atol=1e-12, rtol=0)


def test_the_first_term_is_the_likelihood_of_8_bit_values():
    """The approximation of the distribution function is within 2e-4; all levels sum to 1."""
    levels = (torch.arange(256, dtype=torch.float64) / 127.5 - 1)[:, None]
    mean, log_std = torch.tensor([[-0.99, 0.3, 0.9]]).double(), torch.tensor(-3.0).double()
    log = log_of_levels(levels, mean.expand(256, 3), log_std.expand(256, 3))
    torch.testing.assert_close(log.exp().sum(0), torch.ones(3).double(), atol=1e-8, rtol=0)
    normal = Normal(mean, log_std.exp())
    inside = normal.cdf(levels + 1 / 255) - normal.cdf(levels - 1 / 255)
    torch.testing.assert_close(log.exp()[1:-1], inside[1:-1], atol=4e-4, rtol=0)
    z_0, t = levels.view(1, -1), torch.tensor([0])
    bits = variational_bits(SCHEDULE, z_0, z_0, t, z_0, torch.zeros_like(z_0))
    std = (log_variance(SCHEDULE, t, torch.zeros_like(z_0)) / 2).exp()
    # At the first step the mean is the predicted x_0 itself.
    ours = -log_of_levels(z_0, z_0, std.log()).mean() / math.log(2)
    torch.testing.assert_close(bits[0], ours)


FAST27 = [0, 22, 44, 66, 88, 111, 133, 155, 177, 199, 200, 222, 244, 266, 288, 311, 333, 355, 377,
          399, 400, 500, 599, 600, 799, 800, 997]  # fmt: skip


def test_respacing_chooses_the_papers_timesteps():
    assert respaced(1000, "fast27") == FAST27
    assert respaced(1000, "ddim25") == list(range(0, 1000, 40))
    assert respaced(1000, "5") == [0, 250, 500, 749, 999]
    assert respaced(300, "2,3,1") == [0, 99, 100, 150, 199, 200]
    assert respaced(10, "2,2,2") == [0, 3, 4, 6, 7, 9]
    for text in ("250", "10,15,20", "ddim50", "fast27"):
        assert len(respaced(1000, text)) == respaced_steps(text)
    with pytest.raises(UserError, match="no whole number makes 300 steps of 1000"):
        respaced(1000, "ddim300")
    with pytest.raises(UserError, match="60 steps of a section of 50"):
        respaced(100, "60,1")


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_respacing_settles_the_number_of_steps(name):
    choose = registry().samplers.choose
    assert choose(name, {"respacing": "ddim25"}).config.steps == 25
    again = choose(name, choose(name, {"respacing": "10,5"}).config.model_dump())
    assert again.config.steps == 15
    with pytest.raises(UserError, match="respacing=250 makes 250 steps, steps is 30"):
        choose(name, {"respacing": "250", "steps": 30})
    with pytest.raises(UserError, match="'many' is none of N"):
        choose(name, {"respacing": "many"})
    with pytest.raises(UserError, match="has no steps"):
        choose(name, {"respacing": "0"})
