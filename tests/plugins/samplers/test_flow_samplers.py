"""The samplers ode, edm-heun, flow-euler and pc against closed forms for Gaussian data."""

import math
from typing import get_args

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule, SubVPSchedule, VESchedule, VPSchedule
from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.text import TextFeatures
from tests.plugins.samplers.gaussians import (
    COVARIANCE,
    MEAN,
    Points,
    draw,
    flowed,
    moments,
    request_of,
    sampler_of,
)

PATHS = {
    "linear": DiscreteSchedule.named("linear"), "cosine": DiscreteSchedule.named("cosine"),
    "vp": VPSchedule(), "sub-vp": SubVPSchedule(), "ve": VESchedule(), "mixing": FlowSchedule(),
}  # fmt: skip
OWN = ("ode", "edm-heun", "flow-euler", "pc")
paths = pytest.mark.parametrize("path", PATHS)


def noise_of(generator, count):
    return request_of(generator, count).noise.normal("x_T", 0, generator.noise_shape)


def first_ratio(name, schedule):
    most = {"ode": 200.0, "edm-heun": 80.0, "flow-euler": 1e12}[name]
    return min(most, schedule.max_ratio)


def error(name, path, prediction="v", **settings):
    """Largest distance from where the probability flow takes the same noise."""
    generator = Points(PATHS[path], prediction, 8)
    expected = flowed(noise_of(generator, 2), first_ratio(name, generator.schedule))
    return float((draw(name, generator, 2, **settings) - expected).abs().max())


@paths
def test_ode_is_the_flow_to_its_tolerance(path):
    assert error("ode", path) < 3e-4
    assert error("ode", path, method="rk23", rtol=1e-4, atol=1e-4) < 3e-3


@paths
@pytest.mark.parametrize(
    ("name", "settings", "order", "steps"),
    [
        ("ode", {}, 4, (8, 16)),
        ("edm-heun", {}, 2, (24, 48)),
        ("flow-euler", {}, 1, (16, 32)),
        ("flow-euler", {"solver": "heun"}, 2, (16, 32)),
        ("flow-euler", {"solver": "heun", "shift": 2.0}, 2, (16, 32)),
    ],
)
def test_the_error_falls_as_the_order_says(name, settings, order, steps, path):
    few, many = (error(name, path, steps=count, **settings) for count in steps)
    assert order - 0.35 < math.log2(few / many) < order + 0.6, (few, many)


@pytest.mark.parametrize("name", OWN)
@paths
def test_every_prediction_draws_the_same(name, path):
    settings = {"steps": 6} | ({"corrector_steps": 0} if name == "pc" else {})
    # flow-euler begins a little below pure noise where eps does not determine x_0.
    close = {"rtol": 1e-3, "atol": 2e-2 if (name, path) == ("flow-euler", "mixing") else 1e-4}
    drawn = [
        draw(name, Points(PATHS[path], prediction, 4), **settings)
        for prediction in get_args(Prediction)
    ]
    for other in drawn[1:]:
        torch.testing.assert_close(other, drawn[0], **close)


@paths
def test_what_ode_inverts_it_samples_again(path):
    generator = Points(PATHS[path], "v", 8)
    torch.manual_seed(0)
    images = MEAN[:, None] + torch.linalg.cholesky(COVARIANCE) @ torch.randn(2, 2, 8).double()
    sampler, request = sampler_of("ode"), request_of(generator, 2)
    with torch.no_grad():
        noise = sampler.invert(generator, images.float(), request)
    back = draw("ode", generator, 2, given=noise)
    assert float((back - images).abs().max()) < 1e-3
    ratio = first_ratio("ode", generator.schedule)
    assert float((flowed(noise, ratio) - images).abs().max()) < 1e-3


CHAINS = [
    ("linear", {}),
    ("linear", {"predictor": "ancestral", "corrector_steps": 0}),
    ("linear", {"predictor": "none", "corrector_steps": 3, "snr": 0.2}),
    ("cosine", {"order": "paper"}),
    ("vp", {"predictor": "euler-maruyama"}),
    ("vp", {"predictor": "ancestral", "variance": "beta", "corrector_steps": 0}),
    ("sub-vp", {"predictor": "euler-maruyama", "corrector_steps": 0}),
    ("sub-vp", {}),
    ("ve", {}),
    ("ve", {"predictor": "ancestral", "order": "paper"}),
    ("mixing", {"corrector_steps": 0}),
]


@pytest.mark.parametrize(("path", "settings"), CHAINS)
def test_predictors_and_correctors_draw_the_data(path, settings):
    """Standard errors at n = 3000 are 0.013 for the mean and the covariance."""
    points = draw("pc", Points(PATHS[path], "epsilon", 3000), steps=100, **settings)[0]
    mean, covariance = moments(points)
    assert mean < 0.05
    assert covariance < 0.06


@pytest.mark.parametrize("shift", [0.001, 1000.0])
def test_shifts_keep_the_ends_of_the_times_and_extreme_ones_are_refused(shift):
    times = sampler_of("flow-euler", steps=4, shift=shift).times(Points(PATHS["mixing"], "v"))
    assert times[0] == pytest.approx(1)
    assert times[-1] == 0
    assert times == sorted(times, reverse=True)
    with pytest.raises(UserError, match="shift"):
        sampler_of("flow-euler", shift=shift**100)


def test_a_corrector_alone_visits_every_level_in_either_order():
    generator, alone = Points(PATHS["linear"], "epsilon", 4), {"predictor": "none", "steps": 3}
    assert torch.equal(*(draw("pc", generator, order=o, **alone) for o in ("code", "paper")))


def test_pc_is_ddpm_where_both_take_the_same_steps():
    """The ancestral predictor without a corrector has the mean of DDPM's posterior; with the same
    noise it would be the same chain. Here the noise is left out by a single step."""
    generator = Points(PATHS["linear"], "epsilon", 4)
    ours = draw("pc", generator, steps=1, predictor="ancestral", corrector_steps=0)
    theirs = draw("ddpm", generator, steps=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_churn_adds_noise_and_leaves_the_distribution():
    generator = Points(PATHS["vp"], "epsilon", 4000)
    plain = draw("edm-heun", generator, steps=40)[0]
    random = draw("edm-heun", generator, steps=40, churn=20.0)[0]
    assert float((plain - random).abs().max()) > 0.5
    assert max(moments(random)) < 0.05
    inside = draw("edm-heun", generator, steps=40, churn=20.0, s_min=1e3)[0]
    assert torch.equal(inside, plain)
    louder = draw("edm-heun", generator, steps=40, churn=20.0, s_noise=1.2)[0]
    assert torch.cov(louder).trace() > 1.02 * torch.cov(random).trace()


def test_churn_at_the_very_end_of_the_schedule_is_none():
    """(80^(1/5))^5 is above 80 in float64: there is no noise to add, and no root of a negative."""
    generator = Points(PATHS["ve"], "v", 3)
    assert sampler_of("edm-heun", rho=5.0).levels(generator)[0] > generator.schedule.max_ratio
    assert draw("edm-heun", generator, steps=4, churn=40.0, rho=5.0).isfinite().all()


def test_the_levels_of_edm_heun_do_not_depend_on_the_times_of_the_schedule():
    assert error("edm-heun", "cosine", steps=40) < 0.03
    levels = sampler_of("edm-heun", steps=4).levels(Points(PATHS["cosine"]))
    assert levels[0] == pytest.approx(80)
    assert levels[-1] == 0
    roots = [level ** (1 / 7) for level in levels[:-1]]
    assert roots[0] - roots[1] == pytest.approx(roots[2] - roots[3])


@pytest.mark.parametrize("name", OWN)
def test_the_same_noise_gives_the_same_image_in_any_batch(name):
    settings = {"ode": {}, "edm-heun": {"steps": 6, "churn": 5.0}}.get(name, {"steps": 6})
    generator, keys = Points(PATHS["linear"], "v", 3), ((0, 0), (0, 1), (3, 0))
    together = draw(name, generator, keys=keys, **settings)
    for i, key in enumerate(keys):
        alone = draw(name, generator, keys=(key,), **settings)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-6, atol=1e-6)
    assert float((together[0] - together[1]).abs().max()) > 0.01


@pytest.mark.parametrize("name", OWN)
def test_guidance_moves_along_the_difference(name):
    """The exact prediction is affine in the sentence: guiding by 2 is the network for twice it."""
    settings = {"steps": 6} | ({"corrector_steps": 0} if name == "pc" else {})
    generator, null = Points(PATHS["vp"], "v", 3), TextFeatures.of(sentence=torch.zeros(1, 2))
    guided = draw(name, generator, sentence=1.0, null=null, guidance=2.0, **settings)
    twice = draw(name, generator, sentence=2.0, **settings)
    torch.testing.assert_close(guided, twice, rtol=1e-3, atol=1e-3)
    inside = draw(name, generator, sentence=1.0, null=null, guidance=2.0,
                  guidance_interval=(0.2, 0.6), **settings)  # fmt: skip
    plain = draw(name, generator, sentence=1.0, **settings)
    assert float((inside - plain).abs().max()) > 0.01
    assert float((inside - guided).abs().max()) > 0.01


def test_images_on_both_sides_of_the_guidance_interval_are_solved_as_alone():
    generator = Points(PATHS["vp"], "v", 3)
    keys, settings = ((0, 0), (0, 1)), {"guidance": 3.0, "guidance_interval": (0.3, 0.7)}
    null = TextFeatures.of(sentence=torch.zeros(2, 2))
    both = draw("ode", generator, keys=keys, sentence=1.0, null=null, **settings)
    for i, key in enumerate(keys):
        alone = draw("ode", generator, keys=(key,), sentence=1.0, null=null[i : i + 1], **settings)
        torch.testing.assert_close(alone[0], both[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OWN)
def test_progress_is_reported_to_the_end(name):
    seen, generator = [], Points(PATHS["linear"], "v")
    request = request_of(generator, progress=lambda *at: seen.append(at))
    with torch.no_grad():
        sampler_of(name, steps=3).sample(generator, request)
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen)
    assert len(seen) == 3


def test_what_cannot_be_sampled_says_why():
    linear = Points(PATHS["linear"])
    for name in ("ode", "edm-heun"):
        with pytest.raises(UserError, match=r"sigma_min .* must be below sigma_max"):
            sampler_of(name, sigma_max=0.005).check(linear)
    with pytest.raises(UserError, match="predictor=none needs a corrector"):
        sampler_of("pc", predictor="none", corrector_steps=0)
    with pytest.raises(UserError, match="at most"):
        sampler_of("pc", steps=1001).check(linear)
    for tolerance in ("rtol", "atol"):
        with pytest.raises(UserError, match=tolerance):
            sampler_of("ode", **{tolerance: 1e-12})
    with pytest.raises(UserError, match=r"sigma_max = 0\.001: this model's lowest noise level"):
        sampler_of("pc", steps=3, sigma_max=1e-3).check(Points(PATHS["ve"]))
    sampler_of("pc").check(Points(PATHS["ve"]))
    with pytest.raises(UserError, match=r"guidance 2\.0 needs"):
        draw("ode", linear, guidance=2.0)
