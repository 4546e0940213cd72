"""Guidance of models that predict tokens one after the other: the whole way of the sampler."""

import pytest
import torch

from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.causal.prior import build as build_prior
from t2i.plugins.common.tokens.config import TokenSamplerConfig
from t2i.plugins.models.dalle.config import DalleConfig
from t2i.plugins.models.dalle.networks import build as build_dalle
from t2i.plugins.models.vqgan.config import VQGANConfig
from t2i.plugins.models.vqvae.config import VQVAEConfig
from t2i.plugins.samplers.autoregressive.sampler import AutoregressiveSampler

SIZES = {"image_size": 8, "transformer": {"width": 16, "layers": 2, "heads": 2}}
CODES = {"vocabulary": 16, "code_width": 4}
VQGAN = {**CODES, "vqgan": {"channels": 8, "multiples": (1, 2), "blocks": 1, "attention": (),
                            "latent_channels": 4, "groups": 4}}  # fmt: skip
VQVAE = {**CODES, "kind": "vqvae", "vqvae": {"channels": 8, "levels": 1, "residual_channels": 4}}
DVAE = {**CODES, "kind": "dvae", "dvae": {"channels": 4, "groups": 2, "blocks": 1},
        "quantizer": {"kind": "gumbel"}}  # fmt: skip


def vqgan():
    return build_prior(VQGANConfig.of({**SIZES, "tokenizer": VQGAN}, "test"), TextShape(4, 8))


def vqvae():
    return build_prior(VQVAEConfig.of({**SIZES, "tokenizer": VQVAE}, "test"), TextShape(4, 8))


def dalle():
    given = {**SIZES, "tokenizer": DVAE, "text_length": 6, "text_vocabulary": 9}
    return build_dalle(DalleConfig.of(given, "test"), TextShape(4, 8))


def captions(seed):
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    tokens = torch.randint(9, (2, 6), generator=g)
    words, sentence = torch.randn(2, 6, 8, generator=g), torch.randn(2, 4, generator=g)
    return TextFeatures(sentence, words, mask, extras={"tokens": tokens})


@pytest.mark.parametrize("make", [vqgan, vqvae, dalle])
def test_guidance_1_is_no_guidance_and_0_is_no_caption(make):
    torch.manual_seed(0)
    generator = make().eval().requires_grad_(False)
    for parameter in generator.parameters():
        parameter.normal_(std=0.4)
    text, null = (generator.condition(captions(seed)) for seed in (1, 2))

    def sampled(guidance, text, null):
        sampler = AutoregressiveSampler(TokenSamplerConfig(guidance=guidance))
        noise = PromptNoise(0, ((0, 0), (1, 0)))
        return sampler.sample(generator, Request(text=text, null=null, noise=noise))

    plain = sampled(1.0, text, None)
    assert torch.equal(sampled(1.0, text, null), plain)
    assert not torch.equal(sampled(5.0, text, null), plain)
    torch.testing.assert_close(sampled(0.0, text, null), sampled(1.0, null, None))
