"""Gaussian data, for which the exact network and the probability flow are known on every path."""

import torch

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import converted
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.tables import registry

MEAN = torch.tensor([0.7, -1.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)


class Points(DiffusionGenerator):
    """The exact network for images that are n points, each from N(MEAN, COVARIANCE): (2, n)."""

    def __init__(self, schedule=None, prediction="epsilon", n=1):
        super().__init__()
        self.schedule, self.prediction = schedule or DiscreteSchedule.named("linear"), prediction
        self.image_size, self.noise_shape, self.calls = 2, (2, n), 0

    def forward(self, x_t, t, text):
        self.calls += 1
        x, t = x_t.double(), t.double()
        alpha, sigma = (f(t).view(-1, 1, 1) for f in (self.schedule.alpha, self.schedule.sigma))
        m = MEAN[:, None] + text.sentence[:, :, None].double()
        s = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2)
        score = -torch.linalg.inv(s) @ (x - alpha * m)
        # eps is known at sigma > 0 only, x_0 at alpha > 0; both by the score, which always is.
        eps, x_0 = -sigma * score, m - alpha * COVARIANCE @ score
        if self.prediction == "sample":
            return x_0.float()
        if self.prediction == "v":
            return (alpha * eps - sigma * x_0).float()
        if self.prediction == "velocity":
            d_alpha, d_sigma = (rate.view(-1, 1, 1) for rate in self.schedule.rates(t))
            return (d_alpha * x_0 + d_sigma * eps).float()
        return converted(self.schedule, x, t, eps, "epsilon", self.prediction).float()

    def encode(self, images):
        return images


def sampler_of(name, **settings):
    return registry().samplers.build(registry().samplers.choose(name, settings))


def request_of(generator, count=1, seed=0, sentence=0.0, keys=None, **more):
    keys = keys or tuple((i, 0) for i in range(count))
    text = TextFeatures.of(sentence=torch.full((len(keys), 2), sentence))
    return Request(text=text, noise=PromptNoise(seed, keys), **more)


@torch.no_grad()
def draw(
    name, generator, count=1, given=None, seed=0, keys=None, sentence=0.0, null=None, **settings
):
    request = request_of(generator, count, seed, sentence, keys, null=null)
    if given is not None:
        object.__setattr__(request.noise, "given", given)
    return sampler_of(name, **settings).sample(generator, request).double()


def power(matrix, exponent):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values**exponent) @ vectors.T


def flowed(noise, ratio):
    """Where the probability flow takes u = noise (..., 2, n) from sigma / alpha = ratio: m + C^1/2
    (cos^2 C + sin^2 I)^-1/2 (u - cos m), whatever the path."""
    theta = torch.atan(torch.tensor(ratio, dtype=torch.float64))
    s = theta.cos() ** 2 * COVARIANCE + theta.sin() ** 2 * torch.eye(2)
    move = power(COVARIANCE, 0.5) @ power(s, -0.5)
    return MEAN[:, None] + move @ (noise.double() - theta.cos() * MEAN[:, None])


def moments(points):
    """Largest error of the mean and of the covariance of points (2, n)."""
    mean = (points.mean(1) - MEAN).abs().max()
    return float(mean), float((torch.cov(points) - COVARIANCE).abs().max())
