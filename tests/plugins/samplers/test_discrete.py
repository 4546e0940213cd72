"""The samplers of discrete diffusion: with an exact denoiser, drawn tokens follow the known
distribution."""

import itertools

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.discrete import DiscreteDiffusionGenerator
from t2i.core.families.token_schedule import DiscreteTokenSchedule, MaskingSchedule
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.common.tokens.unmasking import masked_left
from t2i.plugins.samplers.discrete.config import DiscreteConfig
from t2i.plugins.samplers.discrete.sampler import DiscreteSampler
from t2i.plugins.samplers.maskgit.config import MaskGITConfig
from t2i.plugins.samplers.maskgit.sampler import MaskGITSampler

K, LENGTH = 3, 2
JOINT = torch.tensor(
    [[0.33, 0.02, 0.08], [0.05, 0.22, 0.10], [0.04, 0.01, 0.15]], dtype=torch.float64
)
"""p(x_0) of two tokens that depend on each other."""


class Exact(DiscreteDiffusionGenerator):
    """Knows p(x_0): its logits are log p(x_0^i | x_t), summed over all x_0. Images are the tokens.
    Text of 0 (no caption) makes every x_0 equally likely."""

    image_size, length = 2, LENGTH

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.calls = schedule, []

    def forward(self, x_t, t, text):
        self.calls.append((len(x_t), t.tolist()[0]))
        a, b, c = (
            f(t)[:, None, None]
            for f in (self.schedule.abar, self.schedule.bbar, self.schedule.gbar)
        )
        likely = a * torch.nn.functional.one_hot(x_t, K + 1)[..., :K] + b
        likely = torch.where((x_t == K)[..., None], c, likely)  # q(x_t^i | x_0^i), (B, LENGTH, K)
        prior = torch.where(text.sentence[:, :, None] > 0, JOINT, torch.full_like(JOINT, 1 / 9))
        joint = prior * likely[:, 0, :, None] * likely[:, 1, None, :]
        return torch.stack([joint.sum(2), joint.sum(1)], 1).log()

    def decode(self, tokens):
        return tokens


def draw(generator, n, sampler):
    text = TextFeatures.of(sentence=torch.ones(n, 1))
    null = TextFeatures.of(sentence=torch.zeros(n, 1)) if sampler.needs_null else None
    noise = StepNoise(3, 0, 0, n, n)  # one stream for all rows: thousands are drawn
    return sampler.sample(generator, Request(text=text, null=null, noise=noise))


def off(tokens, expected):
    """How far frequencies are from what is expected, in standard deviations, at most."""
    n = len(tokens)
    found = torch.bincount(tokens[:, 0] * K + tokens[:, 1], minlength=K * K).view(K, K).double() / n
    return ((found - expected).abs() / (expected * (1 - expected) / n).sqrt()).max()


N = 4000
CHAINS = {
    "paper": DiscreteTokenSchedule.linear(K, 40),
    "masks": DiscreteTokenSchedule.linear(K, 40, masked=1),
    "replacements": DiscreteTokenSchedule.linear(K, 40, masked=0),
    "code": DiscreteTokenSchedule.vq_diffusion(K, 40),
    "cosine": MaskingSchedule(K),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_long_chain_reproduces_the_known_distribution(name):
    """Tokens are drawn independently within a step. Over 40 steps that costs less than so many
    draws can tell."""
    tokens = draw(Exact(CHAINS[name]), N, DiscreteSampler(DiscreteConfig(steps=40)))
    assert tokens.max() < K
    assert off(tokens, JOINT) < 4.5


@pytest.mark.parametrize("name", CHAINS)
def test_one_step_draws_the_marginals_independently(name):
    tokens = draw(Exact(CHAINS[name]), N, DiscreteSampler(DiscreteConfig(steps=1)))
    assert off(tokens, JOINT.sum(1)[:, None] * JOINT.sum(0)) < 4.5
    assert off(tokens, JOINT) > 10


def test_times_and_branches_of_the_calls():
    for guidance, rows in [(1.0, 3), (2.0, 6)]:
        generator = Exact(CHAINS["paper"])
        draw(generator, 3, DiscreteSampler(DiscreteConfig(steps=4, guidance=guidance)))
        assert generator.calls == [(rows, 40), (rows, 30), (rows, 20), (rows, 10)]
    generator = Exact(CHAINS["paper"])
    draw(generator, 1, DiscreteSampler(DiscreteConfig()))
    assert len(generator.calls) == 40


def test_guidance_and_truncation_act_on_clean_tokens():
    """One step: the marginals to the power s (u is uniform), without what top_k leaves out."""
    squares = JOINT.sum(1) ** 2
    first = squares / squares.sum()
    tokens = draw(Exact(CHAINS["masks"]), N, DiscreteSampler(DiscreteConfig(steps=1, guidance=2.0)))
    found = torch.bincount(tokens[:, 0], minlength=K) / N
    assert ((found - first).abs() < 4.5 * (first * (1 - first) / N).sqrt()).all()
    tokens = draw(Exact(CHAINS["masks"]), 200, DiscreteSampler(DiscreteConfig(steps=1, top_k=1)))
    assert tokens.unique(dim=0).tolist() == [
        [int(JOINT.sum(1).argmax()), int(JOINT.sum(0).argmax())]
    ]


def test_too_many_steps_are_refused_before_anything_is_drawn():
    with pytest.raises(UserError, match="41 sampling steps: the model was trained with 40"):
        DiscreteSampler(DiscreteConfig(steps=41)).check(Exact(CHAINS["paper"]))


def test_progress_and_what_is_refused():
    done = []
    text, noise = TextFeatures.of(sentence=torch.ones(1, 1)), PromptNoise(0, ((0, 0),))
    for sampler in (
        DiscreteSampler(DiscreteConfig(steps=2)),
        MaskGITSampler(MaskGITConfig(steps=2)),
    ):
        sampler.sample(
            Exact(CHAINS["cosine"]),
            Request(text=text, noise=noise, progress=lambda *at: done.append(at)),
        )
        with pytest.raises(UserError, match="samples tokens: there is no noisy image"):
            sampler.sample(
                Exact(CHAINS["cosine"]), Request(text=text, noise=noise, guide=lambda *_: None)
            )
        with pytest.raises(UserError, match="not from an image"):
            sampler.sample(
                Exact(CHAINS["cosine"]),
                Request(text=text, noise=noise, image=torch.zeros(1, 3, 2, 2)),
            )
    assert done == [(1, 2), (2, 2)] * 2


class Seen(DiscreteDiffusionGenerator):
    """Token i is surely i % K, with more confidence the larger i is. Remembers what it was
    shown."""

    image_size, length = 2, 8

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.shown = schedule, []

    def forward(self, x_t, t, text):
        self.shown.append(x_t.clone())
        sure = (
            torch.nn.functional.one_hot(torch.arange(8) % K, K) * torch.linspace(6, 13, 8)[:, None]
        )
        return sure.expand(len(x_t), 8, K).float()

    def decode(self, tokens):
        return tokens


def test_maskgit_keeps_the_tokens_it_is_surest_of():
    generator = Seen(MaskingSchedule(K))
    tokens = draw(
        generator, 2, MaskGITSampler(MaskGITConfig(steps=4, temperature=0.2, randomness=0))
    )
    assert tokens.tolist() == [[i % K for i in range(8)]] * 2
    masked = [(x == K).sum(1).tolist() for x in generator.shown]
    assert masked == [[n, n] for n in (8, 7, 5, 3)]  # floor(8 cos(pi/8 i))
    for x in generator.shown:  # the least confident are masked, and what was kept stays
        hidden = int((x[0] == K).sum())
        assert (x[:, :hidden] == K).all()
        assert (x[:, hidden:] == torch.arange(hidden, 8) % K).all()


def test_maskgit_with_randomness_chooses_other_tokens():
    generator = Seen(MaskingSchedule(K))
    draw(generator, 64, MaskGITSampler(MaskGITConfig(steps=4, temperature=0.2, randomness=4.5)))
    assert len((generator.shown[1] == K).unique(dim=0)) > 4


@pytest.mark.parametrize(("length", "steps"), [*itertools.product([1, 2, 5, 64], [1, 3, 12])])
def test_fewer_tokens_are_masked_after_each_step_and_none_in_the_end(length, steps):
    left = masked_left(length, MaskingSchedule(K).gbar(MaskingSchedule(K).times(steps)))
    assert len(left) == steps
    assert left[-1] == 0
    for before, after in itertools.pairwise([length, *left[:-1]]):
        assert 1 <= after <= max(1, before - 1)


def test_maskgit_refuses_a_schedule_that_replaces():
    with pytest.raises(UserError, match="use --sampler discrete"):
        MaskGITSampler(MaskGITConfig(steps=4)).check(Exact(CHAINS["paper"]))
    MaskGITSampler(MaskGITConfig(steps=4)).check(Exact(CHAINS["code"]))
    MaskGITSampler(MaskGITConfig(steps=4)).check(Exact(CHAINS["masks"]))


def test_a_fixed_number_of_tokens_is_unmasked_at_random_or_by_purity():
    for order in ("random", "purity"):
        generator = Seen(MaskingSchedule(K))
        config = DiscreteConfig(steps=4, temperature=0.2, order=order, purity=1.0)
        tokens = draw(generator, 64, DiscreteSampler(config))
        assert tokens.tolist() == [[i % K for i in range(8)]] * 64
        masked = [(x == K).sum(1).unique().tolist() for x in generator.shown]
        assert masked == [[n] for n in (8, 7, 5, 3)]
        assert (
            len((generator.shown[1] == K).unique(dim=0)) == 8
        )  # every place comes first somewhere
        for before, after in itertools.pairwise(generator.shown):
            assert (after == before)[before != K].all()


def test_purity_sharpens_the_tokens_and_chooses_pure_places():
    """Two tokens; the second is purer. One step of two: which one is unmasked, and what it is."""
    p = torch.tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]], dtype=torch.float64)

    class Known(Seen):
        length = 2

        def forward(self, x_t, t, text):
            self.shown.append(x_t.clone())
            return p.log().expand(len(x_t), 2, K)

    generator = Known(MaskingSchedule(K))
    draw(generator, N, DiscreteSampler(DiscreteConfig(steps=2, order="purity", purity=2.0)))
    first = generator.shown[1]
    chosen = (first[:, 1] != K).double().mean()
    assert abs(chosen - 0.8 / 1.3) < 4.5 * (0.25 / N) ** 0.5
    for place, score in ((0, 0.5 / 0.8), (1, 1.0)):
        seen = first[:, place][first[:, place] != K]
        expected = p[place] ** (1 + 2 * score)
        expected = expected / expected.sum()
        found = torch.bincount(seen, minlength=K).double() / len(seen)
        spread = (expected * (1 - expected) / len(seen)).sqrt()
        assert ((found - expected).abs() < 4.5 * spread).all()


def test_an_order_of_places_is_refused_where_tokens_are_replaced():
    with pytest.raises(UserError, match="order=posterior"):
        DiscreteSampler(DiscreteConfig(order="purity")).check(Exact(CHAINS["paper"]))
    DiscreteSampler(DiscreteConfig(order="purity")).check(Exact(CHAINS["code"]))
