"""TarFlow: invertible, causal, with the density it states; cache and sweeps give one image."""

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.flow import FlowRun
from t2i.core.interfaces.text import TextShape
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.tarflow.config import TarFlowConfig
from t2i.plugins.models.tarflow.networks import TarFlow, build
from tests.plugins.models.flow_checks import (
    MAPPED,
    TEXT,
    captions,
    check_inverse,
    check_log_det,
    check_rows,
    check_text_reaches,
    drawn,
    jacobian,
)

SMALL = {"image_size": 8, "patch": 4, "width": 8, "head_width": 4, "layers": (1, 2, 1)}
STARFLOW = {
    "start_token": True, "scale": "softplus", "soft_clip": 4.0, "norm": "rms", "sentence": False,
    "words": True, "text_in": "deep", "guidance_rule": "product", "layers": (1, 1, 2),
}  # fmt: skip
KINDS = {
    "paper": {},
    "starflow": STARFLOW,
    "text": {
        "text": MAPPED, "text_affine": True, "words": True, "start_token": True, "soft_clip": 4.0,
    },
    "free token, words": {"words": True, "text": MAPPED},
}  # fmt: skip


def made(kind, **more):
    return drawn(build(TarFlowConfig.of({**SMALL, **KINDS[kind], **more}, "test"), TEXT), std=0.15)


def images(n=2, size=8):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 3, size, size, generator=generator).double() * 1.8 - 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_it_inverts_and_states_its_density(kind):
    generator = made(kind)
    check_inverse(generator, images(), captions(2))
    check_rows(generator, images(), captions(2))
    check_log_det(generator, images(1), captions(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_caption_reaches_the_density(kind):
    check_text_reaches(made(kind), images(), captions(2), captions(2, seed=9))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("anneal", [False, True])
def test_a_cache_and_sweeps_give_the_same_image_and_invert(kind, guidance, anneal):
    generator = made(kind, patch=2)
    text, null = generator.condition(captions(3)), generator.condition(captions(3, seed=8))
    run = {"null": null, "guidance": guidance, "anneal": anneal}
    z = torch.randn(3, *generator.noise_shape).double()
    with torch.no_grad():
        cached = generator(z, text, FlowRun(**run))
        swept = generator(z, text, FlowRun(**run, parallel=True, tolerance=0))
        torch.testing.assert_close(swept, cached, rtol=0, atol=1e-9)
        near = generator(z, text, FlowRun(**run, parallel=True, tolerance=1e-6))
        torch.testing.assert_close(near, cached, rtol=0, atol=1e-3)
        noise, _ = generator.to_noise(cached, text, FlowRun(**run))
    torch.testing.assert_close(noise, z, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_sweeps_of_an_image_do_not_depend_on_its_batch(kind):
    generator = made(kind, patch=2)
    text = generator.condition(captions(3))
    z = torch.randn(3, *generator.noise_shape).double() * torch.tensor([0.1, 1, 3]).view(3, 1, 1)
    run = FlowRun(parallel=True, tolerance=1e-2)  # so that images stop at different sweeps
    with torch.no_grad():
        together = generator(z, text, run)
        for i in range(3):
            alone = generator(z[i : i + 1], text[i : i + 1], run)
            torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_is_causal_in_its_own_order(kind):
    """d z_i / d x_j = 0 for j > i, and not for j < i."""
    generator = made(kind, patch=2)
    text = generator.network._cut(generator.condition(captions(1)))
    for block in generator.network.blocks:
        x = torch.randn(1, *generator.noise_shape).double()
        found = jacobian(
            lambda copies, own, block=block: block(copies, own, None, FlowRun())[0], x[0], text
        )
        size = found.abs().view(16, 12, 16, 12).amax((1, 3))  # (i, j)
        if block.flipped:
            size = size.flip(0, 1)
        assert bool((size.triu(1) == 0).all())
        assert bool((size.tril(-1) > 0).sum() == 16 * 15 / 2)


def test_a_block_leaves_its_first_token_unless_there_is_a_start_token():
    z = torch.randn(1, 4, 48).double()
    for kind, moves in (("paper", False), ("starflow", True)):
        generator = made(kind)
        text = generator.condition(captions(1))
        for block in generator.network.blocks:
            out, _ = block(z, text, None, FlowRun())
            first = -1 if block.flipped else 0
            assert bool((out[:, first] == z[:, first]).all()) != moves


def _attention(layer, x):
    """One layer of the paper's transformer, written out."""
    h = F.layer_norm(x, x.shape[-1:], layer.norm_1.weight, layer.norm_1.bias)
    q, k, v = (h @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, -1)
    heads = []
    for n in range(layer.heads):
        part = slice(4 * n, 4 * n + 4)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 2
        future = torch.ones(scores.shape[-2:]).triu(1).bool()
        heads.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[..., part])
    x = x + torch.cat(heads, -1) @ layer.back.weight.T + layer.back.bias
    h = F.layer_norm(x, x.shape[-1:], layer.norm_2.weight, layer.norm_2.bias)
    h = F.gelu(h @ layer.mlp[0].weight.T + layer.mlp[0].bias)
    return x + h @ layer.mlp[2].weight.T + layer.mlp[2].bias


def test_the_flow_is_the_papers_written_out():
    generator = made("paper")
    text, x = captions(2), images()
    tokens = F.unfold(x, 4, stride=4).transpose(1, 2)
    total = torch.zeros(2).double()
    for i, block in enumerate(generator.network.blocks):
        positions = block.positions
        if i % 2:
            tokens, positions = tokens.flip(1), positions.flip(0)
        h = tokens @ block.into.weight.T + block.into.bias + positions
        h = h + (text.sentence @ block.sentence.weight.T)[:, None]
        for layer in block.layers:
            h = _attention(layer, h)
        out = h @ block.out.weight.T + block.out.bias
        out = torch.cat([torch.zeros_like(out[:, :1]), out[:, :-1]], 1)
        alpha, mu = out.chunk(2, -1)
        tokens = (tokens - mu) * (-alpha).exp()
        total = total - alpha.sum((1, 2))
        if i % 2:
            tokens = tokens.flip(1)
    noise, log_det = generator.to_noise(x, text)
    torch.testing.assert_close(noise, tokens)
    torch.testing.assert_close(log_det, total)


def test_starflows_scale_is_one_at_zero_and_bounded():
    block = made("starflow").network.blocks[-1]
    for parameter in block.out.parameters():
        parameter.data.zero_()
    mu, log_sigma = block.parameters_of(torch.randn(1, 2, 8).double(), None, torch.float64)
    torch.testing.assert_close(log_sigma, torch.zeros_like(log_sigma), atol=1e-12, rtol=0)
    block.out.bias.data.fill_(1e6)
    mu, log_sigma = block.parameters_of(torch.randn(1, 2, 8).double(), None, torch.float64)
    torch.testing.assert_close(mu, torch.full_like(mu, 4.0))
    expected = F.softplus(torch.tensor(4 + 0.541324854612918).double()).log()
    torch.testing.assert_close(log_sigma, expected.expand_as(log_sigma))


def test_the_product_of_guidance_is_that_of_gaussians():
    """p_c^(1 + w) / p_u^w is a Gaussian where sigma_c <= sigma_u: its log is quadratic."""
    block = made("starflow").network.blocks[-1]
    mu_c, mu_u, s_c, s_u, w = (torch.tensor(v).double() for v in (0.3, -0.7, -0.4, 0.2, 1.5))
    mu, s = block.mixed([(mu_c, s_c), (mu_u, s_u)], w)
    precision = (1 + w) * (-2 * s_c).exp() - w * (-2 * s_u).exp()
    centre = ((1 + w) * mu_c * (-2 * s_c).exp() - w * mu_u * (-2 * s_u).exp()) / precision
    torch.testing.assert_close((-2 * s).exp(), precision)
    torch.testing.assert_close(mu, centre)
    # Where the caption is less certain than no caption, r is 1.
    mu, s = block.mixed([(mu_c, s_u), (mu_u, s_c)], w)
    torch.testing.assert_close(mu, (1 + w) * mu_c - w * mu_u)
    torch.testing.assert_close(s, s_u)


def test_padding_words_change_nothing():
    generator = made("starflow")
    text, x = captions(3)[[1, 2]], images()
    before = generator.log_density(x, generator.condition(text))
    padded = text.padded(9)
    padded.words[~padded.mask] = 5.0
    after = generator.log_density(x, generator.condition(padded))
    torch.testing.assert_close(before, after)


def test_denoising_is_a_step_of_the_score():
    generator = made("paper", noise_std=0.3)
    text, x = generator.condition(captions(2)), images()
    got = generator.denoised(x, text)
    step = 1e-5
    for place in ((0, 0, 0, 0), (1, 2, 7, 3), (0, 1, 4, 5)):
        more, less = x.clone(), x.clone()
        more[place] += step
        less[place] -= step
        score = generator.log_density(more, text) - generator.log_density(less, text)
        expected = x[place] + 0.09 * score[place[0]] / (2 * step)
        assert float(got[place]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("preset", "millions"), [("imagenet64", 466.3), ("imagenet128", 823.9), ("starflow", 3876)]
)
def test_sizes_of_the_papers_networks(preset, millions):
    """With one of 1000 classes in place of the sentence; STARFlow's words are T5-XL's.

    STARFlow's 3,857 M are without learnt positions, which are 19 M here.
    """
    settings = resolve_config("tarflow", preset=preset, data_needed=False).settings
    with torch.device("meta"):
        network = TarFlow(settings, TextShape(1000, 2048))
        count = sum(p.numel() for p in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=1e-3)


def test_wrong_sizes_are_refused():
    with pytest.raises(UserError, match="multiple of 3, two or more"):
        TarFlowConfig.of({**SMALL, "patch": 3}, "test")
    with pytest.raises(UserError, match="multiple of 8, two or more"):
        TarFlowConfig.of({**SMALL, "patch": 8}, "test")
    with pytest.raises(UserError, match=r"width \(8\) must be a multiple of head_width"):
        TarFlowConfig.of({**SMALL, "head_width": 3}, "test")
    with pytest.raises(UserError, match="one number above 0 for each block"):
        TarFlowConfig.of({**SMALL, "layers": ()}, "test")
