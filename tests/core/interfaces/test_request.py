"""Requests: what a sampler is told."""

import dataclasses

import pytest
import torch

from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures


def request(**more):
    noise = PromptNoise(0, ((0, 0), (1, 0)))
    return Request(text=TextFeatures.of(sentence=torch.zeros(2, 3)), noise=noise, **more)


def test_it_is_frozen_and_as_long_as_its_noise():
    asked = request()
    assert len(asked) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked.strength = 0.5


def test_progress_is_reported_to_whoever_asked():
    seen = []
    request().step_done(1, 2)
    request(progress=lambda *at: seen.append(at)).step_done(1, 2)
    assert seen == [(1, 2)]


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_senseless_strength_is_refused(strength):
    with pytest.raises(ValueError, match="between 0 and 1"):
        request(strength=strength)


def test_a_mask_needs_an_image():
    with pytest.raises(ValueError, match="a mask needs an image"):
        request(mask=torch.ones(2, 1, 4, 4))
    request(mask=torch.ones(2, 1, 4, 4), image=torch.zeros(2, 3, 4, 4))
