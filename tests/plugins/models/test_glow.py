"""Glow: invertible, with the density it states, and OpenAI's variant by a hand-written step."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.glow.config import GlowConfig
from t2i.plugins.models.glow.networks import build
from t2i.plugins.models.glow.steps import ActNorm, ZeroConv
from t2i.plugins.models.glow.training import GlowTrainer
from tests.plugins.models.flow_checks import (
    MAPPED,
    TEXT,
    captions,
    check_inverse,
    check_log_det,
    check_rows,
    check_text_reaches,
    drawn,
)

SMALL = {"image_size": 8, "levels": 2, "depth": 2, "width": 6}
OPENAI = {
    "scale": "sigmoid", "interleaved": True, "edges": "flag", "hidden_norm": True,
    "log_factor": 3.0,
}  # fmt: skip
ROSINALITY = {"scale": "sigmoid", "permutation": "lu", "edges": "ones", "hidden_norm": False}
KINDS = {
    "paper": {},
    "lu": {"permutation": "lu"},
    "openai": OPENAI,
    "rosinality": ROSINALITY,
    "additive": {"coupling": "additive", **OPENAI},
    "text": {"text": MAPPED, "text_affine": True, "text_prior": True, "levels": 3},
}


def made(kind, **more):
    return drawn(build(GlowConfig.of({**SMALL, **KINDS[kind], **more}, "test"), TEXT), std=0.06)


def images(n=2, channels=3, size=8):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, channels, size, size, generator=generator).double() * 1.8 - 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_it_inverts_and_states_its_density(kind):
    generator = made(kind)
    check_inverse(generator, images(), captions(2))
    check_rows(generator, images(), captions(2))
    check_log_det(generator, images(1), captions(1))


def test_the_caption_reaches_the_density():
    check_text_reaches(made("text"), images(), captions(2), captions(2, seed=9))


@pytest.mark.parametrize("permutation", ["plain", "lu"])
def test_values_keep_their_precision_under_bf16(permutation):
    """Only coupling networks compute in bfloat16, which is as coarse as levels of pixels.

    Here they return 0, so that nothing is lost.
    """
    generator = made("paper", permutation=permutation).float()
    for module in generator.modules():
        if isinstance(module, ZeroConv):
            module.conv.weight.data.zero_()
            module.conv.bias.data.zero_()
    text = captions(2).map(lambda value: value.float() if value.is_floating_point() else value)
    noise, log_det = generator.to_noise(images().float(), text)
    with torch.autocast("cpu", torch.bfloat16):
        found, found_det = generator.to_noise(images().float(), text)
        again = generator(found, text)
    torch.testing.assert_close(found, noise, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_det, log_det, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(again, images().float(), rtol=1e-4, atol=1e-4)


def _array(tensor):
    return tensor.detach().numpy()


def _conv(x, weight, bias=0.0):
    """A convolution of (H, W, C) without padding, place by place."""
    size = weight.shape[-1]
    height, width = x.shape[0] - size + 1, x.shape[1] - size + 1
    out = np.zeros((height, width, weight.shape[0]))
    for i in range(height):
        for j in range(width):
            window = x[i : i + size, j : j + size].transpose(2, 0, 1)
            out[i, j] = (weight * window).sum((1, 2, 3)) + bias
    return out


def _edge(x):
    """OpenAI's padding: zeros, and a channel that flags them."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    flag = np.ones((*padded.shape[:2], 1))
    flag[1:-1, 1:-1] = 0
    return np.concatenate([padded, flag], 2)


def test_openais_step_by_hand():
    """model.py of openai/glow, revnet2d_step with flow_coupling 1, in NumPy and channels last."""
    generator = made("openai", levels=1, depth=1)
    level = generator.network.levels[0]
    step = level.steps[0]
    x = images(1)

    def actnorm(norm, x):
        return (x + _array(norm.loc)[:, 0, 0]) * np.exp(3 * _array(norm.logs)[:, 0, 0])

    z = _array(F.pixel_unshuffle(x, 2))[0].transpose(1, 2, 0)
    logdet = 16 * 3 * _array(step.norm.logs).sum()
    z = actnorm(step.norm, z)
    weight = _array(step.mix.weight)
    z = z @ weight.T
    logdet += 16 * np.log(abs(np.linalg.det(weight)))
    z1, z2 = z[..., :6], z[..., 6:]
    net = step.coupling
    h = np.maximum(actnorm(net.first.norm, _conv(_edge(z1), _array(net.first.conv.weight))), 0)
    h = np.maximum(actnorm(net.second.norm, _conv(h, _array(net.second.conv.weight))), 0)
    last = net.last

    def zeros(layer, x):
        out = _conv(_edge(x), _array(layer.conv.weight), _array(layer.conv.bias))
        return out * np.exp(3 * _array(layer.log_gain)[:, 0, 0])

    h = zeros(last, h)
    shift, scale = h[..., 0::2], 1 / (1 + np.exp(-(h[..., 1::2] + 2)))
    z2 = (z2 + shift) * scale
    logdet += np.log(scale).sum()
    z = np.concatenate([z1, z2], 2)
    h = zeros(level.prior, np.zeros_like(z))  # the top prior's halves are not interleaved
    mean, logs = h[..., :12], h[..., 12:]
    log_p = -0.5 * (np.log(2 * np.pi) + 2 * logs + (z - mean) ** 2 / np.exp(2 * logs))
    expected = logdet + log_p.sum()
    assert float(generator.log_density(x, captions(1))) == pytest.approx(expected, rel=1e-10)


def test_a_split_prior_of_openai_is_interleaved():
    generator = made("openai")
    level = generator.network.levels[0]
    kept = torch.randn(2, 6, 4, 4).double()
    out = level.prior(kept)
    mean, log_std = level.gaussian(kept, kept, None)
    torch.testing.assert_close(mean, out[:, 0::2])
    torch.testing.assert_close(log_std, out[:, 1::2])


def test_the_papers_coupling_is_table_1():
    generator = made("paper")
    coupling = generator.network.levels[0].steps[0].coupling
    x = torch.randn(2, 12, 4, 4).double()
    first, second = x.chunk(2, 1)
    log_s, t = coupling.last(coupling.second(coupling.first(first).relu()).relu()).chunk(2, 1)
    got, log_det = coupling(x, None)
    torch.testing.assert_close(got, torch.cat([first, second * log_s.exp() + t], 1))
    torch.testing.assert_close(log_det, log_s.sum((1, 2, 3)))


def test_ones_beyond_the_edges():
    conv = drawn(ZeroConv(2, 3, "ones"))
    x = torch.randn(1, 2, 4, 4).double()
    padded = F.pad(x, (1, 1, 1, 1), value=1.0)
    expected = F.conv2d(padded, conv.conv.weight, conv.conv.bias) * (3 * conv.log_gain).exp()
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_first_batch_sets_actnorm(factor):
    norm = ActNorm(4, factor)
    x = torch.randn(8, 4, 3, 3) * torch.tensor([1.0, 2.0, 5.0, 0.1]).view(4, 1, 1) + 3
    norm.measures = True
    y = norm(x)
    std, mean = torch.std_mean(y, (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(std, torch.ones(4), atol=1e-4, rtol=0)


def test_preparation_reaches_every_actnorm_and_happens_once():
    torch.manual_seed(0)
    generator = build(GlowConfig.of({**SMALL, **OPENAI}, "test"), TEXT)
    trainer = object.__new__(GlowTrainer)
    trainer.glow, trainer.begun = generator.network, False

    class Engine:
        calls = 0

        def gathered(self, x):
            Engine.calls += 1
            return x

    x = images(6).float()
    trainer.prepare(x, captions(5)[[0, 1, 2, 3, 4, 0]], Engine())
    norms = [m for m in generator.modules() if isinstance(m, ActNorm)]
    assert len(norms) == 2 * 2 * 3
    assert all(float(norm.loc.abs().sum()) > 0 for norm in norms)
    assert bool(generator.network.prepared)
    before, calls = [n.loc.clone() for n in norms], Engine.calls
    trainer.prepare(2 * x, captions(5)[[0, 1, 2, 3, 4, 0]], Engine())
    assert Engine.calls == calls
    for norm, loc in zip(norms, before, strict=True):
        torch.testing.assert_close(norm.loc, loc, rtol=0, atol=0)


@pytest.mark.parametrize("permutation", ["plain", "lu"])
def test_a_new_flow_preserves_lengths_but_for_its_actnorms(permutation):
    """The 1x1 convolutions start as rotations."""
    torch.manual_seed(0)
    generator = build(GlowConfig.of({**SMALL, "permutation": permutation}, "test"), TEXT)
    x = images().float()
    noise, log_det = generator.to_noise(x, captions(2))
    torch.testing.assert_close(noise.norm(dim=1), x.flatten(1).norm(dim=1))
    torch.testing.assert_close(log_det, torch.zeros(2), atol=1e-4, rtol=0)


def test_sizes_of_the_papers_network():
    """44.0M parameters (CIFAR-10, L 3, K 32, width 512)."""
    config = GlowConfig.of({"image_size": 32}, "test")
    with torch.device("meta"):
        count = sum(p.numel() for p in build(config, TEXT).parameters())
    assert count / 1e6 == pytest.approx(44.1, abs=0.3)


def test_presets_name_their_variants():
    openai = resolve_config("glow", preset="openai", data_needed=False).settings
    assert {name: getattr(openai, name) for name in OPENAI} == OPENAI
    faces = resolve_config("glow", preset="faces", data_needed=False).settings
    assert (faces.bits, faces.coupling, faces.levels) == (5, "additive", 6)


def test_wrong_sizes_are_refused():
    with pytest.raises(UserError, match="multiple of 16 for 4 levels"):
        GlowConfig.of({**SMALL, "levels": 4}, "test")
    with pytest.raises(UserError, match="text_prior needs a text map"):
        GlowConfig.of({**SMALL, "text_prior": True}, "test")
