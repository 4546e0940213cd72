"""The family of flows: densities of known answer, dequantisation, likelihood and its protocol."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from t2i.benchmarks.run.likelihoods import protocol_of
from t2i.core.errors import UserError
from t2i.core.families.flow import FlowGenerator, FlowLikelihood, standard_normal_log_prob
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.likelihood import bits_per_dim
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.text import TextFeatures
from t2i.core.models.likelihood import likelihood_of

TEXT = TextFeatures.of(sentence=torch.zeros(3, 2))
NOISE = PromptNoise(0, ((0, 0), (1, 0), (2, 0)))


class Uniform(FlowGenerator):
    """The uniform density on [-1, 1): noise = Phi^-1((x + 1) / 2)."""

    image_size, noise_shape = 4, (3, 4, 4)

    def forward(self, noise, text, run=None):
        return 2 * torch.special.ndtr(noise) - 1

    def to_noise(self, x, text, run=None):
        noise = torch.special.ndtri((x.double() + 1) / 2)
        density = -x[0].numel() * math.log(2)
        return noise, density - standard_normal_log_prob(noise)


class Affine(FlowGenerator):
    """The density N(m, s^2) of each value."""

    image_size, noise_shape = 4, (3, 4, 4)

    def __init__(self, m, s):
        super().__init__()
        self.m, self.s = m, s
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, noise, text, run=None):
        return self.m + self.s * noise

    def to_noise(self, x, text, run=None):
        log_det = x.new_full((len(x),), -x[0].numel() * math.log(self.s))
        return (x - self.m) / self.s, log_det


class Toy(Generator):
    """A generator without a likelihood."""


def levels(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 3, 4, 4), generator=generator, dtype=torch.uint8)


def bits(generator, images):
    likelihood = generator.likelihood({})
    return bits_per_dim(likelihood.nats(images, TEXT, NOISE), likelihood.dims(images[0].numel()))


@pytest.mark.parametrize("depth", [8, 5, 3])
def test_the_uniform_density_has_exactly_the_bit_depth(depth):
    generator = Uniform()
    generator.bits = depth
    found = bits(generator, levels())
    torch.testing.assert_close(found, torch.full((3,), float(depth)).double())
    assert protocol_of(generator.likelihood({})) == {
        "bit_depth": depth, "kind": "exact", "dequantisation": "uniform",
    }  # fmt: skip


@pytest.mark.parametrize(("low", "width"), [(0.0, 1.0), (-0.5, 1.0), (-1.0, 2.0)])
def test_three_ranges_of_one_flow_give_one_number(low, width):
    """A density of [0, 1), [-1/2, 1/2) and [-1, 1), each with its own constant."""
    generator, images = Affine(0.2, 0.7), levels()
    x, volume = generator.perturbed(images.float() / 127.5 - 1, NOISE)
    scaled = low + width * (x + 1) / 2
    inner = Affine(low + width * 1.2 / 2, 0.7 * width / 2)
    constant = x[0].numel() * math.log(256 / width)
    nats = constant - inner.log_density(scaled, TEXT)
    torch.testing.assert_close(nats, volume - generator.log_density(x, TEXT))


def test_dequantised_pixels_lie_in_their_cells():
    generator = Affine(0.0, 1.0)
    images = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4) * 5
    noise = PromptNoise(0, ((0, 0),))
    for depth in (8, 5):
        generator.bits = depth
        x, volume = generator.perturbed(images.float() / 127.5 - 1, noise)
        cell = ((x + 1) * 2 ** (depth - 1)).floor()
        torch.testing.assert_close(cell, (images >> (8 - depth)).float())
        assert volume == pytest.approx(48 * math.log(2 ** (depth - 1)))


def test_gaussian_noise_is_named_and_drawn():
    generator = Affine(0.0, 1.0)
    generator.noise_std = 0.1
    x = torch.zeros(3, 3, 4, 4)
    noisy, volume = generator.perturbed(x, NOISE)
    torch.testing.assert_close(noisy, 0.1 * NOISE.normal("dequantise", 0, (3, 4, 4)))
    assert volume == pytest.approx(48 * math.log(127.5))  # levels of x are 2 / 255 apart
    assert generator.likelihood({}).protocol() == {
        "bit_depth": 8, "dequantisation": "none", "noise": "Gaussian 0.1",
    }  # fmt: skip


def test_latents_have_bits_of_their_own():
    generator = Affine(0.0, 1.0)
    generator.space, generator.noise_shape = "latents of x", (24,)
    generator.encode = lambda images: images.flatten(1)[:, ::2]
    likelihood = generator.likelihood({})
    assert likelihood.dims(48) == 24
    assert protocol_of(likelihood) == {
        "kind": "exact", "dequantisation": "none", "of": "latents of x",
    }  # fmt: skip
    x = (levels().float() / 127.5 - 1).flatten(1)[:, ::2]
    expected = 0.5 * (x.square().sum(1) + 24 * math.log(2 * math.pi))
    torch.testing.assert_close(
        likelihood.nats(levels(), TEXT, NOISE), expected.double(), rtol=1e-5, atol=1e-5
    )


def test_a_gaussians_density_is_its_own():
    generator = Affine(0.3, 0.5)
    x = torch.randn(3, 3, 4, 4)
    expected = torch.distributions.Normal(0.3, 0.5).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(generator.log_density(x, TEXT), expected)


def test_denoising_gaussian_data_is_the_posterior_mean():
    """x = y + sigma eps with y ~ N(m, a^2): E[y | x] = m + a^2 / (a^2 + sigma^2) (x - m)."""
    m, a, sigma = 0.3, 0.4, 0.2
    generator = Affine(m, math.hypot(a, sigma))
    generator.noise_std = sigma
    x = torch.randn(3, 3, 4, 4)
    expected = m + a**2 / (a**2 + sigma**2) * (x - m)
    torch.testing.assert_close(generator.denoised(x, TEXT), expected)


def test_a_generator_that_computes_its_own_likelihood_is_asked():
    generator = Affine(0.0, 1.0)
    model = SimpleNamespace(config=SimpleNamespace(model="glow"), generator=generator)
    found = likelihood_of(model)
    assert isinstance(found, FlowLikelihood)
    assert found.generator is generator
    model = SimpleNamespace(config=SimpleNamespace(model="dfgan"), generator=Toy())
    assert likelihood_of(model) is None


def test_the_likelihood_has_no_settings():
    with pytest.raises(UserError, match="no settings"):
        Affine(0.0, 1.0).likelihood({"rtol": 1e-3})
