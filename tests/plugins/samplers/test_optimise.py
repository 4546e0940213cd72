"""The sampler `optimise`: the optimum of a known score, and images that do not see each other."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.optimised import OptimisedGenerator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.samplers.optimise.config import OptimiseConfig
from t2i.plugins.samplers.optimise.sampler import OptimiseSampler


class Quadratic(OptimisedGenerator):
    """score = -sum c_i (x_i - a)^2 over four numbers of unlike curvature; a is the text's. Decodes
    to the latents."""

    image_size = 2

    def __init__(self, limit=torch.inf):
        super().__init__()
        self.curvature = torch.nn.Parameter(torch.tensor([0.1, 1.0, 10.0, 100.0]))
        self.limit, self.steps = limit, []

    def start(self, noise):
        return noise.normal("start", 0, (4,))

    def score(self, latents, text, noise, step):
        self.steps.append(step)
        return -(self.curvature * (latents - text.sentence).square()).sum(1)

    def constrain(self, latents):
        return latents.clamp(-self.limit, self.limit)

    def decode(self, latents):
        return latents


def aims(rows):
    return torch.linspace(-0.8, 0.8, rows)[:, None]


def draw(generator, rows, of=None, progress=None, **settings):
    chosen = list(range(rows)) if of is None else of
    text = TextFeatures.of(sentence=aims(rows)[chosen])
    noise = PromptNoise(1, tuple((0, i) for i in chosen))
    with torch.no_grad():
        sampler = OptimiseSampler(OptimiseConfig(**settings))
        return sampler.sample(generator, Request(text=text, noise=noise, progress=progress))


def test_it_reaches_the_optimum_whatever_the_curvature():
    found = draw(Quadratic(), 5, steps=400, lr=0.05)
    torch.testing.assert_close(found, aims(5).expand(5, 4), atol=1e-2, rtol=0)


def test_an_image_does_not_depend_on_those_beside_it():
    together = draw(Quadratic(), 5, steps=30)
    for row in range(5):
        assert torch.equal(draw(Quadratic(), 5, of=[row], steps=30)[0], together[row])
    assert torch.equal(draw(Quadratic(), 5, of=[4, 2], steps=30), together[[4, 2]])


def test_the_first_step_of_adam_is_the_learning_rate_uphill():
    start = PromptNoise(1, ((0, 0),)).normal("start", 0, (4,))
    expected = start + 0.1 * torch.sign(aims(1) - start)
    torch.testing.assert_close(draw(Quadratic(), 1, steps=1, lr=0.1), expected)


def test_best_keeps_what_the_last_step_has_left_behind():
    """A step far too long: the start is better than what follows. Scores are those of the latents
    that are kept."""
    generator = Quadratic()
    start = PromptNoise(1, tuple((0, i) for i in range(3))).normal("start", 0, (4,))
    assert torch.equal(draw(generator, 3, steps=2, lr=1e3, keep="best"), start)
    assert generator.steps == [0, 1, 2]
    assert draw(generator, 3, steps=2, lr=1e3).abs().min() > 100
    long = draw(generator, 3, steps=400, lr=0.05, keep="best")
    torch.testing.assert_close(long, aims(3).expand(3, 4), atol=1e-2, rtol=0)


def test_latents_stay_where_they_are_allowed():
    found = draw(Quadratic(limit=0.3), 5, steps=200, lr=0.05)
    torch.testing.assert_close(found, aims(5).clamp(-0.3, 0.3).expand(5, 4), atol=1e-2, rtol=0)
    assert found.abs().max() <= 0.3


def test_parameters_get_no_gradients_and_progress_is_told():
    generator, done = Quadratic(), []
    draw(generator, 1, steps=2, progress=lambda *at: done.append(at))
    assert generator.curvature.grad is None
    assert done == [(1, 2), (2, 2)]


def test_what_is_refused():
    with pytest.raises(UserError, match="this sampler has no guidance"):
        OptimiseConfig.of({"guidance": 2.0}, "sampler")
    text, noise = TextFeatures.of(sentence=aims(1)), PromptNoise(0, ((0, 0),))
    sampler = OptimiseSampler(OptimiseConfig(steps=1))
    for given in ({"guide": lambda *_: None}, {"image": torch.zeros(1, 3, 2, 2)}):
        with pytest.raises(UserError, match="sampler 'optimise'"):
            sampler.sample(Quadratic(), Request(text=text, noise=noise, **given))


def test_the_average_counts_every_step_and_the_start_by_their_age():
    generator, decay = Quadratic(), 0.9
    seen = [draw(generator, 2, steps=n, lr=0.05) for n in range(1, 7)]
    start = PromptNoise(1, tuple((0, i) for i in range(2))).normal("start", 0, (4,))
    weights = [decay ** (6 - n) for n in range(7)]
    expected = sum(w * z for w, z in zip(weights, [start, *seen], strict=True)) / sum(weights)
    found = draw(generator, 2, steps=6, lr=0.05, keep="average", decay=decay)
    torch.testing.assert_close(found, expected)


def test_a_restart_forgets_the_averages_of_gradients():
    """The first step of a new Adam is the learning rate long, whatever came before."""
    after = [draw(Quadratic(), 3, steps=n, lr=0.01, restarts=(5,)) for n in (5, 6)]
    torch.testing.assert_close((after[1] - after[0]).abs(), torch.full((3, 4), 0.01))
    plain = [draw(Quadratic(), 3, steps=n, lr=0.01) for n in (5, 6)]
    assert torch.equal(plain[0], after[0])
    assert not torch.allclose((plain[1] - plain[0]).abs(), torch.full((3, 4), 0.01), rtol=1e-3)
