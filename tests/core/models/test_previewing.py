"""Previews of the images that a network expects while they are sampled."""

import numpy as np
import pytest
import torch

from t2i.core.models.building import build
from t2i.core.models.previewing import previews
from t2i.core.runs.configure import resolve_config

WORDS = "encoder.vocabulary=[a, red, circle]"


@pytest.fixture
def model(small):
    def make(name, *sets):
        torch.manual_seed(0)
        return build(resolve_config(name, sets=[*small(name), WORDS, *sets])).frozen()

    return make


def sampled(model, **settings):
    """The images, and the previews after each step."""
    seen = []
    with previews(model.generator) as watched:
        assert watched.images(1) is None
        (batch,) = model.stream(
            "a red circle", n=2, sampler=model.sampler(**settings),
            steps=lambda done, total: seen.append(watched.images(2)),
        )  # fmt: skip
    return np.stack([one.image for one in batch]), seen


def test_the_last_preview_is_the_image(model):
    images, seen = sampled(model("ddpm", "sampler.clip=1"), name="ddim", steps=3, guidance=1)
    assert [one.shape for one in seen] == [images.shape] * 3
    assert np.abs(seen[-1].astype(int) - images).max() <= 1
    assert np.abs(seen[0].astype(int) - images).max() > 1


def test_latents_are_decoded_and_guidance_shows_the_caption(model):
    images, seen = sampled(model("ldm"), steps=2, guidance=3)
    assert [one.shape for one in seen] == [images.shape] * 2


def test_other_families_have_none_and_nothing_stays(model):
    gan = model("dfgan")
    _, seen = sampled(gan)
    assert set(map(type, seen)) <= {type(None)}
    diffusion = model("ddpm")
    sampled(diffusion, steps=2)
    assert not any(module._forward_hooks for module in diffusion.generator.modules())
