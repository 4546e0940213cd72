"""Stable Diffusion 3's folders: the images are those of diffusers' own pipeline."""

import json
import shutil

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
)

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.models.loading import export, load
from tests.plugins.models.pipelines import (
    CAPTIONS,
    KEYS,
    VAE,
    changed,
    clip,
    close,
    ours,
    random,
    saved,
    t5,
    theirs,
)

TRANSFORMER = {
    "sample_size": 8, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2,
    "attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 48,
    "caption_projection_dim": 32, "pooled_projection_dim": 20, "pos_embed_max_size": 12,
}  # fmt: skip


def pipeline(place, with_t5=True, shift=3.0, **network):
    """A Stable Diffusion 3 of a few thousand random weights, and its folder."""
    torch.manual_seed(0)
    first, words = clip(place / "words", 12)
    second, words_2 = clip(place / "words_2", 8, hidden_size=24)
    third, words_3 = t5(48) if with_t5 else (None, None)
    vae = AutoencoderKL(
        **VAE, latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609,
        use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    pipe = StableDiffusion3Pipeline(
        transformer=random(SD3Transformer2DModel(**{**TRANSFORMER, **network})), vae=random(vae),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift), text_encoder=first,
        tokenizer=words, text_encoder_2=second, tokenizer_2=words_2, text_encoder_3=third,
        tokenizer_3=words_3,
    )  # fmt: skip
    return saved(pipe, place / "folder")


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def model(sd3):
    """Our model of the folder."""
    return load(sd3[1], "cpu")


@pytest.fixture
def copied(sd3, tmp_path):
    """A copy of the folder, to be changed."""
    shutil.copytree(sd3[1], tmp_path / "copy")
    return tmp_path / "copy"


def test_a_folder_draws_what_its_pipeline_draws(sd3, model):
    pipe = sd3[0]
    chosen = model.config.sampler
    assert (chosen.name, chosen.config.steps, chosen.config.guidance) == ("scheduler", 28, 7)
    assert chosen.config.options == {"shift": 3.0}
    assert tuple(model.text_encoder.shape) == (20, 48)
    for steps, guidance in ((6, 7.0), (9, 1.0)):
        close(ours(model, steps, guidance), theirs(pipe, steps, guidance))
    close(ours(model, captions=CAPTIONS[:1]), theirs(pipe, captions=CAPTIONS[:1]))
    negative = ["blurry", "text"]
    close(ours(model, negative=negative), theirs(pipe, negative_prompt=negative))
    assert torch.equal(ours(model, 3, 0.0), ours(model, 3, 1.0))  # as the turbo folders are used


def test_a_folder_without_t5_and_with_the_later_network(tmp_path):
    """3.5's: normalised queries and keys, a second attention in some blocks."""
    pipe, folder = pipeline(tmp_path, False, 1.0, qk_norm="rms_norm", dual_attention_layers=(0,))
    model = load(folder, "cpu")
    assert model.text_encoder.encode(CAPTIONS).words.shape == (2, 77 + 256, 48)
    close(ours(model), theirs(pipe))
    export(model, tmp_path / "again")
    none = {"text_encoder_3": None, "tokenizer_3": None}  # as diffusers wants to be told
    again = StableDiffusion3Pipeline.from_pretrained(tmp_path / "again", **none)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(theirs(again), theirs(pipe))


@pytest.mark.parametrize("size", [(16, 24), (24, 20)])
def test_other_sizes(sd3, model, size):
    close(ours(model, size=size), theirs(sd3[0], size=size))


def test_sizes_beyond_the_position_embeddings_are_refused(model):
    assert model.generator.size_step == 4
    with pytest.raises(UserError, match="at most 48 pixels"):
        ours(model, size=(52, 16))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_image_to_image_is_that_of_diffusers(sd3, model, monkeypatch, strength):
    pipe, noise = sd3[0], PromptNoise(3, KEYS)
    monkeypatch.setattr(
        "diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3_img2img.randn_tensor",
        lambda shape, **_: noise.start("x_T", shape[1:]),
    )
    other = StableDiffusion3Img2ImgPipeline(**{
        name: part for name, part in pipe.components.items()
        if name not in ("image_encoder", "feature_extractor")
    })  # fmt: skip
    other.set_progress_bar_config(disable=True)
    shades = torch.linspace(0, 255, 16 * 16).view(16, 16)
    picture = torch.stack([shades, shades.T, 255 - shades], -1).to(torch.uint8).numpy()
    image = model.options(image=picture).of([0, 1]).image
    with torch.no_grad():  # latents: the pipeline draws from the posterior, ours takes its mean
        latents = model.generator.encode(image)
        expected = other(
            CAPTIONS, image=latents, strength=strength, num_inference_steps=6, guidance_scale=4.0,
            height=16, width=16, output_type="pt",
        ).images  # fmt: skip
    close(ours(model, 6, image=picture, strength=strength), expected)


def test_an_export_is_the_same_pipeline_and_a_saved_model_needs_no_folder(sd3, copied, tmp_path):
    pipe = sd3[0]
    model = load(copied, "cpu")
    model.save(tmp_path / "model")
    shutil.rmtree(copied)
    loaded = load(tmp_path / "model", "cpu")
    close(ours(loaded), theirs(pipe))
    export(loaded, tmp_path / "again")
    again = StableDiffusion3Pipeline.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(theirs(again), theirs(pipe))
    assert again.scheduler.config.shift == 3
    assert json.loads((tmp_path / "again" / "model_index.json").read_text())["image_encoder"] == [
        None, None,
    ]  # fmt: skip


def test_other_samplers_of_diffusion_models_draw_too(model):
    near, far = (ours(model, steps, 1.0, "ddim") for steps in (3, 20))
    exact = ours(model, 60, 1.0)
    assert (far - exact).abs().max() < (near - exact).abs().max()
    with pytest.raises(UserError, match="name a number of sampling steps"):
        model.check(CAPTIONS, model.sampler("ddim", settings={"steps": None}))


SCHEDULER, INDEX, NETWORK = (
    "scheduler/scheduler_config.json", "model_index.json", "transformer/config.json",
)  # fmt: skip
FOREIGN = {
    "dynamic": (SCHEDULER, {"use_dynamic_shifting": True}, "use_dynamic_shifting = True"),
    "backwards": (SCHEDULER, {"invert_sigmas": True}, "invert_sigmas = True"),
    "steps": (SCHEDULER, {"num_train_timesteps": 100}, "num_train_timesteps = 100: 1000 is"),
    "shift": (SCHEDULER, {"shift": "much"}, "shift = 'much': a number is expected"),
    "newer": (SCHEDULER, {"bend": 2}, "bend = 2: no scheduler"),
    "heun": (
        INDEX, {"scheduler": ["diffusers", "FlowMatchHeunDiscreteScheduler"]}, "only FlowMatchE",
    ),
    "half": (INDEX, {"tokenizer_3": [None, None]}, "one of text_encoder_3 and tokenizer_3"),
    "adapter": (INDEX, {"adapter": ["diffusers", "T2IAdapter"]}, "has the part adapter"),
    "network": (NETWORK, {"bend": 2}, "its transformer has the setting bend = 2"),
    "words": (NETWORK, {"joint_attention_dim": 49}, "expected shape"),
    "places": (NETWORK, {"pos_embed_max_size": 5000}, "pos_embed_max_size = 5000, but its weights"),
    "layers": (NETWORK, {"num_layers": 900}, "num_layers = 900, but its weights"),
    "wide": (NETWORK, {"num_attention_heads": 10**5}, "num_attention_heads = 100000, but"),
    "kind": (NETWORK, {"patch_size": "two"}, "patch_size = 'two'"),
    "oblong": (NETWORK, {"sample_size": [8, 16]}, "images here are squares"),
    "means": ("vae/config.json", {"latents_mean": [0.1] * 16}, "shifts its latents"),
    "shift factor": ("vae/config.json", {"shift_factor": "much"}, "shift_factor = 'much'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_would_be_ignored_is_refused_by_name(name, copied):
    file, settings, named = FOREIGN[name]
    changed(copied / file, **settings)
    with pytest.raises(UserError, match=named) as caught:
        load(copied, "cpu")
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(copied):
    (copied / "tokenizer_3" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer_3/ .* tokenizer\.json nor spiece\.model"):
        load(copied)
