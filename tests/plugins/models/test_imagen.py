"""Imagen: its networks against plain functions, dynamic thresholding, and its parts."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.cascade import LEVEL, PREVIOUS
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.thresholding import thresholded
from t2i.plugins.models.imagen.config import (
    BasePart,
    EfficientConfig,
    ImagenConfig,
    ReadingConfig,
    SuperPart,
)
from t2i.plugins.models.imagen.efficient import EfficientUNet
from t2i.plugins.models.imagen.networks import BaseGenerator, ImagenGenerator, upsampler_of
from t2i.plugins.models.imagen.text import AttentionPool, Reading, read
from t2i.plugins.samplers.ancestral.config import DDPMSamplerConfig
from t2i.plugins.samplers.cascade.config import CascadeConfig
from t2i.plugins.samplers.cascade.sampler import CascadeSampler
from t2i.plugins.samplers.ddim.config import DDIMConfig

TEXT = TextShape(6, 8)
EFFICIENT = {
    "channels": (8, 16), "blocks": (1, 2), "attention": ("none", "both"), "heads": 2, "groups": 4,
}  # fmt: skip
ADM = {
    "base": 8, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "head_width": 4, "groups": 4,
    "encoder_kv": 8,
}  # fmt: skip
BASE = {"image_size": 16, "adm": ADM, "pool_heads": 2, "schedule": "cosine"}
LARGER = {
    "image_size": 32, "low_size": 16, "efficient": EFFICIENT, "pool_heads": 2,
    "schedule": "cosine", "augmentation": 1.0,
}  # fmt: skip


def words(n=2, length=5):
    """Features of captions, the second of which is shorter."""
    mask = torch.arange(length) < torch.tensor([length, 3]).unsqueeze(1)
    return TextFeatures(
        torch.randn(n, 6), torch.randn(n, length, 8) * mask.unsqueeze(2), mask, ("a", "b")
    )


def random(module):
    """Draws every parameter: what is 0 at first would hide errors."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module.double().eval()


def double(text):
    return text.map(lambda x: x if x.dtype == torch.bool else x.double())


def attended(q, k, v, mask, heads):
    """Attention, one image and one head after another: q (B, N, D), k and v (B, L, D)."""
    out, width = torch.zeros_like(q), q.shape[2] // heads
    for i in range(len(q)):
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            scores = q[i, :, own] @ k[i][mask[i]][:, own].T / math.sqrt(width)
            out[i, :, own] = scores.softmax(1) @ v[i][mask[i]][:, own]
    return out


def test_words_are_pooled_by_attention_of_their_mean():
    torch.manual_seed(0)
    pool, text = random(AttentionPool(8, 2)), double(words())
    rows = text.words
    mean = torch.stack([rows[0].mean(0), rows[1, :3].mean(0)]) + pool.offset
    everything = torch.cat([mean[:, None], rows], 1)
    q, k, v = (
        F.linear(x, layer.weight, layer.bias)
        for x, layer in ((mean[:, None], pool.q), (everything, pool.k), (everything, pool.v))
    )
    wanted = attended(q, k, v, F.pad(text.mask, (1, 0), value=True), 2)[:, 0]
    torch.testing.assert_close(pool(rows, text.mask), wanted, rtol=1e-9, atol=1e-12)


def test_a_reading_is_normalised_words_and_a_vector():
    reading, text = (
        random(Reading(ReadingConfig(text_width=4, pool_heads=2), TEXT, 12)),
        double(words()),
    )
    rows, mask, vector = read(reading(text))
    assert rows.shape == (2, 5, 4)
    assert vector.shape == (2, 12)
    assert torch.equal(mask, text.mask)
    normal = F.layer_norm(text.words, (8,), reading.norm.weight, reading.norm.bias)
    linear = reading.project
    torch.testing.assert_close(rows, normal @ linear.weight.T + linear.bias)
    with pytest.raises(UserError, match="pool_heads"):
        Reading(ReadingConfig(pool_heads=3), TEXT, 12)


def plain_unet(net, x, t, extra, rows, mask):
    """The Efficient U-Net of two levels as the paper draws it, from the network's weights."""
    weights = dict(net.named_parameters())

    def at(name, x, stride=1):
        w = weights[f"{name}.weight"]
        return F.conv2d(x, w, weights[f"{name}.bias"], stride, w.shape[-1] // 2)

    def dense(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def swished(name, x):
        return F.silu(F.group_norm(x, 4, weights[f"{name}.weight"], weights[f"{name}.bias"]))

    def normed(name, x):
        return F.layer_norm(x, x.shape[2:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def block(name, x):
        h = at(f"{name}.first.2", swished(f"{name}.first.0", x))
        h = at(f"{name}.second.3", swished(f"{name}.second.0", h))
        return h + at(f"{name}.shortcut", x)

    def transformer(name, x):
        b, c, height, width = x.shape
        flat = x.reshape(b, c, -1).transpose(1, 2)
        places = normed(f"{name}.norm", flat)
        kv = torch.cat([dense(f"{name}.words", rows), dense(f"{name}.kv", places)], 1)
        seen = torch.cat([mask, torch.ones(b, height * width, dtype=torch.bool)], 1)
        out = attended(dense(f"{name}.q", places), kv[..., :c], kv[..., c:], seen, 2)
        flat = flat + dense(f"{name}.out", out)
        hidden = F.gelu(dense(f"{name}.mlp.1", normed(f"{name}.mlp.0", flat)))
        flat = flat + dense(f"{name}.mlp.3", hidden)
        return flat.transpose(1, 2).reshape(b, c, height, width)

    def level(name, x, blocks, attends):
        x = x + dense(f"{name}.combine.1", F.silu(emb))[..., None, None]
        for i in range(blocks):
            x = block(f"{name}.blocks.{i}", x)
        return transformer(f"{name}.attention", x) if attends else x

    freqs = torch.exp(-math.log(10000) * torch.arange(4) / 4).double()
    angles = t[:, None] * freqs
    waves = torch.cat([angles.cos(), angles.sin()], 1)
    emb = dense("time.2", F.silu(dense("time.0", waves))) + extra
    stem = at("stem", x)
    high = level("encoder.0", at("downs.0", stem, 2), 1, False)
    low = level("encoder.1", at("downs.1", high, 2), 2, True)
    up = level("decoder.1", torch.cat([low, low / math.sqrt(2)], 1), 2, True)
    up = at("ups.1", up.repeat_interleave(2, 2).repeat_interleave(2, 3))
    up = level("decoder.0", torch.cat([up, high / math.sqrt(2)], 1), 1, False)
    up = at("ups.0", up.repeat_interleave(2, 2).repeat_interleave(2, 3))
    return at("out.2", swished("out.0", torch.cat([up, stem / math.sqrt(2)], 1)))


def test_the_efficient_unet_is_the_papers():
    torch.manual_seed(1)
    net = random(EfficientUNet(EfficientConfig(**EFFICIENT), 6, 3, 8))
    text, x = double(words()), torch.randn(2, 6, 16, 8).double()
    given = (
        x,
        torch.tensor([3.0, 700.0]).double(),
        torch.randn(2, 32).double(),
        text.words,
        text.mask,
    )
    torch.testing.assert_close(net(*given), plain_unet(net, *given), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("attention", ["text", "both"])
def test_padding_and_other_pictures_do_not_matter(attention):
    torch.manual_seed(2)
    config = SuperPart(**{**LARGER, "efficient": {**EFFICIENT, "attention": ("none", attention)}})
    generator = random(upsampler_of(config, TEXT))
    text = double(words())
    low = {PREVIOUS: torch.rand(2, 3, 16, 16).double(), LEVEL: torch.tensor([0.2, 0.7]).double()}
    text = TextFeatures(text.sentence, text.words, text.mask, text.captions, low)
    x, t = torch.randn(2, 3, 32, 32).double(), torch.tensor([10, 700])
    whole = generator(x, t, generator.condition(text))
    alone = generator(x[1:], t[1:], generator.condition(text[1:]))
    torch.testing.assert_close(whole[1:], alone)
    words_of = text.words.clone()
    words_of[1, 3:] = 9.0  # padding
    padded = TextFeatures(text.sentence, words_of, text.mask, text.captions, low)
    torch.testing.assert_close(whole, generator(x, t, generator.condition(padded)))
    words_of[1, 1] = 9.0
    assert (whole - generator(x, t, generator.condition(padded)))[1].abs().max() > 1e-3
    louder = TextFeatures(
        text.sentence, text.words, text.mask, text.captions, {**low, LEVEL: low[LEVEL] * 0.5}
    )
    assert (whole - generator(x, t, generator.condition(louder))).abs().max() > 1e-3


def test_the_base_reads_words_and_predicts_variances():
    torch.manual_seed(3)
    generator = random(BaseGenerator(BasePart(**BASE, learned_range=True), TEXT))
    text, x, t = double(words()), torch.randn(2, 3, 16, 16).double(), torch.tensor([3, 900])
    read_ = generator.condition(text)
    prediction, v = generator.ranged(x, t, read_)
    assert prediction.shape == v.shape == x.shape
    assert torch.equal(prediction, generator(x, t, read_))
    other = TextFeatures(text.sentence, text.words.flip(0), text.mask.flip(0), text.captions)
    assert (prediction - generator(x, t, generator.condition(other))).abs().max() > 1e-3
    with pytest.raises(UserError, match="encoder_kv"):
        BaseGenerator(BasePart(**{**BASE, "adm": {**ADM, "encoder_kv": 4}}), TEXT)


@pytest.mark.parametrize(("share", "cap"), [(0.995, None), (0.95, 1.5), (0.9, 1.0), (1.0, None)])
def test_predictions_are_clipped_at_a_quantile_and_divided_by_it(share, cap):
    x_0 = torch.randn(4, 3, 8, 8) * torch.tensor([0.1, 0.6, 1.5, 4.0]).view(4, 1, 1, 1)
    bound = torch.quantile(x_0.flatten(1).abs(), share, dim=1).clamp(1, cap).view(4, 1, 1, 1)
    found = thresholded(x_0, share, cap)
    torch.testing.assert_close(found, x_0.clamp(-bound, bound) / bound)
    assert torch.equal(found[0], x_0[0])  # nothing above 1: as it was
    scheduler = DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=share, sample_max_value=cap or 1e6
    )
    torch.testing.assert_close(found, scheduler._threshold_sample(x_0))


@pytest.mark.parametrize("kind", [DDIMConfig, DDPMSamplerConfig])
def test_settings_of_thresholding_that_do_not_fit(kind):
    for given, message in (
        ({"threshold_cap": 1.5}, "set threshold"),
        ({"threshold": 0.9, "clip": 1.0}, "two bounds"),
        ({"threshold": 1.5}, "less than or equal to 1|at most 1"),
    ):
        with pytest.raises(UserError, match=message):
            kind.of(given, "sampler")


def cascade(**more):
    return {
        "image_size": 64, "base": BASE, "upsampler": LARGER,
        "upsampler2": {
            **LARGER, "image_size": 64, "low_size": 32, "crop": 32,
            "efficient": {**EFFICIENT, "attention": ("none", "text")},
        }, **more,
    }  # fmt: skip


def test_three_parts_are_sampled_in_a_row_with_thresholds():
    torch.manual_seed(4)
    generator = ImagenGenerator(ImagenConfig.of(cascade(), "test"), TEXT).eval()
    assert list(generator.parts) == ["base", "upsampler", "upsampler2"]
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    one = {"steps": 2, "threshold": 0.995}
    parts = {
        "base": {"sampler": "ddpm", "guidance": 3.0, **one},
        "upsampler": {"sampler": "ddim", **one},
        "upsampler2": {"sampler": "ddim", "steps": 1, "threshold": 0.9, "threshold_cap": 1.0},
    }  # fmt: skip
    sampler = CascadeSampler(CascadeConfig.of(parts, "sampler"))
    sampler.check(generator)
    request = Request(text=words(), null=words(), noise=PromptNoise(0, ((0, 0), (1, 0))))
    with torch.no_grad():
        images = sampler.sample(generator, request)
    assert images.shape == (2, 3, 64, 64)
    assert images.abs().max() <= 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"image_size": 32}, "must be image_size"),
        ({"base": {**BASE, "image_size": 32}}, "must be base.image_size"),
        ({"upsampler": {**LARGER, "adm": ADM}}, "two networks"),
        ({"upsampler": {**LARGER, "efficient": {**EFFICIENT, "heads": 3}}}, "3 heads"),
        ({"upsampler": {**LARGER, "efficient": {**EFFICIENT, "blocks": (1,)}}}, "blocks has 1"),
        ({"base": {"image_size": 16, "learned_range": True, "unet": {
            "channels": (8,), "attention": ("none",), "middle": "none"}}}, "set adm"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(more, message):
    with pytest.raises(UserError, match=message):
        ImagenConfig.of(cascade(**more), "test")
