"""Conversions between all predictions, against values that are computed from x_0 and eps by
hand."""

import math
from itertools import product
from typing import get_args

import pytest
import torch

from t2i.core.families.continuous import FlowSchedule, SubVPSchedule, VESchedule, VPSchedule
from t2i.core.families.prediction import Prediction, converted, shifted_by_score, target
from t2i.core.families.schedule import DiscreteSchedule

PREDICTIONS = get_args(Prediction)


def vp(t):
    """Song et al. 2021, eq. 33, with derivatives by hand: b = beta(t), A = int beta."""
    b, integral = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t * t
    alpha, sigma = math.exp(-integral / 2), math.sqrt(1 - math.exp(-integral))
    return alpha, sigma, -0.5 * b * alpha, 0.5 * b * alpha**2 / sigma


def sub_vp(t):
    """Song et al. 2021, eq. 29: sigma = 1 - alpha^2, so sigma' = -2 alpha alpha'."""
    alpha, _, d_alpha, _ = vp(t)
    return alpha, 1 - alpha**2, d_alpha, -2 * alpha * d_alpha


def discrete(t):
    """From the table of diffusers' linear betas; rates are central differences of log(sigma /
    alpha)."""
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).tolist()
    log = [0.5 * math.log((1 - a) / a) for a in (abar[t - 1], abar[t], abar[t + 1])]
    alpha, sigma, rate = abar[t] ** 0.5, (1 - abar[t]) ** 0.5, (log[2] - log[0]) / 2
    return alpha, sigma, -alpha * sigma**2 * rate, alpha**2 * sigma * rate


PATHS = {  # a schedule, times, and (alpha, sigma, alpha', sigma') at a time
    "discrete": (DiscreteSchedule.named("linear"), [3, 500, 900], discrete),
    "vp": (VPSchedule(), [0.05, 0.4, 0.9], vp),
    "sub-vp": (SubVPSchedule(), [0.05, 0.4, 0.9], sub_vp),
    "ve": (VESchedule(), [0.01, 1.0, 50.0], lambda t: (1.0, t, 0.0, 1.0)),
    "flow": (FlowSchedule(), [0.05, 0.4, 0.9], lambda t: (1 - t, t, -1.0, 1.0)),
}


def by_hand(x_0, eps, alpha, sigma, d_alpha, d_sigma):
    return {
        "epsilon": eps,
        "sample": x_0,
        "v": alpha * eps - sigma * x_0,
        "velocity": d_alpha * x_0 + d_sigma * eps,
        "score": -eps / sigma,
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("given", "wanted"), product(PREDICTIONS, PREDICTIONS))
def test_each_prediction_becomes_each_other(path, given, wanted):
    schedule, times, numbers = PATHS[path]
    x_0, eps = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, time in enumerate(times):
        alpha, sigma, *rates = numbers(time)
        values = by_hand(x_0[row : row + 1], eps[row : row + 1], alpha, sigma, *rates)
        x_t = alpha * values["sample"] + sigma * values["epsilon"]
        t = torch.tensor([float(time)], dtype=torch.float64)
        found = converted(schedule, x_t, t, values[given], given, wanted)
        torch.testing.assert_close(found, values[wanted], rtol=1e-6, atol=1e-8)
        made = target(schedule, wanted, values["sample"], t, values["epsilon"])
        torch.testing.assert_close(made, values[wanted], rtol=1e-6, atol=1e-8)


KNOWN_AT = {  # what follows from x_t and each prediction at the two ends of the straight path
    0.0: {
        "epsilon": {"epsilon", "sample", "v", "velocity"},
        "sample": {"sample"},
        "v": {"epsilon", "sample", "v", "velocity"},
        "velocity": {"epsilon", "sample", "v", "velocity"},
    },
    1.0: {
        "epsilon": {"epsilon", "score"},
        "sample": set(PREDICTIONS),
        "v": set(PREDICTIONS),
        "velocity": set(PREDICTIONS),
        "score": {"epsilon", "score"},
    },
}


@pytest.mark.parametrize("end", KNOWN_AT)
def test_at_the_ends_whatever_is_known_is_exact(end):
    schedule, x_0, eps = FlowSchedule(), torch.tensor([[0.5, -1.5]]), torch.tensor([[1.0, 2.0]])
    t = torch.tensor([end])
    x_t = eps if end else x_0
    truth = {
        "epsilon": eps,
        "sample": x_0,
        "v": -x_0 if end else eps,
        "velocity": eps - x_0,
        "score": -eps,
    }
    for given, known in KNOWN_AT[end].items():
        for wanted in PREDICTIONS:
            found = converted(schedule, x_t, t, truth[given], given, wanted)
            if wanted in known:
                torch.testing.assert_close(found, truth[wanted])
            else:
                assert not found.isfinite().any(), (given, wanted)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_gradient_is_added_to_the_score_and_the_rest_follows(path, prediction):
    schedule, times, numbers = PATHS[path]
    alpha, sigma, *rates = numbers(times[1])
    t = torch.tensor([float(times[1])], dtype=torch.float64)
    x_t, score, gradient = torch.randn(
        3, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def all_of(score):
        eps = -sigma * score
        return by_hand((x_t - sigma * eps) / alpha, eps, alpha, sigma, *rates)

    before, after = all_of(score)[prediction], all_of(score + gradient)[prediction]
    torch.testing.assert_close(
        shifted_by_score(schedule, prediction, x_t, t, before, gradient), after
    )
