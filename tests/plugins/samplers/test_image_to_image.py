"""Diffusion samplers that start from an image, against closed forms: for Gaussian data the exact
denoiser is known, and so is where the probability flow takes a noised image."""

import numpy as np
import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.io.images import to_tensor
from t2i.core.models.building import build
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.diffusion.chain import steps_of_strength
from tests.plugins.samplers.test_diffusion_samplers import (
    COVARIANCE,
    DETERMINISTIC,
    FIRST_ORDER,
    MEAN,
    PATHS,
    RANDOM,
    Exact,
    draw,
    is_the_data,
    noise_of,
    sampler_of,
)

HALF = 0.5
EVERY = [*DETERMINISTIC, *RANDOM, "ode", "edm-heun", "flow-euler", "pc"]


class Encoded(Exact):
    """Its images are the points themselves, (B, 2)."""

    def encode(self, images):
        return images


def edited(name, generator, points, strength, **settings):
    keys = tuple((i, 0) for i in range(len(points)))
    text = TextFeatures.of(sentence=torch.zeros(len(points), 2))
    request = Request(text=text, noise=PromptNoise(0, keys), image=points, strength=strength)
    with torch.no_grad():
        return sampler_of(name, **settings).sample(generator, request)


def root(matrix, power):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values**power) @ vectors.T


def data(n):
    torch.manual_seed(0)
    return MEAN + torch.randn(n, 2) @ root(COVARIANCE, 0.5)


def flowed(schedule, points, steps, strength):
    """Where the probability flow takes the points, noised to the middle of the chain."""
    at = schedule.times(steps)[int(steps * strength) - 1 : int(steps * strength)]
    alpha, sigma = schedule.alpha(at).float(), schedule.sigma(at).float()
    x_t = alpha * points + sigma * noise_of(len(points))
    s = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2)
    return MEAN + (x_t - alpha * MEAN) @ (root(COVARIANCE, 0.5) @ root(s, -0.5)).T


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_noised_image_follows_the_probability_flow(name, path):
    generator, points = Encoded("epsilon", PATHS[path]()), data(16)
    few, many = (
        edited(name, generator, points, HALF, steps=steps)
        - flowed(generator.schedule, points, steps, HALF)
        for steps in (20, 80)
    )
    few, many = few.abs().max(), many.abs().max()
    assert many < (0.1 if name in FIRST_ORDER else 0.02), (few, many)
    assert many < few or many < 1e-3


@pytest.mark.parametrize("name", [*RANDOM, "ddim"])
def test_images_from_the_data_stay_of_the_data(name):
    found = edited(
        name, Encoded("v", DiscreteSchedule.named("linear", 200)), data(800), 0.6, steps=100
    )
    is_the_data(found)


@pytest.mark.parametrize("name", EVERY)
def test_the_ends_of_strength(name):
    generator, points = Encoded(), data(4)
    assert torch.equal(edited(name, generator, points, 0, steps=8), points)
    fresh = draw(name, generator, n=4, steps=8)
    assert torch.equal(edited(name, generator, points, 1, steps=8), fresh)
    generator.batches.clear()
    edited("ddim", generator, points, HALF, steps=8)
    assert len(generator.batches) == 4  # half of the calls


def test_a_little_strength_changes_little_and_more_changes_more():
    points = data(64)
    moved = [
        (edited("ddim", Encoded(), points, s, steps=50) - points).abs().mean()
        for s in (0.1, 0.3, 0.6, 0.9)
    ]
    assert moved == sorted(moved)
    assert 3 * moved[0] < moved[-1]


def test_steps_are_counted_as_diffusers_counts_them():
    assert [steps_of_strength(10, s) for s in (0, 0.1, 0.25, 0.3, 0.99, 1)] == [0, 1, 2, 3, 9, 10]
    with pytest.raises(UserError, match=r"strength 0\.01 of 50 steps.*use strength 0\.02 or more"):
        steps_of_strength(50, 0.01)


class Pixels(Exact):
    """Pixels that are independent: x_0 ~ N(0.2, 0.25) each."""

    def __init__(self):
        super().__init__()
        self.image_size, self.noise_shape, self.prediction = 4, (3, 4, 4), "sample"

    def forward(self, x_t, t, text):
        alpha = self.schedule.alpha(t).view(-1, 1, 1, 1)
        sigma = self.schedule.sigma(t).view(-1, 1, 1, 1)
        return 0.2 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x_t - alpha * 0.2)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_the_mask_holds_stays_to_the_bit_and_the_rest_is_sampled(name, strength):
    image, mask = torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    mask[:, :, 1:3, 1:] = 1
    text = TextFeatures.of(sentence=torch.zeros(2, 2))
    request = Request(
        text=text, noise=PromptNoise(0, ((0, 0), (0, 1))), image=image, mask=mask, strength=strength
    )
    with torch.no_grad():
        found = sampler_of(name, steps=10).sample(Pixels(), request)
    inside = mask.bool().expand_as(image)
    assert torch.equal(found[~inside], image[~inside])
    assert (found[inside] - image[inside]).abs().min() > 0
    assert found.isfinite().all()
    assert found.abs().max() < 3


@pytest.mark.parametrize("model", ["ddpm", "ldm"])
def test_a_models_image_keeps_what_the_mask_holds(model, small, monkeypatch):
    """In pixels or in latents, which are decoded afterwards."""
    made = build(resolve_config(model, sets=[*small(model), "encoder.vocabulary=[a, red]"]))
    generator, side = made.generator, made.generator.image_size
    monkeypatch.setattr(generator, "decode", lambda z: z)
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), dtype=bool)
    mask[:, side // 2 :] = True
    options = made.options(image=picture, mask=mask)
    with torch.no_grad():
        z = generator.encode(to_tensor(picture[None]))
        noise = PromptNoise(0, ((0, 0), (0, 1)))
        request = made.request(["a", "red"], noise, null=True, options=options.of([0, 1]))
        first, second = made.check(["a", "red"]).sample(generator, request)
    half = z.shape[-1] // 2
    for found in (first, second):
        torch.testing.assert_close(found[..., :half], z[0, ..., :half])
    assert (first - second)[..., half:].abs().amin() > 0
