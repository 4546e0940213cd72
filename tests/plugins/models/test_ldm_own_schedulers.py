"""Folders whose own scheduler is used: other sizes and images to start from are those of diffusers'
pipelines too."""

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from t2i.core.interfaces.noise import PromptNoise
from t2i.core.models.loading import load
from t2i.core.models.options import Options
from tests.plugins.models.test_ldm_folders import CAPTIONS, KEYS, SD, close, pipeline
from tests.plugins.models.test_ldm_requests import (
    GUIDANCE,
    STEPS,
    latents_of,
    mask,
    picture,
    their_image_to_image,
    their_inpainting,
    theirs,
)

TIMES = {key: SD[key] for key in ("beta_start", "beta_end", "beta_schedule", "steps_offset")}
SCHEDULERS = {
    "dpm": lambda: DPMSolverMultistepScheduler(**TIMES),
    "euler": lambda: EulerDiscreteScheduler(**TIMES, use_karras_sigmas=True),
    "heun": lambda: HeunDiscreteScheduler(**TIMES),
    "unipc": lambda: UniPCMultistepScheduler(**TIMES),
}


@pytest.fixture(scope="module", params=SCHEDULERS)
def both(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    pipe = pipeline(place, SCHEDULERS[request.param]())
    pipe.save_pretrained(place / "folder")
    model = load(place / "folder", "cpu")
    assert model.config.sampler.name == "scheduler"
    return pipe, model


def ours(model, **wanted):
    options = model.options(**wanted) if wanted else Options()
    made = model.check(CAPTIONS, model.sampler(steps=STEPS, guidance=GUIDANCE), options)
    with torch.no_grad():
        request = model.request(
            CAPTIONS, PromptNoise(3, KEYS), null=made.needs_null, options=options.of([0, 1])
        )
        return (made.sample(model.generator, request) / 2 + 0.5).clamp(0, 1)


def test_height_and_width(both):
    pipe, model = both
    close(ours(model, size=(16, 32)), theirs(pipe, (8, 16), height=16, width=32))


@pytest.mark.parametrize("strength", [0.3, 0.75])
def test_image_to_image(both, monkeypatch, strength):
    pipe, model = both
    expected = their_image_to_image(pipe, model, monkeypatch, strength)
    close(ours(model, image=picture(), strength=strength), expected)


def test_inpainting(both, monkeypatch):
    pipe, model = both
    expected = their_inpainting(pipe, model, monkeypatch, 0.75)
    close(ours(model, image=picture(), mask=mask().numpy(), strength=0.75), expected)


def test_the_ends_of_strength(both):
    _, model = both
    assert torch.equal(ours(model, image=picture(), strength=1.0), ours(model))
    with torch.no_grad():
        alone = model.generator.decode(
            latents_of(model, model.options(image=picture(), strength=0.0).of([0, 1]).image)
        )
    close(ours(model, image=picture(), strength=0.0), (alone / 2 + 0.5).clamp(0, 1))
