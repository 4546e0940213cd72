"""The sampler `autoregressive`: drawn frequencies, and how the generator is called."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.autoregressive import AutoregressiveGenerator
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.common.tokens.config import TokenSamplerConfig
from t2i.plugins.samplers.autoregressive.sampler import AutoregressiveSampler

K = 3
FIRST = torch.tensor([0.5, 0.3, 0.2])
AFTER = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.25, 0.25, 0.5]])


class Pairs(AutoregressiveGenerator):
    """Tokens of a Markov chain; text of 1 sees its logits, text of 0 (no caption) zeros. Images are
    the tokens."""

    image_size, length, vocabulary = 2, 2, K

    def __init__(self, forbidden=()):
        super().__init__()
        self.calls, self.forbidden = [], list(forbidden)

    def begin(self, text):
        self.calls.append(("begin", len(text)))
        return self._logits(FIRST.log().expand(len(text), K), text.sentence), text.sentence

    def next(self, tokens, state):
        self.calls.append(("next", len(tokens)))
        return self._logits(AFTER.log()[tokens], state), state

    def _logits(self, logits, given):
        return (logits * given).index_fill(
            1, torch.tensor(self.forbidden, dtype=torch.long), -torch.inf
        )

    def forward(self, tokens, text):
        raise NotImplementedError

    def decode(self, tokens):
        return tokens


def draw(generator, n, guidance=1.0, **settings):
    text = TextFeatures.of(sentence=torch.ones(n, 1))
    null = TextFeatures.of(sentence=torch.zeros(n, 1)) if guidance != 1 else None
    # One stream for all rows: thousands are drawn.
    request = Request(text=text, null=null, noise=StepNoise(3, 0, 0, n, n))
    sampler = AutoregressiveSampler(TokenSamplerConfig(guidance=guidance, **settings))
    return sampler.sample(generator, request)


def frequencies(tokens):
    return torch.bincount(tokens[:, 0] * K + tokens[:, 1], minlength=K * K).view(
        K, K
    ).double() / len(tokens)


def within(found, expected, n):
    expected = expected.double()
    assert ((found - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt() + 1e-9).all(), (
        found,
        expected,
    )


N = 20_000


def test_tokens_come_as_often_as_the_product_of_softmaxes():
    within(frequencies(draw(Pairs(), N)), FIRST[:, None] * AFTER, N)


def test_guidance_and_temperature_are_powers():
    """u = 0 and s = 2, temperature 0.5: logits 4 log p."""
    first, after = FIRST**4, AFTER**4
    expected = first[:, None] / first.sum() * after / after.sum(1, keepdim=True)
    within(frequencies(draw(Pairs(), N, guidance=2.0, temperature=0.5)), expected, N)


def test_temperature_zero_takes_the_likeliest():
    assert draw(Pairs(), 4, temperature=0).tolist() == [[0, 2]] * 4


def test_a_forbidden_token_is_never_drawn_guided_or_not():
    for guidance in (1.0, 3.0):
        assert not (draw(Pairs(forbidden=[0]), 400, guidance=guidance) == 0).any()


def test_one_call_a_token_of_both_branches_together():
    for guidance, rows in [(1.0, 5), (2.0, 10)]:
        generator = Pairs()
        draw(generator, 5, guidance=guidance)
        assert generator.calls == [("begin", rows), ("next", rows)]


def test_progress_and_what_is_refused():
    done = []
    text = TextFeatures.of(sentence=torch.ones(1, 1))
    noise = PromptNoise(0, ((0, 0),))
    sampler = AutoregressiveSampler(TokenSamplerConfig())
    sampler.sample(Pairs(), Request(text=text, noise=noise, progress=lambda *at: done.append(at)))
    assert done == [(1, 2), (2, 2)]
    with pytest.raises(UserError, match="sampler 'autoregressive' samples tokens"):
        sampler.sample(Pairs(), Request(text=text, noise=noise, guide=lambda *_: None))
    with pytest.raises(UserError, match="sampler 'autoregressive' samples every token"):
        sampler.sample(Pairs(), Request(text=text, noise=noise, image=torch.zeros(1, 3, 2, 2)))
