"""Timesteps for validation: the middles of strata, whatever the noise."""

import torch

from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.strata import stratified
from t2i.core.interfaces.trainer import Batch


def batch(noise):
    images = torch.zeros(len(noise), 3, 8, 8)
    return Batch(images, ("a",) * len(noise), ("k",) * len(noise), noise, encode=lambda texts: None)


def test_only_the_draw_of_timesteps_is_replaced_in_every_scope():
    noise = StepNoise(0, -1, 0, 10, 10)
    fixed = stratified(batch(noise)).noise
    levels = [1 / 16, 3 / 16, 5 / 16, 7 / 16, 9 / 16, 11 / 16, 13 / 16, 15 / 16, 1 / 16, 3 / 16]
    assert fixed.uniform("t", 0, ()).tolist() == levels
    assert fixed.scope("upsampler").uniform("t", 3, ()).tolist() == levels
    for name, shape in (("u", ()), ("t", (2,))):
        assert torch.equal(fixed.uniform(name, 0, shape), noise.uniform(name, 0, shape))
    assert torch.equal(fixed.normal("t", 0, ()), noise.normal("t", 0, ()))
