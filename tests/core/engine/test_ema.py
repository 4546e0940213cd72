"""Averaged weights against the closed forms of their weights of each step."""

import pytest
import torch

from t2i.core.engine.ema import Ema, gamma_of
from t2i.core.errors import UserError
from t2i.core.settings.engine import MOST_SIGMA_REL, EngineConfig


def weights_of(steps, **settings):
    """The weight of each step in the averages, found by averaging one-hot parameters."""
    parameter = torch.nn.Parameter(torch.full((steps,), 7.0, dtype=torch.float64))
    ema = Ema.of({"p": parameter}, EngineConfig(**settings))
    for step in range(steps):
        with torch.no_grad():
            parameter.zero_()[step] = 1
        ema.update()
    return ema.state()["p"]


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_power_function_averages_weight_steps_by_a_power(sigma_rel):
    """prod_(r > s) (1 - 1/r)^(gamma + 1) = (s/n)^(gamma + 1), so that step s weighs (s/n)^(gamma +
    1) - ((s - 1)/n)^(gamma + 1). The parameters at the start have no weight."""
    n = 400
    share = torch.arange(n + 1, dtype=torch.float64) / n
    found = weights_of(n, ema_sigma_rel=sigma_rel)
    power = share ** (gamma_of(sigma_rel) + 1)
    torch.testing.assert_close(found, power[1:] - power[:-1], rtol=1e-9, atol=1e-12)
    middle = (share[1:] + share[:-1]) / 2
    mean = (found * middle).sum()
    width = ((found * (middle - mean) ** 2).sum() / found.sum()).sqrt()
    assert float(width) == pytest.approx(sigma_rel, rel=1e-3)


def test_gamma_is_the_root_of_the_variance():
    for sigma_rel in (0.01, 0.05, 0.1, 0.2, MOST_SIGMA_REL):
        gamma = gamma_of(sigma_rel)
        assert gamma > 0
        assert (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) == pytest.approx(sigma_rel**2)
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.01)  # Karras et al. 2024, section 3.1
    assert gamma_of(0.1) == pytest.approx(6.94, abs=0.01)


def products(betas):
    """The weights of steps with these decays, by brute force."""
    weights = torch.ones(len(betas), dtype=torch.float64)
    for step, beta in enumerate(betas):
        weights[step] = 1 - beta
        weights[:step] *= beta
    return weights


def test_exponential_averages_warm_up_by_their_count_or_by_a_half_life():
    usual = [min(0.9, (1 + n) / (10 + n)) for n in range(1, 201)]
    torch.testing.assert_close(weights_of(200, ema_decay=0.9), products(usual))
    ramped = [min(0.9, 0.5 ** (1 / (0.05 * n))) for n in range(1, 201)]
    assert ramped[0] == pytest.approx(0.5**20)
    assert ramped[-1] == 0.9
    torch.testing.assert_close(weights_of(200, ema_decay=0.9, ema_rampup=0.05), products(ramped))


def test_averages_go_on_from_a_checkpoint_as_if_never_stopped():
    torch.manual_seed(0)
    walk = torch.randn(40, 3).cumsum(0)
    settings = EngineConfig(ema_sigma_rel=0.1)
    parameter = torch.nn.Parameter(torch.zeros(3))
    whole = part = Ema.of({"p": parameter}, settings)
    for step, value in enumerate(walk):
        if step == 17:
            part = Ema.of({"p": parameter}, settings)
            part.load({"p": whole.state()["p"].clone()}, whole.count)
        parameter.data = value.clone()
        whole.update()
        if step >= 17:
            part.update()
    assert part is not whole
    assert torch.equal(whole.state()["p"], part.state()["p"])


def test_no_decay_is_no_average_and_two_kinds_are_refused():
    parameter = torch.nn.Parameter(torch.zeros(1))
    assert not Ema.of({"p": parameter}, EngineConfig(ema_decay=0, ema_sigma_rel=0.1)).state()
    with pytest.raises(UserError, match="ema_rampup belongs to exponential averages"):
        EngineConfig.of({"ema_sigma_rel": 0.1, "ema_rampup": 0.05}, "test")
    with pytest.raises(UserError, match="ema_sigma_rel"):
        EngineConfig.of({"ema_sigma_rel": 0.29}, "test")
