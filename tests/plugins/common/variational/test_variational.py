"""What variational models share, against closed forms and independent values."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from t2i.plugins.common.variational.bound import (
    Latent,
    importance_bound,
    kl_by_map,
    kl_weight,
    log_ratio,
    with_free_bits,
)
from t2i.plugins.common.variational.clipping import SkippingAdamW
from t2i.plugins.common.variational.config import BoundConfig
from t2i.plugins.common.variational.gaussian import Gaussian, gaussian_kl, split
from t2i.plugins.common.variational.logistic import Mixture, discretised_logistic, logistic_noise
from t2i.plugins.common.variational.prior import LEAST, MOST, ConditionalPrior

F64 = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def gaussian(*shape, seed):
    return Gaussian(drawn(*shape, seed=seed), 0.5 * drawn(*shape, seed=seed + 100))


def normal(g):
    return Normal(g.mean, g.log_scale.exp())


def test_kl_and_density_are_torchs():
    q, p, x = gaussian(4, 5, seed=1), gaussian(4, 5, seed=2), drawn(4, 5)
    torch.testing.assert_close(gaussian_kl(q, p), kl_divergence(normal(q), normal(p)))
    torch.testing.assert_close(q.log_prob(x), normal(q).log_prob(x))
    torch.testing.assert_close(q.draw(x, 0.3), q.mean + 0.3 * q.log_scale.exp() * x)
    assert split(torch.cat([q.mean, q.log_scale], 1)).mean.equal(q.mean)


def linear_gaussian():
    """p(z) = N(m, diag), p(x | z) = N(A z + b, s^2), its exact marginal and posterior."""
    a, b, x = drawn(6, 3, seed=3), drawn(6, seed=4), drawn(6, seed=5)
    m, scale, s = drawn(3, seed=6), torch.tensor([0.5, 1.0, 2.0], dtype=F64), 0.7
    covariance = a @ torch.diag(scale**2) @ a.T + s**2 * torch.eye(6, dtype=F64)
    exact = torch.distributions.MultivariateNormal(a @ m + b, covariance).log_prob(x)
    precision = torch.diag(scale**-2) + a.T @ a / s**2
    spread = torch.linalg.inv(precision)
    mean = spread @ (m / scale**2 + a.T @ (x - b) / s**2)
    return a, b, x, m, scale, s, exact, mean, spread


def test_the_bound_of_a_linear_gaussian_model_is_exact_with_the_true_posterior():
    """The posterior is turned to its axes, so that it is diagonal: the bound is then the marginal,
    for any draw. With another posterior it is below by the KL to the true one."""
    a, b, x, m, scale, s, exact, mean, spread = linear_gaussian()
    # In coordinates u with z = m + diag(scale) R u the prior stays N(0, I).
    whitened = torch.diag(1 / scale) @ spread @ torch.diag(1 / scale)
    variances, turn = torch.linalg.eigh(whitened)
    centre = turn.T @ ((mean - m) / scale)
    q = Gaussian(centre[None], 0.5 * variances.log()[None])
    p = Gaussian(torch.zeros(1, 3, dtype=F64), torch.zeros(1, 3, dtype=F64))

    def log_weight(q, eps):
        u = q.draw(eps)
        z = m + scale * (u @ turn.T)
        like = Normal(z @ a.T + b, s).log_prob(x).sum(1)
        return like + log_ratio([Latent(q, p, u)])

    torch.testing.assert_close(log_weight(q, drawn(3, 3)), exact.expand(3))
    worse = Gaussian(q.mean + 0.3, q.log_scale + 0.2)
    draws = log_weight(worse, drawn(100_000, 3))
    below = float(exact - gaussian_kl(worse, q).sum())
    assert float(draws.mean()) == pytest.approx(below, abs=0.02)
    # The importance-weighted bound rises to the marginal as K grows.
    bounds = [float(importance_bound(draws.view(k, -1)).mean()) for k in (1, 10, 100)]
    assert bounds[0] < bounds[1] < bounds[2] < float(exact) + 0.01
    assert bounds[2] == pytest.approx(float(exact), abs=0.15)


def test_kl_is_summed_over_places_and_free_bits_compare_the_mean_of_the_batch():
    q, p = gaussian(2, 3, 4, 4, seed=1), gaussian(2, 3, 4, 4, seed=2)
    vector = Latent(gaussian(2, 5, seed=3), gaussian(2, 5, seed=4), drawn(2, 5))
    maps = kl_by_map([Latent(q, p, drawn(2, 3, 4, 4)), vector])
    assert maps.shape == (2, 8)
    torch.testing.assert_close(maps[:, :3], kl_divergence(normal(q), normal(p)).sum((2, 3)))
    given = torch.tensor([[0.0, 1.0, 3.0], [0.2, 0.4, 5.0]], requires_grad=True)
    loss = with_free_bits(given, 0.5)
    assert loss.item() == pytest.approx(0.5 + 0.7 + 4.0)
    loss.backward()
    assert given.grad.tolist() == [[0, 0.5, 0.5], [0, 0.5, 0.5]]
    assert float(with_free_bits(given, 0.0)) == pytest.approx(0.1 + 0.7 + 4.0)


def test_warm_up_of_the_kl_weight():
    config = BoundConfig(beta=2.0, kl_warmup=0.2)
    assert [kl_weight(config, p) for p in (0.0, 0.1, 0.2, 1.0)] == [0, 1, 2, 2]
    assert kl_weight(BoundConfig(), 0.0) == 1


def plain_logistic(level, mean, log_scale, levels=256):
    """P(level), from the distribution function in NumPy."""
    cdf = lambda v: 1 / (1 + np.exp(-(v - mean) / np.exp(log_scale)))  # noqa: E731
    x, half = 2 * level / (levels - 1) - 1, 1 / (levels - 1)
    upper = 1.0 if level == levels - 1 else cdf(x + half)
    return upper - (0.0 if level == 0 else cdf(x - half))


@pytest.mark.parametrize("levels", [256, 32])
def test_discretised_logistics_sum_to_1_and_are_differences_of_the_distribution(levels):
    x = 2 * torch.arange(levels, dtype=F64) / (levels - 1) - 1
    for mean, log_scale in ((0.1, -2.0), (-0.95, -1.0), (0.9, 0.5)):
        mean_, scale_ = torch.tensor(mean, dtype=F64), torch.tensor(log_scale, dtype=F64)
        log_prob = discretised_logistic(x, mean_, scale_, levels)
        assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-6)
        expected = np.log([plain_logistic(k, mean, log_scale, levels) for k in range(levels)])
        common = expected > math.log(1e-5)  # below it is the density times the width
        np.testing.assert_allclose(log_prob.numpy()[common], expected[common], rtol=1e-8)


def test_rare_levels_have_finite_gradients():
    mean = torch.tensor(-0.9, dtype=F64, requires_grad=True)
    log_prob = discretised_logistic(
        torch.tensor(0.9, dtype=F64), mean, torch.tensor(-7.0, dtype=F64)
    )
    log_prob.backward()
    slope, width = math.exp(7), 2 / 255
    assert float(log_prob) == pytest.approx(-1.8 * slope + 7 + math.log(width), rel=1e-9)
    assert float(mean.grad) == pytest.approx(slope, rel=1e-6)


def test_noise_of_the_logistic():
    u = torch.tensor([0.5, 0.9, 0.01], dtype=F64)
    eps = torch.special.ndtri(u)
    torch.testing.assert_close(logistic_noise(eps), (u / (1 - u)).log())
    assert logistic_noise(torch.tensor([40.0, -40.0])).abs().tolist() == pytest.approx(
        [math.log(1e5)] * 2, rel=1e-3
    )


def test_a_mixture_chains_its_colours():
    """Against a sum over components in NumPy, pixel by pixel."""
    k, b, side = 3, 2, 2
    given = drawn(b, 10 * k, side, side, seed=8)
    levels = torch.randint(0, 256, (b, 3, side, side), generator=torch.Generator().manual_seed(0))
    levels[0, :, 0, 0], levels[1, :, 0, 0] = 0, 255
    log_prob = Mixture.of(given).log_prob(levels.to(F64) / 127.5 - 1)
    for n, i, j in np.ndindex(b, side, side):
        p, v = given[n, :, i, j].numpy(), levels[n, :, i, j].numpy()
        x, rest = v / 127.5 - 1, p[k:].reshape(3, 3, k)
        weights = np.exp(p[:k]) / np.exp(p[:k]).sum()
        c, total = np.tanh(rest[:, 2]), 0.0
        for m in range(k):
            means = [
                rest[0, 0, m],
                rest[1, 0, m] + c[0, m] * x[0],
                rest[2, 0, m] + c[1, m] * x[0] + c[2, m] * x[1],
            ]
            scales = np.maximum(rest[:, 1, m], -7)
            total += weights[m] * np.prod(
                [plain_logistic(v[a], means[a], scales[a]) for a in range(3)]
            )
        assert float(log_prob[n, i, j]) == pytest.approx(math.log(total), rel=1e-8)


def test_draws_of_a_mixture_follow_its_probabilities():
    """One pixel, many draws: shares of the components, and quantiles of the red value."""
    torch.manual_seed(0)
    n, k = 20_000, 2
    given = torch.zeros(1, 10 * k, 1, 1)
    given[0, :k, 0, 0] = torch.tensor([math.log(0.3), math.log(0.7)])
    given[0, k : k + 2, 0, 0] = torch.tensor([-0.5, 0.5])  # means of red
    given[0, k + 2 : k + 4] = -4.0  # their log scales
    mixture = Mixture.of(given.expand(n, -1, -1, -1))
    images = mixture.draw(torch.randn(n, k, 1, 1), torch.randn(n, 3, 1, 1))
    red = images[:, 0, 0, 0]
    assert float((red > 0).float().mean()) == pytest.approx(0.7, abs=0.015)
    assert float(red[red > 0].std()) == pytest.approx(math.exp(-4) * math.pi / 3**0.5, rel=0.05)
    still = Mixture.of(given).draw(torch.zeros(1, k, 1, 1), torch.zeros(1, 3, 1, 1))
    assert float(still[0, 0]) == pytest.approx(0.5)


def test_the_conditional_prior_starts_as_a_unit_gaussian_and_keeps_its_scale_in_bounds():
    prior = ConditionalPrior(5, 3, 8)
    given = prior(torch.randn(4, 5))
    assert not given.mean.any()
    assert not given.log_scale.any()
    for p in prior.parameters():
        nn.init.normal_(p, std=20)
    scales = prior(torch.randn(100, 5)).log_scale
    assert float(scales.min()) == LEAST
    assert float(scales.max()) == MOST
    free = ConditionalPrior(5, 3, 0)
    assert not list(free.parameters())
    assert free(torch.randn(4, 5)).mean.shape == (4, 3)


def test_steps_with_large_gradients_are_clipped_or_skipped():
    def stepped(size, **limits):
        p = nn.Parameter(torch.zeros(2))
        optimizer = SkippingAdamW([p], lr=1.0, betas=(0.0, 0.0), eps=1.0, weight_decay=0, **limits)
        p.grad = torch.tensor([0.6, 0.8]) * size
        optimizer.step()
        return p.detach(), p.grad

    moved, gradient = stepped(10.0, clip=2.0, skip=20.0)
    torch.testing.assert_close(gradient, torch.tensor([1.2, 1.6]))
    assert moved.all()
    assert not stepped(30.0, clip=2.0, skip=20.0)[0].any()
    assert not stepped(math.nan, clip=2.0, skip=20.0)[0].any()
    assert float(stepped(30.0, clip=0.0, skip=0.0)[1].norm()) == pytest.approx(30)
