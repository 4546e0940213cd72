"""Diffusion samplers against closed forms: for Gaussian data the exact denoiser is known, on every
path."""

from typing import get_args

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule, VESchedule, VPSchedule
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import DiscreteSchedule, Schedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.tables import registry
from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig
from t2i.plugins.common.diffusion.guidance import guided

MEAN = torch.tensor([0.7, -1.2])
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]])
PREDICTIONS = get_args(Prediction)


class Own(Schedule):
    """A path of no library: alpha = cos, sigma = 2 sin of t, t from 0 to 1.5."""

    max_ratio = 2 * float(torch.tensor(1.5).tan())

    def alpha(self, t):
        return torch.cos(t)

    def sigma(self, t):
        return 2 * torch.sin(t)

    def time_of(self, ratio):
        return torch.atan(ratio / 2)


PATHS = {
    "discrete": lambda: DiscreteSchedule.named("linear"), "vp": VPSchedule, "ve": VESchedule,
    "flow": FlowSchedule,
    "own": Own,
}  # fmt: skip
paths = pytest.mark.parametrize("path", PATHS)


class Exact(DiffusionGenerator):
    """The exact network for x_0 ~ N(sentence + MEAN, COVARIANCE) in two dimensions: with S =
    alpha^2 C + sigma^2 I, E[x_0 | x_t] = m + alpha C S^-1 (x_t - alpha m)."""

    def __init__(self, prediction="epsilon", schedule=None):
        super().__init__()
        self.schedule = schedule or DiscreteSchedule.named("linear")
        self.prediction = prediction
        self.image_size, self.noise_shape = 2, (2,)
        self.batches = []

    def forward(self, x_t, t, text):
        self.batches.append(len(x_t))
        alpha, sigma = (
            self.schedule.alpha(t)[:, None].double(),
            self.schedule.sigma(t)[:, None].double(),
        )
        m, x = (MEAN + text.sentence).double(), x_t.double()
        s = alpha[..., None] ** 2 * COVARIANCE + sigma[..., None] ** 2 * torch.eye(2)
        x_0 = (
            m
            + (alpha * torch.linalg.solve(s, (x - alpha * m)[..., None])[..., 0])
            @ COVARIANCE.double()
        )
        return self.said(x_0, (x - alpha * x_0) / sigma, t).float()

    def said(self, x_0, eps, t):
        """The prediction that x_0 and eps are."""
        alpha, sigma = (
            self.schedule.alpha(t)[:, None].double(),
            self.schedule.sigma(t)[:, None].double(),
        )
        if self.prediction == "velocity":
            d_alpha, d_sigma = (rate[:, None].double() for rate in self.schedule.rates(t))
            return d_alpha * x_0 + d_sigma * eps
        known = {
            "epsilon": eps,
            "sample": x_0,
            "v": alpha * eps - sigma * x_0,
            "score": -eps / sigma,
        }
        return known[self.prediction]


def of_steps(prediction="epsilon", steps=1000, name="linear"):
    return Exact(prediction, DiscreteSchedule.named(name, steps))


def sampler_of(name, **settings):
    return registry().samplers.build(registry().samplers.choose(name, settings))


def draw(
    name, generator=None, n=800, seed=0, null=None, sentence=0.0, keys=None, guide=None, **settings
):
    keys = keys or tuple((i, 0) for i in range(n))
    text = TextFeatures.of(sentence=torch.full((len(keys), 2), sentence))
    with torch.no_grad():
        request = Request(text=text, noise=PromptNoise(seed, keys), null=null, guide=guide)
        return sampler_of(name, **settings).sample(generator or Exact(), request)


DETERMINISTIC = ("ddim", "euler", "heun", "lms", "pndm", "dpmpp-2m", "unipc")
RANDOM = ("ddpm", "euler-a", "dpmpp-2m-sde")
FIRST_ORDER = ("ddim", "euler")
CASES = [
    ("ddpm", {}, "epsilon"),
    ("ddpm", {"variance": "beta"}, "v"),
    ("ddim", {"steps": 100, "eta": 1.0}, "v"),
    ("ddim", {"steps": 100, "eta": 0.5, "spacing": "leading"}, "v"),
]


def is_the_data(x, mean=MEAN, covariance=COVARIANCE):
    """Standard errors at n = 800 are 0.025 for the mean and about 0.025 for the covariance."""
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.08)
    torch.testing.assert_close(torch.cov(x.T), covariance, rtol=0, atol=0.09)


@pytest.mark.parametrize(("name", "settings", "prediction"), CASES)
def test_mean_and_covariance_are_the_datas(name, settings, prediction):
    is_the_data(draw(name, of_steps(prediction, steps=120), **settings))


@paths
@pytest.mark.parametrize("name", RANDOM)
def test_random_samplers_draw_the_data_on_every_path(name, path):
    is_the_data(draw(name, Exact("v", PATHS[path]()), steps=60))


def test_ddim_with_eta_1_and_all_steps_is_ddpm():
    generator = of_steps(steps=100)
    ours = draw("ddim", generator, n=8, steps=100, eta=1.0)
    theirs = draw("ddpm", generator, n=8, variance="beta~")
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def noise_of(n):
    return PromptNoise(0, tuple((i, 0) for i in range(n))).normal("x_T", 0, (2,))


def flow(schedule, noise, steps=40):
    """Where the probability flow takes x_T = norm noise, for x_0 ~ N(m, C): m + C^1/2 (alpha_T^2 C
    + sigma_T^2 I)^-1/2 (x_T - alpha_T m), whatever the path."""
    last = schedule.times(steps)[-1:]
    alpha, sigma = schedule.alpha(last).float(), schedule.sigma(last).float()

    def root(matrix, power):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values**power) @ vectors.T

    s = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2)
    x_T = (alpha**2 + sigma**2).sqrt() * noise
    return MEAN + (x_T - alpha * MEAN) @ (root(COVARIANCE, 0.5) @ root(s, -0.5)).T


@paths
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_error_falls_as_the_order_says(name, path):
    """From 10 to 40 steps: half the step halves the error of a method of first order, quarters that
    of second order."""
    generator = Exact("epsilon", PATHS[path]())
    expected = flow(generator.schedule, noise_of(16))
    few, many = ((draw(name, generator, n=16, steps=k) - expected).abs().max() for k in (10, 40))
    order = float(torch.log2(few / many)) / 2
    assert many < (0.13 if name in FIRST_ORDER else 0.02)
    by_chance = few < 0.02  # ten steps are as good as forty by a change of sign
    assert (0.8 < order < 1.2) if name in FIRST_ORDER else order > 1.6 or by_chance, order


@paths
@pytest.mark.parametrize("name", [*DETERMINISTIC, *RANDOM])
def test_every_prediction_draws_the_same(name, path):
    """The same network, told to say its prediction in other words. PNDM extrapolates what it is
    given, and given v or a velocity that is v: another method than with the noise."""
    drawn = {
        prediction: draw(name, Exact(prediction, PATHS[path]()), n=4, steps=8)
        for prediction in PREDICTIONS
    }
    for prediction in PREDICTIONS:
        first = "v" if name == "pndm" and prediction in ("v", "velocity") else "epsilon"
        torch.testing.assert_close(drawn[prediction], drawn[first], rtol=1e-3, atol=1e-4)


def test_pndm_finds_the_data_with_v_too():
    """In first order: diffusers adds extrapolated v to the x_t of one time."""
    generator = Exact("v")
    expected = flow(generator.schedule, noise_of(16))
    few, many = ((draw("pndm", generator, n=16, steps=k) - expected).abs().max() for k in (20, 80))
    assert many < 0.06
    assert few > 3 * many


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_schedule_that_ends_without_signal_is_survived(name, prediction):
    generator = of_steps(prediction, name="cosine")
    expected = flow(
        Exact().schedule, noise_of(16)
    )  # where no signal is left, all schedules flow to the same images
    for steps, most in ((10, 0.5), (25, 0.12)):
        assert (draw(name, generator, n=16, steps=steps) - expected).abs().max() < most, steps


def test_the_noisiest_step_of_a_cosine_schedule_is_exact():
    """Its abar is 2e-9. In float32 1 - beta of a long step from there is 0."""
    generator = of_steps("epsilon", name="cosine")
    generator.forward = lambda x_t, t, text: 0.5 * x_t
    ours = draw("ddim", generator, n=4, respacing="2", sigma_max=None)
    x = noise_of(4).double()
    low, high = generator.schedule.alphas_cumprod[[0, 999]].tolist()
    for abar, before in ((high, low), (low, 1.0)):
        x_0 = (x - (1 - abar) ** 0.5 * 0.5 * x) / abar**0.5
        x = before**0.5 * x_0 + (1 - before) ** 0.5 * 0.5 * x
    torch.testing.assert_close(ours.double(), x, rtol=1e-5, atol=0)
    assert draw("ddpm", generator, n=4, respacing="2", sigma_max=None).isfinite().all()


@paths
def test_euler_is_ddim(path):
    generator = Exact("epsilon", PATHS[path]())
    ours, theirs = (draw(name, generator, n=8, steps=20) for name in ("euler", "ddim"))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@paths
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_inversion_finds_the_noise(path, prediction):
    schedule, x_T = PATHS[path](), noise_of(16)
    request = Request(
        text=TextFeatures.of(sentence=torch.zeros(16, 2)), noise=PromptNoise(0, ((0, 0),) * 16)
    )
    errors = []
    for steps in (50, 100):
        x_0 = flow(schedule, x_T, steps)
        with torch.no_grad():
            found = sampler_of("ddim", steps=steps).invert(
                Exact(prediction, schedule), x_0, request
            )
        errors.append((found - x_T).abs().max())
    assert errors[1] < 0.2
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ddim", {"steps": 5, "eta": 1.0}),
        *((name, {"steps": 5}) for name in (*DETERMINISTIC, *RANDOM)),
    ],
)
def test_the_same_noise_gives_the_same_image_in_any_batch(name, settings):
    keys = ((0, 0), (0, 1), (3, 0))
    together = draw(name, keys=keys, **settings)
    for i, key in enumerate(keys):
        torch.testing.assert_close(
            draw(name, keys=(key,), **settings)[0], together[i], rtol=1e-5, atol=1e-5
        )
    assert (together[0] - together[1]).abs().max() > 0.01


def test_guidance_moves_along_the_difference_and_runs_one_batch():
    generator, null = Exact(), TextFeatures.of(sentence=torch.zeros(64, 2))
    plain = draw("ddim", generator, n=64, steps=20, sentence=1.0)
    assert generator.batches == [64] * 20  # guidance 1: the unconditional branch is not run
    generator.batches.clear()
    stronger = draw("ddim", generator, n=64, steps=20, sentence=1.0, guidance=2.0, null=null)
    assert generator.batches == [128] * 20
    unconditional = draw("ddim", generator, n=64, steps=20)
    # The exact prediction is affine in the sentence, so guiding by 2 is the exact network for the
    # sentence 2.
    torch.testing.assert_close(
        stronger, draw("ddim", generator, n=64, steps=20, sentence=2.0), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(plain - unconditional, stronger - plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp-2m"])
def test_guidance_outside_its_interval_costs_nothing(name):
    generator, null = of_steps(steps=100), TextFeatures.of(sentence=torch.zeros(4, 2))
    draw(
        name,
        generator,
        n=4,
        steps=10,
        sentence=1.0,
        guidance=3.0,
        null=null,
        guidance_interval=(0.25, 0.75),
    )
    assert generator.batches == [
        4,
        4,
        4,
        8,
        8,
        8,
        8,
        8,
        4,
        4,
    ]  # noise levels 1, 0.9, 0.8, 0.7 ... 0.3, 0.2, 0.1
    with pytest.raises(UserError, match="two ascending numbers between 0 and 1"):
        draw(name, n=1, guidance_interval=(0.8, 0.2))
    generator = Exact("epsilon", VESchedule())
    draw(name, generator, n=4, steps=10, guidance=3.0, null=null, guidance_interval=(0.5, 1.0))
    assert generator.batches == [8] * int((VESchedule().times(10) >= 1).sum()) + [4] * int(
        (VESchedule().times(10) < 1).sum()
    )


def test_rescaled_guidance_keeps_the_spread_of_the_conditional_prediction():
    class Fixed(Exact):
        def forward(self, x_t, t, text):
            return text.sentence[:, :1] * torch.tensor([[1.0, -2.0]]) + text.sentence[:, 1:]

    config = DiffusionSamplerConfig(guidance=5.0, guidance_rescale=0.25)
    text, null = (
        TextFeatures.of(sentence=torch.tensor([pair])) for pair in ([1.0, 3.0], [0.5, 1.0])
    )
    request = Request(text=text, noise=PromptNoise(0, ((0, 0),)), null=null)
    given, plain = torch.tensor([[4.0, 1.0]]), torch.tensor([[1.5, 0.0]])
    strong = plain + 5 * (given - plain)
    expected = 0.25 * strong * given.std() / strong.std() + 0.75 * strong
    found = guided(Fixed(), request, config)(torch.zeros(1, 2), torch.tensor([10]), 0.5)
    torch.testing.assert_close(found, expected)


def test_what_cannot_be_sampled_says_why():
    with pytest.raises(UserError, match=r"guidance 2\.0 needs"):
        draw("ddim", n=1, guidance=2.0)
    with pytest.raises(UserError, match="at most"):
        draw("ddpm", of_steps(steps=50), n=1, steps=51)
    for schedule in (VPSchedule(), VESchedule(), FlowSchedule()):
        generator = Exact("epsilon", schedule)
        with pytest.raises(UserError, match="name a number of sampling steps"):
            sampler_of("ddpm").check(generator)
        with pytest.raises(UserError, match="use end=x_0"):
            sampler_of("pndm", end="first").check(generator)
        with pytest.raises(UserError, match="use spacing=trailing"):
            sampler_of("ddim", spacing="linspace").check(generator)


def test_progress_is_reported_step_by_step():
    seen = []
    text = TextFeatures.of(sentence=torch.zeros(1, 2))
    request = Request(
        text=text, noise=PromptNoise(0, ((0, 0),)), progress=lambda *at: seen.append(at)
    )
    sampler_of("ddim", steps=3).sample(Exact(), request)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_scheduler_of_diffusers_has_its_own_options_and_needs_steps():
    generator = of_steps(steps=100)
    karras = {"scheduler": "EulerDiscreteScheduler", "options": {"use_karras_sigmas": True}}
    plain = {"scheduler": "EulerDiscreteScheduler"}
    assert not torch.equal(draw("scheduler", generator, n=4, **karras),
                           draw("scheduler", generator, n=4, **plain))  # fmt: skip
    for settings, named in (
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "schedulers that can be used are DDIM"),
        ({"options": {"karras": True}}, "options.karras: DPMSolver.* has no such option; it has"),
        ({"options": {"trained_betas": [0.1]}}, "options.trained_betas: "),
        ({"options": {"beta_schedule": "linear"}}, "options.beta_schedule: "),
        ({"options": {"solver_type": "none"}}, "options of DPMSolverMultistepScheduler: "),
        ({"steps": 101, "scheduler": "DDIMScheduler"}, "101 steps of DDIMScheduler: "),
    ):
        with pytest.raises(UserError, match=named):
            sampler_of("scheduler", **settings).check(generator)
    with pytest.raises(UserError, match="noise levels are continuous"):
        sampler_of("scheduler").check(Exact("v", VPSchedule()))
