"""The sampler `direct`: which noise it draws, and that an image's noise is its own."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.samplers.direct.sampler import DirectConfig, DirectSampler, truncated_normal


class Echo(OneShotGenerator):
    """Its image is its noise."""

    image_size, noise_shape = 8, (3, 8, 8)

    def forward(self, noise, text):
        assert len(noise) == len(text)
        return noise


def text(n):
    return TextFeatures.of(sentence=torch.zeros(n, 4))


def keys(n):
    return PromptNoise(7, tuple((i // 2, i % 2) for i in range(n)))


def request(n, **more):
    return Request(text=text(n), noise=keys(n), **more)


def test_draws_plain_noise_in_one_call():
    done = []
    images = DirectSampler(DirectConfig()).sample(
        Echo(), request(3, progress=lambda *at: done.append(at))
    )
    assert torch.equal(images, keys(3).normal("z", 0, (3, 8, 8)))
    assert done == [(1, 1)]


def test_truncated_noise_is_the_normal_distribution_cut_at_two():
    z = truncated_normal(keys(64), (1000,))
    assert z.abs().max() <= 2
    assert z.std().item() == pytest.approx(
        0.8796, abs=0.005
    )  # of N(0, 1) on [-2, 2]; clamping would give 0.945
    assert (z.abs() > 1.99).float().mean() < 0.002  # clamping would pile 4.6 % up at the bound


def test_truncation_keeps_what_lies_within_and_scales():
    plain = keys(8).normal("z", 0, (3, 8, 8))
    images = DirectSampler(DirectConfig(truncation=0.88)).sample(Echo(), request(8))
    within = plain.abs() <= 2
    assert not within.all()
    assert torch.equal(images[within], 0.88 * plain[within])
    assert images.abs().max() <= 0.88 * 2


def test_a_images_truncated_noise_is_its_own():
    whole = truncated_normal(keys(16), (500,))
    parts = torch.cat([truncated_normal(keys(16)[i : i + 1], (500,)) for i in range(16)])
    assert torch.equal(whole, parts)


def test_refuses_guidance_by_one_line():
    with pytest.raises(
        UserError, match=r"sampler: setting 'guidance' = 3\.0: this sampler has no guidance"
    ):
        DirectConfig.of({"guidance": 3.0}, "sampler")
    with pytest.raises(UserError, match="no chain that a guide could steer"):
        DirectSampler(DirectConfig()).sample(Echo(), request(1, guide=lambda x, t, text: x))
    with pytest.raises(UserError, match="starts from noise, not from an image"):
        DirectSampler(DirectConfig()).sample(Echo(), request(1, image=torch.zeros(1, 3, 8, 8)))


class Shift(Echo):
    """A flow of one step: its image is its noise plus a half."""

    inverts = True

    def forward(self, noise, text):
        return noise + 0.5

    def invert(self, images, text):
        return images - 0.5


def test_inverts_where_the_generator_does():
    sampler, images = DirectSampler(DirectConfig()), torch.randn(2, 3, 8, 8)
    assert sampler.inverts(Shift())
    assert not sampler.inverts(Echo())
    assert not DirectSampler(DirectConfig(truncation=0.9)).inverts(Shift())
    assert torch.equal(sampler.invert(Shift(), images, request(2)), images - 0.5)


@pytest.mark.parametrize("t", [0, -1, 1.5])
def test_refuses_impossible_truncation(t):
    with pytest.raises(UserError, match="truncation"):
        DirectConfig.of({"truncation": t}, "sampler")


def test_is_registered_for_one_shot_models():
    spec = registry().samplers["direct"]
    assert spec.families == ("one-shot",)
    assert isinstance(import_object(spec.build)(import_object(spec.config)()), DirectSampler)
