"""Remedies for mode collapse against independent values: closed forms on linear critics, finite
differences, explicit small computations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.trainer import Batch
from t2i.plugins.common.gan.config import GANConfig
from t2i.plugins.common.gan.losses.relativistic import (
    relativistic_discriminator,
    relativistic_generator,
)
from t2i.plugins.common.gan.losses.wasserstein import wasserstein_critic, wasserstein_generator
from t2i.plugins.common.gan.penalties.gradients import (
    between,
    lipschitz_penalty,
    zero_centred_penalty,
)
from t2i.plugins.common.gan.penalties.matching_aware import matching_aware_penalty
from t2i.plugins.common.gan.remedies.ada import (
    CHOICES,
    NORMALS,
    UNIFORMS,
    AdaptiveAugmentation,
)
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.diffaugment import NUMBERS, diffaugment
from t2i.plugins.common.gan.remedies.norm import has_batchnorm, layernorm_for_batchnorm
from t2i.plugins.common.gan.remedies.packing import packed
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.unrolling import unrolled

REAL, FAKE, WRONG = (torch.tensor(v) for v in ([2.0, 0.5], [-3.0, 0.2], [-0.5, 1.0]))


class Fixed:
    """An engine that remembers losses and gradients, and moves nothing."""

    progress = 0.0

    def __init__(self):
        self.losses = {}

    def shifted(self, x):
        return torch.roll(x, 1, 0)

    def gathered(self, x):
        return x

    def update(self, name, loss):
        self.losses[name] = loss


class Linear(nn.Module):
    """The critic w.x + v.e, whose gradient is (w, v) everywhere."""

    def __init__(self, pixels, text):
        super().__init__()
        torch.manual_seed(3)
        self.w, self.v = nn.Parameter(torch.randn(pixels)), nn.Parameter(torch.randn(text))

    def score(self, images, e):
        return images.flatten(1) @ self.w + e @ self.v


def batch(n=4, at=0):
    noise = StepNoise(0, at, 0, n, n, torch.device("cpu"))
    text = TextFeatures.of(sentence=torch.zeros(n, 3), captions=[""] * n)
    return Batch(torch.zeros(n, 3, 2, 2), ("",) * n, ("",) * n, noise, lambda _: text)


def linear_case(pack=1, **settings):
    """A linear critic, its remedies, and what it sees of random images."""
    d = Linear(12 * pack, 3 * pack)
    critic = Critic(
        "d", {"d": d}, features=lambda x: x, matching=d.score,
        own=lambda seen, _: (d.score(seen.images, seen.condition).mean(), {}),
        own_generator=lambda seen: -d.score(seen.generated, seen.condition).mean(),
    )  # fmt: skip
    remedies = Remedies(GANConfig(pack=pack, batch_size=4, **settings), [critic])
    x, g, e = (
        torch.randn(4, 3, 2, 2),
        torch.randn(4, 3, 2, 2, requires_grad=True),
        torch.randn(4, 3),
    )
    engine = Fixed()
    return d, remedies, remedies.seen(critic, batch(), engine, x, g, e), engine


# --- losses and penalties -------------------------------------------------------------------------


def test_wasserstein_by_hand_and_a_constant_changes_nothing():
    assert wasserstein_critic(REAL, FAKE).item() == pytest.approx(-1.4 - 1.25)
    loss = wasserstein_critic(REAL, FAKE, WRONG)
    assert loss.item() == pytest.approx((-1.4 + 0.25) / 2 - 1.25)
    moved = wasserstein_critic(REAL + 7, FAKE + 7, WRONG + 7)
    assert moved.item() == pytest.approx(loss.item(), rel=1e-5)
    assert wasserstein_generator(FAKE).item() == pytest.approx(1.4)


def test_relativistic_by_hand():
    def soft(x):
        return math.log1p(math.exp(x))

    pairs = (soft(-5.0) + soft(-0.3)) / 2
    assert relativistic_discriminator(REAL, FAKE).item() == pytest.approx(pairs)
    both = (pairs + (soft(-2.5) + soft(0.5)) / 2) / 2
    assert relativistic_discriminator(REAL, FAKE, WRONG).item() == pytest.approx(both)
    assert relativistic_generator(REAL, FAKE).item() == pytest.approx((soft(5.0) + soft(0.3)) / 2)


def test_gradient_penalty_of_a_quadratic_critic():
    """D = |x|^2 / 2 has the gradient x."""
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    scores = x.square().flatten(1).sum(1) / 2
    norms = x.detach().flatten(1).norm(dim=1)
    assert torch.allclose(lipschitz_penalty(scores, [x]), ((norms - 1) ** 2).mean())
    assert torch.allclose(zero_centred_penalty(scores, [x]), norms.square().mean())


def test_the_penalty_is_two_sided_and_finite_at_0():
    x = torch.ones(2, 3, requires_grad=True)
    w = torch.zeros(3, requires_grad=True)
    penalty = lipschitz_penalty(x @ w, [x])
    assert penalty.item() == pytest.approx(1, abs=1e-5)  # a norm of 0 is as wrong as one of 2
    penalty.backward()
    assert w.grad.isfinite().all()


def test_points_between_real_and_generated():
    a, b = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    share = torch.tensor([0.0, 1.0, 0.25])
    found = between(a, b, share)
    assert torch.allclose(found, torch.stack([a[0], b[1], 0.75 * a[2] + 0.25 * b[2]]))


def test_wgan_gp_of_a_linear_critic_in_closed_form():
    """The norm is over all pixels and the sentence together, the same at every point."""
    d, remedies, seen, engine = linear_case(loss="wasserstein")
    remedies.update(seen)
    x, g, e = seen.real, seen.fake.detach(), seen.sentence
    wrong = e.roll(1, 0)
    norm = torch.cat([d.w, d.v]).norm()
    distance = (d.score(g, e).mean() + d.score(x, wrong).mean()) / 2 - d.score(x, e).mean()
    expected = distance + 10 * (norm - 1) ** 2
    assert engine.losses["d"].item() == pytest.approx(expected.item(), rel=1e-5)
    ours = torch.autograd.grad(engine.losses["d"], [d.w, d.v])
    theirs = torch.autograd.grad(expected, [d.w, d.v])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert remedies.adversarial(seen).item() == pytest.approx(-d.score(g, e).mean().item())


def test_relativistic_loss_of_a_linear_critic_in_closed_form():
    """R1 and R2 are over images alone: each |w|^2."""
    d, remedies, seen, engine = linear_case(loss="relativistic", r1_r2=0.3)
    remedies.update(seen)
    x, g, e = seen.real, seen.fake.detach(), seen.sentence
    real, fake, wrong = d.score(x, e), d.score(g, e), d.score(x, e.roll(1, 0))
    loss = (F.softplus(fake - real).mean() + F.softplus(wrong - real).mean()) / 2
    expected = loss + 0.3 / 2 * 2 * d.w.square().sum()
    assert engine.losses["d"].item() == pytest.approx(expected.item(), rel=1e-5)
    (ours,) = torch.autograd.grad(engine.losses["d"], [d.w])
    (theirs,) = torch.autograd.grad(expected, [d.w])
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    adversarial = remedies.adversarial(seen)
    assert adversarial.item() == pytest.approx(F.softplus(real - fake).mean().item(), rel=1e-5)


def test_every_output_counts_and_terms_that_stay_are_added():
    """A critic with a conditional and an unconditional output, and a term of its own."""
    d = Linear(12, 3)
    critic = Critic(
        "d", {"d": d}, features=lambda x: x, matching=d.score,
        realism=lambda x: x.flatten(1).square(), own=None, own_generator=None,
        others=lambda seen: {"more": 5 * seen.images.mean()},
    )  # fmt: skip
    remedies = Remedies(GANConfig(loss="wasserstein", lipschitz="clip"), [critic])
    x, g, e, engine = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2), torch.randn(4, 3), Fixed()
    conditional = wasserstein_critic(d.score(x, e), d.score(g, e), d.score(x, e.roll(1, 0)))
    losses = remedies.update(remedies.seen(critic, batch(), engine, x, g, e))
    unconditional = g.square().mean() - x.square().mean()  # several scores: their mean
    expected = conditional + unconditional + 5 * x.mean()
    assert engine.losses["d"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert losses["more"].item() == pytest.approx(5 * x.mean().item())
    assert float(d.w.detach().abs().max()) <= 0.01  # clipped after the update


# --- packing --------------------------------------------------------------------------------------


def test_packs_are_rows_side_by_side():
    x = torch.arange(4 * 3 * 2 * 2).view(4, 3, 2, 2).float()
    assert packed(x, 1) is x
    two = packed(x, 2)
    assert two.shape == (2, 6, 2, 2)
    assert torch.equal(two[1], torch.cat([x[2], x[3]]))
    assert torch.equal(
        packed(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), 2)[0], torch.tensor([1.0, 2.0])
    )
    with pytest.raises(UserError, match="pack=3 does not divide the 4 images"):
        packed(x, 3)


def test_a_pack_of_one_is_no_pack():
    _, _, seen, _ = linear_case()
    _, _, same, _ = linear_case(pack=1)
    assert seen.real.shape == same.real.shape == (4, 3, 2, 2)
    _, remedies, alone, engine = linear_case(loss="wasserstein")
    e, x, g = torch.randn(4, 3), torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    seen = remedies.seen(remedies.critics["d"], alone.batch, engine, x, g, e)
    assert seen.real is x
    assert seen.fake is g
    assert seen.sentence is e


def test_packs_see_m_images_and_sentences_and_all_wrong_ones():
    d, remedies, seen, engine = linear_case(pack=2, loss="wasserstein")
    assert (seen.real.shape, seen.sentence.shape) == ((2, 6, 2, 2), (2, 6))
    assert torch.equal(seen.mismatched, seen.sentence.roll(1, 0))  # whole packs are wrong
    remedies.update(seen)
    norm = torch.cat([d.w, d.v]).norm()  # one penalty a pack, over all of it
    lipschitz = engine.losses["d"] - wasserstein_critic(
        d.score(seen.real, seen.sentence),
        d.score(seen.fake, seen.sentence),
        d.score(seen.real, seen.mismatched),
    )
    assert lipschitz.item() == pytest.approx(10 * (norm - 1).square().item(), rel=1e-4)


def test_the_matching_aware_penalty_of_a_pack_does_not_grow_with_its_images():
    """A critic that adds up what it scores for m images has a norm of sqrt(m) times one's."""

    def penalty(m):
        x = torch.ones(2, 5 * m, requires_grad=True)
        return matching_aware_penalty(x.sum(1) / math.sqrt(5), [x], 2.0, 6.0, pack=m)

    assert penalty(3).item() == pytest.approx(penalty(1).item()) == pytest.approx(2.0)


# --- unrolling ------------------------------------------------------------------------------------


class Curved(nn.Module):
    """A discriminator whose updates depend on the generator: tanh(x w) v, with a buffer that moves
    at each call, as spectral norm's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.w = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
        self.v = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return torch.tanh(x @ self.w) @ self.v


def game():
    """Two points of a generator whose parameter is a shift theta, and the losses of both."""
    d, x = Curved(), torch.tensor([[0.3, -0.2], [1.0, 0.4]], dtype=torch.float64)
    z = torch.tensor([[0.1, 0.5], [-0.7, 0.2]], dtype=torch.float64)

    def losses(shift):
        g = z * shift
        return (
            lambda: F.softplus(-d(x)).mean() + F.softplus(d(g)).mean(),
            lambda: F.softplus(-d(g)).mean(),
        )

    return d, losses, x, z


@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_through_unrolled_updates_is_that_of_finite_differences(steps):
    d, losses, _, _ = game()

    def value(shift):
        return unrolled({"d": d}, *losses(shift), steps, 0.5)

    shift = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(shift), shift)
    h = 1e-6
    numeric = (value(shift.detach() + h) - value(shift.detach() - h)) / (2 * h)
    assert gradient.item() == pytest.approx(numeric.item(), rel=1e-6)
    # Without the second-order term it is another one: that of the loss at fixed theta^K.
    ahead = _updated(d, losses(shift.detach())[0], steps, 0.5)
    first_order = _at(ahead, losses, shift, d)
    assert abs(gradient - first_order) > 0.02 * abs(gradient)


def _updated(d, loss, steps, lr):
    """Plain gradient descent on a copy of the weights, in place."""
    kept = [p.detach().clone() for p in d.parameters()]
    for _ in range(steps):
        for p, g in zip(
            d.parameters(), torch.autograd.grad(loss(), list(d.parameters())), strict=True
        ):
            p.data -= lr * g
    ahead = [p.detach().clone() for p in d.parameters()]
    for p, before in zip(d.parameters(), kept, strict=True):
        p.data.copy_(before)
    return ahead


def _at(weights, losses, shift, d):
    kept = [p.detach().clone() for p in d.parameters()]
    for p, w in zip(d.parameters(), weights, strict=True):
        p.data.copy_(w)
    (gradient,) = torch.autograd.grad(losses(shift)[1](), shift)
    for p, before in zip(d.parameters(), kept, strict=True):
        p.data.copy_(before)
    return gradient


def test_unrolling_equals_descent_done_by_hand_and_leaves_no_trace():
    d, losses, _, _ = game()
    shift = torch.tensor(0.8, dtype=torch.float64)
    before = {name: value.clone() for name, value in d.state_dict().items()}
    loss = unrolled({"d": d}, *losses(shift), 4, 0.3)
    assert all(torch.equal(value, before[name]) for name, value in d.state_dict().items())
    assert all(p.grad is None for p in d.parameters())
    ahead = _updated(d, losses(shift)[0], 4, 0.3)
    d.w.data, d.v.data = ahead
    assert loss.item() == pytest.approx(losses(shift)[1]().item(), rel=1e-12)


def test_the_seam_unrolls_with_generated_images_attached():
    """The generator's gradient through a linear critic, worked out: one update w + lr * x moves by
    the generated images, which are in D's loss with their graph."""
    d = nn.Linear(12, 1, bias=False)
    critic = Critic(
        "d", {"d": d}, features=lambda x: x.flatten(1), realism=d,
        own=lambda seen, _: ((d(seen.generated.flatten(1)) - d(seen.images.flatten(1))).mean(), {}),
        own_generator=lambda seen: -d(seen.generated.flatten(1)).mean(),
    )  # fmt: skip
    remedies = Remedies(GANConfig(unroll=1, unroll_lr=0.5), [critic])
    x, g = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2, requires_grad=True)
    loss = remedies.adversarial(remedies.seen(critic, batch(), Fixed(), x, g, None))
    (ours,) = torch.autograd.grad(loss, g)
    flat, w = g.flatten(1), d.weight.detach()
    ahead = w - 0.5 * (flat.mean(0) - x.flatten(1).mean(0))
    expected = -(flat @ ahead.T).mean()
    (theirs,) = torch.autograd.grad(expected, g)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-6)
    first_order = -ahead.detach().view(1, 3, 2, 2).expand_as(g) / 4
    assert not torch.allclose(ours, first_order, atol=1e-3)


# --- augmentation ---------------------------------------------------------------------------------


def test_diffaugment_is_the_identity_at_strength_0_and_differentiable():
    images = torch.rand(6, 3, 16, 16, dtype=torch.float64) * 2 - 1
    numbers = torch.rand(6, NUMBERS, dtype=torch.float64)
    policy = ("color", "translation", "cutout")
    assert torch.allclose(diffaugment(images, numbers, policy, 0.0), images)
    assert not torch.allclose(diffaugment(images, numbers, policy), images, atol=0.1)
    small = images[:2, :, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: diffaugment(x, numbers[:2], policy), small)


def test_diffaugment_by_hand():
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    half = torch.full((1, NUMBERS), 0.5)
    assert torch.allclose(diffaugment(images, half, ("color",)), images, atol=1e-6)
    assert torch.equal(diffaugment(images, half, ("translation",)), images)
    brighter = half.clone()
    brighter[0, 0] = 0.75
    assert torch.allclose(diffaugment(images, brighter, ("color",)), images + 0.25, atol=1e-6)
    grey = half.clone()
    grey[0, 1] = 0.0
    flat = images.mean(1, keepdim=True).expand_as(images)
    assert torch.allclose(diffaugment(images, grey, ("color",)), flat, atol=1e-6)
    aside = half.clone()
    aside[0, 3] = 0.0  # an eighth of 8 pixels: what was in row 0 is in row 1
    moved = diffaugment(images, aside, ("translation",))
    assert torch.equal(moved[:, :, 1:], images[:, :, :-1])
    assert not moved[:, :, 0].any()
    hole = diffaugment(torch.ones(1, 1, 8, 8), half, ("cutout",))
    assert hole.sum() == 64 - 16
    assert not hole[0, 0, 2:6, 2:6].any()


def ada_of(p, images, choices=0.5):
    ada = AdaptiveAugmentation(0.6, 1000)
    ada.p.fill_(p)
    n = len(images)
    torch.manual_seed(5)
    return ada(
        images, torch.full((n, CHOICES), choices), torch.rand(n, UNIFORMS), torch.randn(n, NORMALS)
    )


def test_ada_is_the_identity_at_p_0_and_differentiable():
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    assert torch.allclose(ada_of(0.0, images), images, atol=1e-6)
    assert torch.allclose(ada_of(0.4, images, choices=0.7), images, atol=1e-6)
    images.requires_grad_()
    changed = ada_of(1.0, images)
    assert not torch.allclose(changed, images, atol=0.1)
    changed.square().sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0


def test_adas_hue_keeps_the_grey_axis_and_lengths():
    """All of ADA's colour maps but brightness and contrast keep a grey image grey."""
    grey = torch.full((4, 3, 8, 8), 0.25)
    found = ada_of(1.0, grey)
    assert torch.allclose(found.std(1), torch.zeros(4, 8, 8), atol=1e-5)


def test_adas_probability_moves_as_the_equation_says():
    """p += sign(r_t - target) * seen / images, within [0, 1]."""
    ada = AdaptiveAugmentation(0.6, 1000)
    overfit, fine = torch.ones(8), torch.tensor([1.0, 1, 1, -1])  # r_t = 1 and 0.5
    for expected in (0.25, 0.5, 0.75, 1.0, 1.0):
        ada.adapt(overfit, 250)
        assert ada.p.item() == pytest.approx(expected)
    ada.adapt(fine, 100)
    assert ada.p.item() == pytest.approx(0.9)
    for _ in range(20):
        ada.adapt(fine, 100)
    assert ada.p.item() == 0
    assert "p" in ada.state_dict()


def test_the_seam_adapts_every_fourth_step_by_real_scores():
    d = Linear(12, 3)
    critic = Critic(
        "d", {"d": d}, features=lambda x: x, matching=lambda x, e: d.score(x, e) * 0 + 1.0,
        own=lambda seen, _: (d.score(seen.images, seen.condition).mean(), {}), own_generator=None,
    )  # fmt: skip
    remedies = Remedies(GANConfig(augment_images="ada", ada_images=160), [critic])
    assert list(remedies.modules) == ["ada_d"]
    ps = []
    for at in range(8):
        x, g, e = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2), torch.randn(4, 3)
        losses = remedies.update(remedies.seen(critic, batch(at=at), Fixed(), x, g, e))
        ps.append(losses["d.p"].item())
    assert ps == pytest.approx([0, 0, 0, 0.1, 0.1, 0.1, 0.1, 0.2])


# --- normalisation and refusals -------------------------------------------------------------------


def test_layer_norm_takes_batch_norms_place():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    assert has_batchnorm([net])
    layernorm_for_batchnorm(net)
    assert not has_batchnorm([net])
    x = torch.randn(5, 3, 6, 6)
    y = net[0](x)
    by_hand = (y - y.mean((1, 2, 3), keepdim=True)) / (
        y.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5
    ).sqrt()
    assert torch.allclose(net(x), F.relu(by_hand), atol=1e-5)


def test_a_model_refuses_a_remedy_by_name():
    critic = linear_case()[1].critics["d"]
    reason = {"pack": "its contrast compares regions of one image"}
    Remedies(GANConfig(), [critic], refused=reason)
    with pytest.raises(UserError, match=r"pack=2: its contrast.*use pack=1"):
        Remedies(GANConfig(pack=2), [critic], refused=reason)
