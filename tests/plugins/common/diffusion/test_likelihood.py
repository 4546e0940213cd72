"""The log-likelihood by the probability flow, against closed forms, a Jacobian, and itself."""

import math

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule, SubVPSchedule, VESchedule, VPSchedule
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.likelihood import bits_per_dim, dequantised
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.common.diffusion.likelihood import (
    FlowLikelihood,
    divergence,
    flow_likelihood,
)

PATHS = {
    "linear": DiscreteSchedule.named("linear"), "cosine": DiscreteSchedule.named("cosine"),
    "vp": VPSchedule(), "sub-vp": SubVPSchedule(), "ve": VESchedule(), "mixing": FlowSchedule(),
}  # fmt: skip
SIZE = 4
DIMS = 3 * SIZE * SIZE


class Pixels(DiffusionGenerator):
    """The exact network for images from N(m, C), m and C of pixels; x_0 is `stretch` images."""

    def __init__(self, schedule, covariance, stretch=1.0):
        super().__init__()
        self.schedule, self.prediction, self.stretch = schedule, "v", stretch
        self.image_size, self.noise_shape = SIZE, (3, SIZE, SIZE)
        self.mean, self.covariance = torch.linspace(-0.5, 0.5, DIMS).double(), covariance

    def forward(self, x_t, t, text):
        x, t = x_t.double().flatten(1), t.double()
        alpha, sigma = (f(t)[:, None] for f in (self.schedule.alpha, self.schedule.sigma))
        m, c = alpha * self.stretch * self.mean, self.stretch**2 * self.covariance
        s = alpha[..., None] ** 2 * c + sigma[..., None] ** 2 * torch.eye(DIMS)
        score = -torch.linalg.solve(s, (x - m)[..., None])[..., 0]
        eps, x_0 = -sigma * score, self.stretch * self.mean - alpha * (score @ c)
        return (alpha * eps - sigma * x_0).view_as(x_t).to(x_t)

    def encode(self, images):
        return self.stretch * images


def diagonal():
    return torch.diag(torch.linspace(0.02, 0.3, DIMS).double())


def correlated():
    torch.manual_seed(0)
    a = torch.randn(DIMS, DIMS).double() / DIMS**0.5
    return 0.1 * a @ a.T + 0.05 * torch.eye(DIMS)


def images_of(count=3):
    torch.manual_seed(1)
    return torch.randint(60, 200, (count, 3, SIZE, SIZE), dtype=torch.uint8)


def noise_of(count=3):
    return PromptNoise(0, tuple((i, 0) for i in range(count)))


def text_of(count=3):
    return TextFeatures.of(sentence=torch.zeros(count, 2))


def exact_bits(covariance, images, noise, least):
    """-log2 p(x + volume) / D for x from N(m, C + least^2 I)."""
    x, volume = dequantised(images, noise)
    data = torch.distributions.MultivariateNormal(
        torch.linspace(-0.5, 0.5, DIMS).double(), covariance + least**2 * torch.eye(DIMS)
    )
    return bits_per_dim(volume - data.log_prob(x.double().flatten(1)), DIMS)


@pytest.mark.parametrize("path", PATHS)
def test_bits_of_gaussian_data_are_exact(path):
    """With a diagonal covariance the Jacobian is diagonal, so one probe gives its trace. What is
    left is the start: N(0, I), where the data still count a little."""
    likelihood = FlowLikelihood(Pixels(PATHS[path], diagonal()), {})
    found = bits_per_dim(likelihood.nats(images_of(), text_of(), noise_of()), DIMS)
    expected = exact_bits(diagonal(), images_of(), noise_of(), likelihood.least)
    torch.testing.assert_close(found, expected, rtol=0, atol=6e-3)


def test_data_on_another_scale_have_the_same_bits():
    """With x_0 in [-1/2, 1/2] the offset is 8 bits in place of 7."""
    found = [
        FlowLikelihood(Pixels(VPSchedule(), diagonal(), stretch), {"sigma_min": 1e-3 * stretch})
        .nats(images_of(), text_of(), noise_of())
        for stretch in (1.0, 0.5)
    ]  # fmt: skip
    torch.testing.assert_close(*(bits_per_dim(nats, DIMS) for nats in found), rtol=0, atol=2e-3)


def test_probes_of_plus_and_minus_one_give_the_trace_of_correlated_data():
    generator = Pixels(VPSchedule(), correlated())
    expected = exact_bits(correlated(), images_of(1), noise_of(1), 1e-3)
    likelihood = FlowLikelihood(generator, {"probes": 30})
    found = bits_per_dim(likelihood.nats(images_of(1), text_of(1), noise_of(1)), DIMS)
    assert float((found - expected).abs()) < 0.03


def test_the_trace_is_that_of_the_whole_jacobian():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 6)
    ).double()
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x).sum(0), x).transpose(0, 1)
    exact = torch.stack([torch.trace(rows) for rows in jacobian])
    probes = [torch.eye(6)[i].expand(2, 6) * 6**0.5 for i in range(6)]
    torch.testing.assert_close(divergence(net(x), x, probes), exact)
    signs = [torch.randint(0, 2, (2, 6)) * 2.0 - 1 for _ in range(2000)]
    estimate = divergence(net(x), x, signs)
    assert float((estimate - exact).abs().max()) < 0.08


def test_solvers_agree_to_a_hundredth_of_a_bit():
    generator = Pixels(DiscreteSchedule.named("linear"), correlated())
    found = [
        bits_per_dim(
            FlowLikelihood(generator, settings).nats(images_of(), text_of(), noise_of()), DIMS
        )
        for settings in ({}, {"method": "rk23"}, {"rtol": 1e-4, "atol": 1e-4})
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0.01)


def test_an_image_does_not_depend_on_its_batch():
    likelihood = FlowLikelihood(Pixels(VPSchedule(), correlated()), {})
    together = likelihood.nats(images_of(), text_of(), noise_of())
    alone = likelihood.nats(images_of()[1:2], text_of(1), noise_of()[1:2])
    torch.testing.assert_close(alone[0], together[1], rtol=1e-6, atol=1e-6)
    assert together.dtype == torch.float64


def test_uniform_dequantisation_of_a_uniform_model_is_eight_bits():
    x, volume = dequantised(images_of(), noise_of())
    assert ((x + 1) * 128).floor().to(torch.uint8).equal(images_of())
    density = -DIMS * math.log(2)  # uniform on [-1, 1]
    assert float(bits_per_dim(torch.tensor([volume - density]), DIMS)) == pytest.approx(8)


def test_what_has_no_likelihood_says_why():
    class Latents(Pixels):
        def encode(self, images):
            return images[:, :, ::2, ::2]

    with pytest.raises(UserError, match="latents"):
        FlowLikelihood(Latents(VPSchedule(), diagonal()), {})
    assert flow_likelihood(Latents(VPSchedule(), diagonal()), {}) is None
    assert isinstance(flow_likelihood(Pixels(VPSchedule(), diagonal()), {}), FlowLikelihood)
    with pytest.raises(UserError, match=r"likelihood: .*rtoll"):
        FlowLikelihood(Pixels(VPSchedule(), diagonal()), {"rtoll": 1})
    protocol = FlowLikelihood(Pixels(VPSchedule(), diagonal()), {"rtol": 1e-3}).protocol()
    assert protocol["dequantisation"] == "uniform"
    assert protocol["rtol"] == 1e-3
    assert protocol["sigma_min"] == 1e-3


def test_densities_of_different_noise_are_different_ways():
    """A schedule that begins above `sigma_min` smooths its density more."""
    ways = [
        FlowLikelihood(Pixels(schedule, diagonal()), {}).protocol()
        for schedule in (VPSchedule(), VESchedule(0.02, 80.0), VESchedule(0.02, 80.0))
    ]
    assert ways[0] != ways[1] == ways[2]
    assert ways[1]["sigma_min"] == 0.02
