"""Diffusion samplers against a closed form: for Gaussian data the exact denoiser is known."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import DiscreteSchedule, MixingSchedule, Schedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.specs import resolve
from t2i.core.registry.tables import registry
from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig
from t2i.plugins.common.diffusion.sampling import guided

MEAN = torch.tensor([0.7, -1.2])
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]])


class Exact(DiffusionGenerator):
    """The exact network for x_0 ~ N(sentence + MEAN, COVARIANCE) in two dimensions: with S = alpha^2 C + sigma^2 I,
    E[x_0 | x_t] = m + alpha C S^-1 (x_t - alpha m)."""

    def __init__(self, prediction="epsilon", steps=1000, schedule="linear"):
        super().__init__()
        self.schedule = MixingSchedule() if schedule == "mixing" else DiscreteSchedule.named(schedule, steps)
        self.prediction = prediction
        self.image_size, self.noise_shape = 2, (2,)
        self.batches = []

    def forward(self, x_t, t, text):
        self.batches.append(len(x_t))
        alpha, sigma = self.schedule.alpha(t)[:, None].double(), self.schedule.sigma(t)[:, None].double()
        m, x = (MEAN + text.sentence).double(), x_t.double()
        s = alpha[..., None] ** 2 * COVARIANCE + sigma[..., None] ** 2 * torch.eye(2)
        x_0 = m + (alpha * torch.linalg.solve(s, (x - alpha * m)[..., None])[..., 0]) @ COVARIANCE.double()
        eps = (x - alpha * x_0) / sigma
        return {"epsilon": eps, "sample": x_0, "v": alpha * eps - sigma * x_0}[self.prediction].float()


def draw(name, generator=None, n=1500, seed=0, null=None, sentence=0.0, keys=None, guide=None, **settings):
    spec = registry().samplers[name]
    sampler = resolve(spec.build)(resolve(spec.config).of(settings, name))
    keys = keys or tuple((i, 0) for i in range(n))
    text = TextFeatures.of(sentence=torch.full((len(keys), 2), sentence))
    with torch.no_grad():
        request = Request(text=text, noise=PromptNoise(seed, keys), null=null, guide=guide)
        return sampler.sample(generator or Exact(), request)


DETERMINISTIC = ("ddim", "euler", "heun", "lms", "pndm", "dpmpp-2m", "unipc")
RANDOM = ("ddpm", "euler-a", "dpmpp-2m-sde")
CASES = [
    *((name, {"steps": 100}, "epsilon") for name in DETERMINISTIC[1:]),
    *((name, {"steps": 100}, "v") for name in ("euler", "heun", "pndm", "unipc")),
    *((name, {"steps": 100}, "sample") for name in ("euler-a", "lms", "pndm", "dpmpp-2m")),
    *((name, {"steps": 200}, "epsilon") for name in RANDOM),
    ("ddpm", {"steps": 200}, "epsilon"),
    ("ddpm", {"variance": "beta"}, "v"),
    ("ddim", {"steps": 200}, "epsilon"),
    ("ddim", {"steps": 200}, "sample"),
    ("ddim", {"steps": 250, "eta": 1.0}, "v"),
    ("ddim", {"steps": 200, "eta": 0.5, "spacing": "leading"}, "v"),
]


@pytest.mark.parametrize(("name", "settings", "prediction"), CASES)
def test_mean_and_covariance_are_the_datas(name, settings, prediction):
    x = draw(name, Exact(prediction, steps=250), **settings)
    # Standard errors at n = 1500 are 0.018 for the mean and about 0.018 for the covariance.
    torch.testing.assert_close(x.mean(0), MEAN, rtol=0, atol=0.06)
    torch.testing.assert_close(torch.cov(x.T), COVARIANCE, rtol=0, atol=0.07)


def test_ddim_with_eta_1_and_all_steps_is_ddpm():
    generator = Exact(steps=100)
    ours = draw("ddim", generator, n=8, steps=100, eta=1.0)
    theirs = draw("ddpm", generator, n=8, variance="beta~")
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def noise_of(n):
    return PromptNoise(0, tuple((i, 0) for i in range(n))).normal("x_T", 0, (2,))


def flow(generator, noise):
    """Where the probability flow takes x_T, for x_0 ~ N(m, C): m + C^1/2 (alpha_T^2 C + sigma_T^2 I)^-1/2
    (x_T - alpha_T m)."""
    last = torch.tensor([len(generator.schedule) - 1])
    alpha, sigma = generator.schedule.alpha(last), generator.schedule.sigma(last)

    def root(matrix, power):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values**power) @ vectors.T

    s = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2)
    return MEAN + (noise - alpha * MEAN) @ (root(COVARIANCE, 0.5) @ root(s, -0.5)).T


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_error_falls_as_the_order_says(name):
    """From 10 to 40 steps: half the step halves the error of a method of first order, quarters that of second order."""
    generator = Exact()
    expected = flow(generator, noise_of(16))
    few, many = ((draw(name, generator, n=16, steps=k) - expected).abs().max() for k in (10, 40))
    order = float(torch.log2(few / many)) / 2
    assert many < (0.12 if name in ("ddim", "euler") else 0.012)
    assert (0.8 < order < 1.2) if name in ("ddim", "euler") else order > 1.6, order


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_schedule_that_ends_without_signal_is_survived(name, prediction):
    generator = Exact(prediction, schedule="cosine")
    expected = flow(Exact(), noise_of(16))  # where no signal is left, all schedules flow to the same pictures
    for steps, most in ((10, 0.5), (25, 0.12)):
        assert (draw(name, generator, n=16, steps=steps) - expected).abs().max() < most, steps


def test_euler_is_ddim():
    torch.testing.assert_close(draw("euler", n=8, steps=20), draw("ddim", n=8, steps=20), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*DETERMINISTIC, *RANDOM])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_a_schedule_that_is_not_variance_preserving(name, prediction):
    """x_t = (1 - t) x_0 + t eps: rescaled for diffusers' schedulers."""
    x = draw(name, Exact(prediction, schedule="mixing"), steps=100)
    torch.testing.assert_close(x.mean(0), MEAN, rtol=0, atol=0.06)
    torch.testing.assert_close(torch.cov(x.T), COVARIANCE, rtol=0, atol=0.08)


def test_inversion_finds_the_noise():
    generator, x_T = Exact(), noise_of(16)
    x_0 = flow(generator, x_T)
    text = TextFeatures.of(sentence=torch.zeros(16, 2))
    for prediction in ("epsilon", "sample", "v"):
        errors = []
        for steps in (100, 200):
            spec = registry().samplers["ddim"]
            sampler = resolve(spec.build)(resolve(spec.config).of({"steps": steps}, "ddim"))
            with torch.no_grad():
                request = Request(text=text, noise=PromptNoise(0, tuple((i, 0) for i in range(16))))
                errors.append((sampler.invert(Exact(prediction), x_0, request) - x_T).abs().max())
        assert errors[1] < 0.06, prediction
        assert errors[1] < 0.7 * errors[0], prediction


@pytest.mark.parametrize(
    ("name", "settings"),
    [("ddim", {"steps": 5, "eta": 1.0}), *((name, {"steps": 5}) for name in (*DETERMINISTIC, *RANDOM))],
)
def test_the_same_noise_gives_the_same_picture_in_any_batch(name, settings):
    keys = ((0, 0), (0, 1), (3, 0))
    together = draw(name, keys=keys, **settings)
    for i, key in enumerate(keys):
        torch.testing.assert_close(draw(name, keys=(key,), **settings)[0], together[i], rtol=1e-5, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_guidance_moves_along_the_difference_and_runs_one_batch():
    generator, null = Exact(), TextFeatures.of(sentence=torch.zeros(64, 2))
    plain = draw("ddim", generator, n=64, steps=20, sentence=1.0)
    assert generator.batches == [64] * 20  # guidance 1: the unconditional branch is not run
    generator.batches.clear()
    stronger = draw("ddim", generator, n=64, steps=20, sentence=1.0, guidance=2.0, null=null)
    assert generator.batches == [128] * 20
    unconditional = draw("ddim", generator, n=64, steps=20)
    # The exact prediction is affine in the sentence, so guiding by 2 is the exact network for the sentence 2.
    torch.testing.assert_close(stronger, draw("ddim", generator, n=64, steps=20, sentence=2.0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain - unconditional, stronger - plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp-2m"])
def test_guidance_outside_its_interval_costs_nothing(name):
    generator, null = Exact(steps=100), TextFeatures.of(sentence=torch.zeros(4, 2))
    draw(name, generator, n=4, steps=10, sentence=1.0, guidance=3.0, null=null, interval=(0.25, 0.75))
    assert generator.batches == [4, 4, 4, 8, 8, 8, 8, 8, 4, 4]  # noise levels 1, 0.9, 0.8, 0.7 ... 0.3, 0.2, 0.1
    with pytest.raises(UserError, match="two ascending numbers between 0 and 1"):
        draw(name, n=1, interval=(0.8, 0.2))


def test_rescaled_guidance_keeps_the_spread_of_the_conditional_prediction():
    class Fixed(Exact):
        def forward(self, x_t, t, text):
            return text.sentence[:, :1] * torch.tensor([[1.0, -2.0]]) + text.sentence[:, 1:]

    config = DiffusionSamplerConfig(guidance=5.0, rescale=0.25)
    text = TextFeatures.of(sentence=torch.tensor([[1.0, 3.0]]))
    network = guided(Fixed(), text, TextFeatures.of(sentence=torch.tensor([[0.5, 1.0]])), config)
    given, plain = torch.tensor([[4.0, 1.0]]), torch.tensor([[1.5, 0.0]])
    strong = plain + 5 * (given - plain)
    expected = 0.25 * strong * given.std() / strong.std() + 0.75 * strong
    torch.testing.assert_close(network(torch.zeros(1, 2), 10), expected)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_classifier_guidance_gives_the_posterior(prediction):
    """p(y | x_0) = N(y; x_0, I) turns the prior into N(., (C^-1 + I)^-1); its gradient at x_t is known exactly."""
    generator, y = Exact(prediction), torch.tensor([2.0, 0.0])

    def guide(x_t, t, text):
        alpha, sigma = generator.schedule.alpha(t)[:, None, None], generator.schedule.sigma(t)[:, None, None]
        inverse = torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(2))
        a = alpha * COVARIANCE @ inverse  # E[x_0 | x_t] = m + a (x_t - alpha m), Cov = C - alpha a C
        mean = MEAN + ((x_t - alpha[..., 0] * MEAN)[:, None] @ a.mT)[:, 0]
        spread = COVARIANCE - alpha * a @ COVARIANCE + torch.eye(2)
        return (torch.linalg.solve(spread, (y - mean)[..., None]).mT @ a)[:, 0]

    x = draw("ddim", generator, steps=100, guide=guide)
    covariance = torch.linalg.inv(torch.linalg.inv(COVARIANCE) + torch.eye(2))
    mean = covariance @ (torch.linalg.solve(COVARIANCE, MEAN) + y)
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(x.T), covariance, rtol=0, atol=0.06)


def test_what_cannot_be_sampled_says_why():
    with pytest.raises(UserError, match=r"guidance 2\.0 needs"):
        draw("ddim", n=1, guidance=2.0)
    with pytest.raises(UserError, match="at most"):
        draw("ddpm", Exact(steps=50), n=1, steps=51)

    class Continuous(Schedule):
        discrete, variance_preserving = False, False

        def alpha(self, t):
            return torch.ones_like(t)

        def sigma(self, t):
            return t

    generator = Exact()
    generator.schedule = Continuous()
    with pytest.raises(UserError, match="Continuous: the samplers know"):
        draw("ddim", generator, n=1)
