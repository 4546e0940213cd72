"""Classifier guidance against a closed form: two Gaussian classes, the exact network of their
mixture and the exact classifier of noisy images. At scale 1 the guided chain must draw the
class."""

from typing import get_args

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule, VESchedule, VPSchedule
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.guide import GuideGenerator, guide_of
from t2i.core.families.prediction import Prediction, target
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.tables import registry

MEANS = torch.tensor([[0.8, -0.5], [-0.6, 0.4]], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
PATHS = {
    "discrete": DiscreteSchedule.named("linear", 150),
    "vp": VPSchedule(),
    "ve": VESchedule(),
    "flow": FlowSchedule(),
}


def noised(schedule, t):
    """alpha (B, 1) and the covariance (B, 2, 2) of x_t in each class."""
    alpha, sigma = (f(t).double().view(-1, 1) for f in (schedule.alpha, schedule.sigma))
    return alpha, alpha[..., None] ** 2 * COVARIANCE + sigma[..., None] ** 2 * torch.eye(
        2, dtype=torch.float64
    )


def logits(schedule, x_t, t):
    """log p(x_t | class), up to a constant, (B, 2)."""
    alpha, s = noised(schedule, t)
    apart = x_t.double()[:, None] - alpha[..., None] * MEANS
    return -0.5 * (apart * torch.linalg.solve(s, apart.mT).mT).sum(-1)


class Mixture(DiffusionGenerator):
    """The exact network for both classes, equally often, whatever the text."""

    def __init__(self, schedule, prediction="epsilon"):
        super().__init__()
        self.schedule, self.prediction = schedule, prediction
        self.image_size, self.noise_shape = 2, (2,)

    def forward(self, x_t, t, text):
        alpha, s = noised(self.schedule, t)
        weights, x = logits(self.schedule, x_t, t).softmax(1), x_t.double()
        apart = x[:, None] - alpha[..., None] * MEANS
        means = MEANS + alpha[..., None] * torch.linalg.solve(s, apart.mT).mT @ COVARIANCE
        x_0 = (weights[..., None] * means).sum(1)
        eps = (x - alpha * x_0) / self.schedule.sigma(t).double()[:, None]
        return target(self.schedule, self.prediction, x_0, t, eps).float()


class Classifier(GuideGenerator):
    """The exact classifier under a schedule of its own; a sentence says which class is wanted."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.noise_shape, self.image_size = schedule, (2,), 2

    def log_likelihood(self, x_t, t, text):
        wanted = text.sentence[:, :1].long()
        return logits(self.schedule, x_t, t).log_softmax(1).gather(1, wanted)[:, 0]


def draw(name, generator, guide_schedule, scale=1.0, wanted=1.0, n=800, **settings):
    text = TextFeatures.of(sentence=torch.full((n, 2), wanted))
    guide = guide_of(Classifier(guide_schedule), text, generator, scale)
    request = Request(text=text, noise=PromptNoise(0, tuple((i, 0) for i in range(n))), guide=guide)
    sampler = registry().samplers.build(registry().samplers.choose(name, settings))
    with torch.no_grad():
        return sampler.sample(generator, request)


def is_the_class(x, wanted=1):
    torch.testing.assert_close(x.mean(0).double(), MEANS[wanted], rtol=0, atol=0.09)
    torch.testing.assert_close(torch.cov(x.T).double(), COVARIANCE, rtol=0, atol=0.1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_scale_1_draws_the_class_on_every_path(name, path):
    is_the_class(draw(name, Mixture(PATHS[path]), PATHS[path], steps=150))


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_whatever_the_network_predicts(prediction):
    for path in ("discrete", "flow", "ve"):
        generator = Mixture(PATHS[path], prediction)
        is_the_class(draw("ddim", generator, PATHS[path], steps=60, wanted=0.0), wanted=0)


def test_at_pure_noise_there_is_nothing_to_guide():
    """The path of flow matching begins there: alpha = 0."""
    is_the_class(draw("flow-euler", Mixture(PATHS["flow"], "velocity"), PATHS["flow"], steps=60))


@pytest.mark.parametrize(
    "name", ["euler", "heun", "lms", "pndm", "dpmpp-2m", "unipc", "euler-a", "dpmpp-2m-sde"]
)
def test_the_other_samplers_shift_the_noise_too(name):
    is_the_class(draw(name, Mixture(PATHS["vp"]), PATHS["vp"], steps=40))


def test_both_variances_of_the_ancestral_chain_shift_the_mean():
    is_the_class(draw("ddpm", Mixture(PATHS["discrete"]), PATHS["discrete"], variance="beta"))


def test_one_ancestral_step_by_hand():
    """mu + Sigma g (Dhariwal & Nichol 2021, algorithm 1), against a chain without a guide on the
    same noise."""
    schedule = DiscreteSchedule(torch.tensor([0.2, 0.5]))
    generator, g = Mixture(schedule), torch.tensor([[1.0, -3.0]])
    text, noise = TextFeatures.of(sentence=torch.zeros(1, 2)), PromptNoise(0, ((0, 0),))
    seen = []

    def guide(x_t, t, _):
        seen.append((x_t, t))
        return g

    for variance, sigma in (("beta~", 0.5 * 0.2 / 0.6), ("beta", 0.5)):
        sampler = registry().samplers.build(
            registry().samplers.choose("ddpm", {"variance": variance})
        )
        x_1 = []
        for given in (None, guide):
            at = []
            generator.forward = lambda x, t, text, at=at: at.append(x) or torch.zeros_like(x)
            sampler.sample(generator, Request(text=text, noise=noise, guide=given))
            x_1.append(at[1])
        torch.testing.assert_close(x_1[1] - x_1[0], sigma * g)
    assert [int(t) for _, t in seen] == [1, 0, 1, 0]


class Ranged(Mixture):
    """The mixture, with a variance that is `share` of the way from log beta~ to log beta."""

    learned_range = True

    def __init__(self, schedule, share):
        super().__init__(schedule)
        self.v = 2 * share - 1

    def ranged(self, x_t, t, text):
        return self(x_t, t, text), torch.full_like(x_t, self.v)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_learned_variance_shifts_the_mean(share):
    generator = Ranged(PATHS["discrete"], share)
    is_the_class(draw("ddpm", generator, PATHS["discrete"], variance="learned"))


def test_one_step_of_a_learned_variance_by_hand():
    """The last step is shifted too: log(beta~) there is that of the step before."""
    schedule = DiscreteSchedule(torch.tensor([0.2, 0.5]))
    generator, g = Ranged(schedule, 0.25), torch.tensor([[1.0, -3.0]])
    text, noise = TextFeatures.of(sentence=torch.zeros(1, 2)), PromptNoise(0, ((0, 0),))
    sampler = registry().samplers.build(registry().samplers.choose("ddpm", {"variance": "learned"}))
    seen = {}
    for given in (None, lambda *_: g):
        at = []
        generator.forward = lambda x, t, text, at=at: at.append(x) or torch.zeros_like(x)
        x_0 = sampler.sample(generator, Request(text=text, noise=noise, guide=given))
        seen[given is not None] = (at[1], x_0)
    least = 0.5 * 0.2 / 0.6
    moved = 0.5**0.25 * least**0.75 * g
    torch.testing.assert_close(seen[True][0] - seen[False][0], moved)
    expected = moved / 0.8**0.5 + 0.2**0.25 * least**0.75 * g
    torch.testing.assert_close(seen[True][1] - seen[False][1], expected)


@pytest.mark.parametrize("theirs", ["vp", "ve", "flow", "discrete"])
def test_a_guide_of_another_schedule_sees_the_same_image_at_the_same_noise(theirs):
    generator = Mixture(VPSchedule())
    t, x_t = torch.tensor([0.3, 0.6]), torch.tensor([[0.2, -0.1], [1.0, 0.4]])
    text = TextFeatures.of(sentence=torch.ones(2, 2))
    same, other = (
        guide_of(Classifier(schedule), text, generator, 2.0)(x_t, t, text)
        for schedule in (generator.schedule, PATHS[theirs])
    )
    assert same.abs().min() > 0.01
    torch.testing.assert_close(other, same, rtol=2e-3, atol=1e-4)


def test_a_larger_scale_goes_further():
    first, second = (
        draw("ddim", Mixture(PATHS["vp"]), PATHS["vp"], scale=s, steps=30).mean(0)
        for s in (1.0, 4.0)
    )
    away = (MEANS[1] - MEANS[0]).float()
    assert (second - first) @ away > 0.1


def test_a_guide_of_other_images_is_refused():
    guide = Classifier(VPSchedule())
    guide.noise_shape = (3, 8, 8)
    with pytest.raises(UserError, match=r"shape \(3, 8, 8\), the model draws \(2,\)"):
        guide_of(guide, TextFeatures.of(sentence=torch.ones(1, 2)), Mixture(VPSchedule()), 1.0)
