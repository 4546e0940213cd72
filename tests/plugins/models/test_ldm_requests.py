"""Negative prompts, image-to-image, inpainting and other sizes: the images are those of diffusers'
own pipelines, on a folder of random weights."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.models.loading import load
from t2i.core.models.options import Options
from t2i.core.registry.tables import registry
from tests.plugins.models.test_ldm_folders import CAPTIONS, KEYS, SD, close, pipeline

NEGATIVE = ["blurry, text", "blue"]
STEPS, GUIDANCE = 10, 7.5
ODD = (18, 22)  # diffusers' pipelines take multiples of 8 only


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A pipeline, and our model of the folder that it was saved in."""
    place = tmp_path_factory.mktemp("sd")
    pipe = pipeline(place, DDIMScheduler(**SD))
    pipe.save_pretrained(place / "folder")
    return pipe, load(place / "folder", "cpu")


def ours(model, guidance=GUIDANCE, **wanted):
    options = model.options(**wanted) if wanted else Options()
    choice = model.sampler("ddim", steps=STEPS, guidance=guidance)
    made = model.check(CAPTIONS, choice, options)
    with torch.no_grad():
        request = model.request(
            CAPTIONS, PromptNoise(3, KEYS), null=made.needs_null, options=options.of([0, 1])
        )
        return (made.sample(model.generator, request) / 2 + 0.5).clamp(0, 1)


def theirs(pipe, size=(8, 8), **more):
    noise = PromptNoise(3, KEYS)
    if "image" not in more:
        more["latents"] = noise.start("x_T", (4, *size))
    with torch.no_grad():
        return pipe(
            CAPTIONS, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="pt", **more
        ).images


@pytest.mark.parametrize("negative", ["blurry, text", NEGATIVE, "", ["", ""]])
def test_negative_prompts_are_those_of_diffusers(both, negative):
    pipe, model = both
    theirs_of = negative if isinstance(negative, list) else [negative] * 2
    close(ours(model, negative=negative), theirs(pipe, negative_prompt=theirs_of))


def test_a_negative_prompt_moves_the_image_and_the_empty_one_does_not(both):
    _, model = both
    plain = ours(model)
    assert torch.equal(ours(model, negative=""), plain)
    assert (ours(model, negative=NEGATIVE[0]) - plain).abs().max() > 1e-3
    mixed = ours(model, negative=[NEGATIVE[0], ""])
    torch.testing.assert_close(mixed[1], plain[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed[0], ours(model, negative=NEGATIVE[0])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 32), (24, 16), ODD])
def test_height_and_width_are_those_of_diffusers(both, size):
    pipe, model = both
    found = ours(model, size=size)
    assert found.shape == (2, 3, *size)
    if size != ODD:
        latent = (size[0] // 2, size[1] // 2)
        close(found, theirs(pipe, latent, height=size[0], width=size[1]))


def test_the_models_own_size_changes_nothing(both):
    _, model = both
    assert torch.equal(ours(model, size=(16, 16)), ours(model))


def picture():
    shades = torch.linspace(0, 255, 16 * 16).view(16, 16)
    return torch.stack([shades, shades.T, 255 - shades], -1).to(torch.uint8).numpy()


def same_noise(monkeypatch, module):
    """Gives diffusers' pipeline the noise that ours starts from."""
    noise = PromptNoise(3, KEYS)
    monkeypatch.setattr(
        f"diffusers.pipelines.stable_diffusion.{module}.randn_tensor",
        lambda shape, **_: noise.start("x_T", shape[1:]),
    )


def latents_of(model, image):
    with torch.no_grad():
        return model.generator.encode(image)


def their_image_to_image(pipe, model, monkeypatch, strength):
    same_noise(monkeypatch, "pipeline_stable_diffusion_img2img")
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    # Latents, because the pipeline draws from the autoencoder's posterior; ours takes its mean.
    options = model.options(image=picture(), strength=strength).of([0, 1])
    return theirs(other, image=latents_of(model, options.image), strength=strength)


def mask():
    where = torch.zeros(16, 16, dtype=torch.bool)
    where[4:12, 6:] = True
    return where


def their_inpainting(pipe, model, monkeypatch, strength):
    same_noise(monkeypatch, "pipeline_stable_diffusion_inpaint")
    other = StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    latents = latents_of(model, model.options(image=picture()).of([0, 1]).image)
    return theirs(
        other, image=latents, mask_image=mask().float()[None, None], strength=strength,
        height=16, width=16, masked_image_latents=latents,
    )  # fmt: skip


@pytest.mark.parametrize("strength", [0.3, 0.6, 0.99])
def test_image_to_image_is_that_of_diffusers(both, monkeypatch, strength):
    pipe, model = both
    expected = their_image_to_image(pipe, model, monkeypatch, strength)
    close(ours(model, image=picture(), strength=strength), expected)


def test_inpainting_is_that_of_diffusers(both, monkeypatch):
    pipe, model = both
    for strength in (0.6, 1.0):
        expected = their_inpainting(pipe, model, monkeypatch, strength)
        close(ours(model, image=picture(), mask=mask().numpy(), strength=strength), expected)


def test_strength_1_is_from_noise_and_0_is_the_autoencoder_alone(both):
    _, model = both
    assert torch.equal(ours(model, image=picture(), strength=1), ours(model))
    image = model.options(image=picture(), strength=0).of([0, 1]).image
    with torch.no_grad():
        back = model.generator.decode(model.generator.encode(image)) / 2 + 0.5
    torch.testing.assert_close(ours(model, image=picture(), strength=0), back.clamp(0, 1))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"size": (16, 17)}, r"width 17: model 'ldm' samples multiples of 2 pixels.*16 or 18"),
        ({"size": (16, 10**8)}, r"width 100000000: .* up to 256, such as 256$"),
        ({"size": (10**30, 16)}, "height 1000"),
        ({"size": (16, -2)}, "width -2"),
        ({"size": (16,)}, r"size \(16,\): give height and width"),
        ({"size": (16.0, 16)}, r"size \(16\.0, 16\): give height and width"),
        ({"image": picture(), "strength": float("nan")}, "strength nan: it lies between 0"),
        ({"strength": 0.5}, "strength belongs to an image"),
        ({"mask": picture()}, "a mask belongs to an image"),
        ({"image": picture(), "strength": 1.5}, "strength 1.5: it lies between 0"),
        ({"image": picture(), "mask": picture()[:8]}, "the mask is 16 x 8 pixels"),
        ({"image": "nothing.png"}, r"image nothing\.png: No such file"),
        ({"image": picture().astype(float)}, "image of float64"),
        ({"image": picture(), "strength": 0.05}, r"strength 0\.05 of 10 steps .*use strength 0\.1"),
        ({"negative": ["a", "b", "c"]}, "3 negative prompts for 2 prompts"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(both, wanted, message):
    with pytest.raises(UserError, match=message):
        ours(both[1], **wanted)


def test_a_negative_prompt_without_guidance_is_no_silence(both):
    with pytest.raises(UserError, match="guidance is 1, so a negative prompt has no effect"):
        ours(both[1], guidance=1, negative="x")


def test_every_diffusion_sampler_starts_from_an_image(both):
    _, model = both
    for spec in registry().samplers:
        if "diffusion" not in spec.families:
            continue
        for strength, steps in ((0.5, 6), (0.2, 6), (0.9, 1)):
            kwargs = {"sampler": spec.name, "steps": steps, "guidance": 2.0, "size": (16, 32)}
            if int(steps * strength):
                (image,) = model.sample("a", image=picture(), strength=strength, **kwargs)
                assert image.size == (32, 16)
