"""Annealed Langevin dynamics: its steps by hand, and closed forms for Gaussian data."""

import math

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule, VESchedule, VPSchedule
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.tables import registry
from t2i.plugins.samplers.langevin.sampler import best_share, remaining

PATHS = {
    "ve": lambda: VESchedule(0.02, 20.0),
    "vp": VPSchedule,
    "flow": FlowSchedule,
    "discrete": lambda: DiscreteSchedule.named("linear", 200),
}
MEAN = torch.tensor([0.7, -1.2])
DEVIATION = torch.tensor([0.6, 0.3])


class Normal(DiffusionGenerator):
    """The exact network for images of `points` points, each N(MEAN + sentence, DEVIATION^2)."""

    def __init__(self, schedule, prediction="score", points=1):
        super().__init__()
        self.schedule, self.prediction = schedule, prediction
        self.image_size, self.noise_shape, self.calls = 2, (points, 2), []

    def forward(self, x_t, t, text):
        self.calls.append((len(x_t), float(t[0])))
        alpha, sigma = (
            f(t.double())[:, None, None] for f in (self.schedule.alpha, self.schedule.sigma)
        )
        variance = alpha**2 * DEVIATION.double() ** 2 + sigma**2
        score = -(x_t.double() - alpha * (MEAN + text.sentence[:, None])) / variance
        return (score if self.prediction == "score" else -sigma * score).float()


def sampler_of(**settings):
    return registry().samplers.build(registry().samplers.choose("langevin", settings))


def noise_of(n, seed=0):
    return PromptNoise(seed, tuple((i, 0) for i in range(n)))


def draw(generator, n=1, sentence=0.0, null=None, **settings):
    text = TextFeatures.of(sentence=torch.full((n, 2), sentence))
    with torch.no_grad():
        request = Request(text=text, noise=noise_of(n), null=null)
        return sampler_of(**settings).sample(generator, request)


@pytest.mark.parametrize(
    ("path", "prediction"),
    [
        ("ve", "score"),
        ("ve", "epsilon"),
        ("vp", "score"),
        ("flow", "epsilon"),
        ("discrete", "score"),
    ],
)
def test_it_samples_the_data_on_every_path(path, prediction):
    """For Gaussian data a step is linear in y = x_t / alpha, so the variance that the chain ends
    with is known: a little above the data's, as T is finite. Standard errors of 2,000 points are
    0.013 for the mean and 1.6 % for the deviation."""
    settings, generator = {"steps": 25, "each": 12}, Normal(PATHS[path](), prediction, 2000)
    (drawn,) = draw(generator, **settings)
    levels = sampler_of(**settings).levels(generator)
    variance = torch.full((2,), levels[0].ratio ** 2)
    for level in levels:
        kept = 1 - level.size / (DEVIATION**2 + level.ratio**2)
        for _ in range(settings["each"]):
            variance = kept**2 * variance + 2 * level.size
    last = levels[-1].ratio ** 2
    deviation = variance.sqrt() * DEVIATION**2 / (DEVIATION**2 + last)
    torch.testing.assert_close(deviation, DEVIATION, rtol=0.25, atol=0)
    torch.testing.assert_close(drawn.std(0), deviation, rtol=0.05, atol=0)
    torch.testing.assert_close(drawn.mean(0), MEAN, rtol=0, atol=0.06)


@pytest.mark.parametrize(("rule", "factor"), [("full", 1.0), ("half", 0.5)])
@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("start", ["gaussian", "uniform"])
def test_its_steps_are_the_papers(rule, factor, denoise, start):
    """By hand, for images in [0, 1] as in the paper: x' = (x + 1) / 2, and eps as it is there."""
    generator, eps, each = Normal(VESchedule(0.02, 2.0)), 2e-5, 3
    found = draw(
        generator, n=4, steps=5, each=each, eps=eps, rule=rule, denoise=denoise, start=start
    )
    sigmas = (generator.schedule.times(5).flip(0) / 2).tolist()
    noise = noise_of(4)
    first = noise.start("x_T", (1, 2)).double()
    x = (first * 2 * sigmas[0] + 1) / 2
    if start == "uniform":
        x = torch.special.erfc(-first / math.sqrt(2)) / 2

    def score(x, sigma):
        return -(x - (MEAN + 1) / 2) / ((DEVIATION / 2) ** 2 + sigma**2)

    for i, sigma in enumerate(sigmas):
        a = factor * eps * sigma**2 / sigmas[-1] ** 2
        for j in range(each):
            z = noise.normal("langevin", i * each + j, (1, 2))
            x = x + a * score(x, sigma) + math.sqrt(2 * a) * z
    if denoise:
        x = x + sigmas[-1] ** 2 * score(x, sigmas[-1])
    torch.testing.assert_close(found.double(), 2 * x.double() - 1, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("share", "gamma", "each"), [(0.06, 1.04, 5), (0.5, 2.0, 3)])
def test_the_variance_that_remains_by_recursion(share, gamma, each):
    """Data of one point: s(y) = -y / sigma^2, so a step keeps 1 - e and adds 2 e sigma^2."""
    variance = gamma**2
    for _ in range(each):
        variance = (1 - share) ** 2 * variance + 2 * share
    assert remaining(share, gamma, each) == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize(
    ("sigma_1", "levels", "each", "eps"),
    [(50, 232, 5, 6.2e-6), (90, 500, 5, 3.3e-6), (190, 1086, 3, 1.8e-6), (348, 2311, 3, 9e-7)],
)
def test_technique_4_gives_the_papers_steps(sigma_1, levels, each, eps):
    """Of CIFAR-10, CelebA, LSUN and FFHQ, whose sigma_L is 0.01."""
    gamma = (sigma_1 / 0.01) ** (1 / (levels - 1))
    assert best_share(gamma, each) * 0.01**2 == pytest.approx(eps, rel=0.02)


def test_guidance_runs_both_branches_in_one_batch():
    generator = Normal(VESchedule(0.02, 20.0), points=1000)
    null = TextFeatures.of(sentence=torch.zeros(1, 2))
    (drawn,) = draw(generator, sentence=1.0, null=null, guidance=3.0, steps=20, each=8)
    assert {count for count, _ in generator.calls} == {2}
    torch.testing.assert_close(drawn.mean(0), MEAN + 3, rtol=0, atol=0.1)


def test_an_image_does_not_depend_on_its_batch():
    generator = Normal(VESchedule(0.02, 20.0))
    torch.testing.assert_close(
        draw(generator, n=5, steps=6)[:2], draw(generator, n=2, steps=6), rtol=0, atol=0
    )


def test_it_visits_each_level_t_times_from_the_noisiest():
    generator = Normal(DiscreteSchedule.named("cosine", 6))
    draw(generator, n=1, each=2)
    assert [t for _, t in generator.calls] == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("schedule", "settings", "message"),
    [
        (VESchedule(), {}, "continuous: name a number"),
        (DiscreteSchedule.named("cosine", 4), {"steps": 5}, "trained with 4"),
        (DiscreteSchedule.named("cosine", 1), {}, "this model has one"),
    ],
)
def test_schedules_without_such_levels_are_refused(schedule, settings, message):
    with pytest.raises(UserError, match=message):
        sampler_of(**settings).check(Normal(schedule))


def test_masked_places_end_as_they_were_and_strength_0_changes_nothing():
    """An image of one point, whose pixels on the left are known."""

    class Black(Normal):
        def __init__(self):
            super().__init__(VESchedule(0.02, 20.0))
            self.image_size, self.noise_shape = 4, (3, 4, 4)

        def forward(self, x_t, t, text):
            return (-1 - x_t) / t.view(-1, 1, 1, 1) ** 2

    image = torch.full((2, 3, 4, 4), 0.5)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[..., 2:] = True
    text = TextFeatures.of(sentence=torch.zeros(2, 2))
    common = {"text": text, "noise": noise_of(2), "image": image}
    sampler = sampler_of(steps=10, each=3)
    drawn = sampler.sample(Black(), Request(**common, mask=mask, strength=0.5))
    assert torch.equal(drawn[..., :2], image[..., :2])
    torch.testing.assert_close(drawn[..., 2:], torch.full((2, 3, 4, 2), -1.0), rtol=0, atol=1e-4)
    assert torch.equal(sampler.sample(Black(), Request(**common, strength=0.0)), image)
