"""PixArt-alpha's folders: the images are those of diffusers' own pipeline."""

import shutil

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
)

from t2i.core.errors import UserError
from t2i.core.models.loading import export, load
from tests.plugins.models.pipelines import (
    CAPTIONS,
    VAE,
    changed,
    close,
    ours,
    random,
    saved,
    t5,
    theirs,
)

TRANSFORMER = {
    "sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 8, "num_layers": 2,
    "attention_head_dim": 6, "num_attention_heads": 4, "cross_attention_dim": 24,
    "caption_channels": 32,
}  # fmt: skip
RAW = {"use_resolution_binning": False, "clean_caption": False}
"""At the sizes that are given, with captions as they are but for their case."""


def pipeline(place, **network):
    """A PixArt-alpha of a few thousand random weights, and its folder."""
    torch.manual_seed(0)
    text, words = t5(32)
    pipe = PixArtAlphaPipeline(
        tokenizer=words, text_encoder=text, vae=random(AutoencoderKL(**VAE)),
        transformer=random(PixArtTransformer2DModel(**{**TRANSFORMER, **network})),
        scheduler=DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02),
    )  # fmt: skip
    return saved(pipe, place / "folder")


@pytest.fixture(scope="module")
def pixart(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("pixart"))


@pytest.fixture(scope="module")
def model(pixart):
    """Our model of the folder."""
    return load(pixart[1], "cpu")


@pytest.fixture
def copied(pixart, tmp_path):
    """A copy of the folder, to be changed."""
    shutil.copytree(pixart[1], tmp_path / "copy")
    return tmp_path / "copy"


def test_a_folder_draws_what_its_pipeline_draws(pixart, model):
    pipe = pixart[0]
    chosen = model.config.sampler.config
    assert (chosen.scheduler, chosen.steps) == ("DPMSolverMultistepScheduler", 20)
    assert chosen.guidance == 4.5
    for steps, guidance in ((6, 4.5), (7, 1.0)):
        close(ours(model, steps, guidance), theirs(pipe, steps, guidance, **RAW))
    close(ours(model, captions=CAPTIONS[:1]), theirs(pipe, captions=CAPTIONS[:1], **RAW))
    negative = ["Blurry", "text"]
    close(ours(model, negative=negative), theirs(pipe, negative_prompt=negative, **RAW))
    assert torch.equal(ours(model, captions=["RED"]), ours(model, captions=["red"]))


def test_captions_are_cut_at_120_tokens(pixart, model):
    pipe = pixart[0]
    long = ["red bird " * 80 + "a", "red bird " * 80 + "blue"]
    assert model.text_encoder.encode(long).words.shape[1] == 120
    assert model.text_encoder.reading(long[0]).limit == 120
    found = ours(model, captions=long)
    torch.testing.assert_close(found, theirs(pipe, captions=long, **RAW), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 24), (24, 16)])
def test_other_sizes(pixart, model, size):
    close(ours(model, size=size), theirs(pixart[0], size=size, **RAW))


def test_the_network_for_1024_pixels_is_told_the_size(tmp_path):
    """It also has twice the distance of positions. Its latents are small here: at other sizes."""
    pipe, folder = pipeline(tmp_path, sample_size=128, attention_head_dim=6)
    model = load(folder, "cpu")
    assert model.generator.image_size == 256
    assert model.generator.transformer.use_additional_conditions
    for size in ((16, 16), (16, 32)):
        close(ours(model, 3, size=size), theirs(pipe, 3, size=size, **RAW))


def test_the_whole_size_is_that_of_the_pipeline_with_binning(tmp_path):
    pipe, folder = pipeline(tmp_path, sample_size=32, interpolation_scale=2.0, out_channels=4)
    found = ours(load(folder, "cpu"), 2)
    assert found.shape[2:] == (64, 64)
    close(found, theirs(pipe, 2, size=(64, 64), clean_caption=False, use_resolution_binning=False))


def test_older_folders_name_the_network_by_its_former_class(pixart, copied):
    changed(copied / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    changed(
        copied / "transformer" / "config.json", _class_name="Transformer2DModel",
        num_vector_embeds=None, only_cross_attention=False, double_self_attention=False,
        use_linear_projection=False,
    )  # fmt: skip
    close(ours(load(copied, "cpu")), theirs(pixart[0], **RAW))


def test_an_export_is_the_same_pipeline_and_a_saved_model_needs_no_folder(pixart, copied, tmp_path):
    pipe = pixart[0]
    load(copied, "cpu").save(tmp_path / "model")
    shutil.rmtree(copied)
    loaded = load(tmp_path / "model", "cpu")
    close(ours(loaded), theirs(pipe, **RAW))
    export(loaded, tmp_path / "again")
    again = PixArtAlphaPipeline.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(theirs(again, **RAW), theirs(pipe, **RAW), rtol=0, atol=1e-6)
    close(ours(load(tmp_path / "again", "cpu")), theirs(pipe, **RAW))


NETWORK = "transformer/config.json"
FOREIGN = {
    "channels": (NETWORK, {"out_channels": 6}, "turns 4 channels into 6"),
    "inputs": (NETWORK, {"in_channels": 8}, "8 input channels and its autoencoder 4"),
    "blocks": (NETWORK, {"double_self_attention": True}, "double_self_attention = True"),
    "words": (NETWORK, {"caption_channels": 33}, "expected shape"),
    "large": (NETWORK, {"sample_size": 10**5}, "sample_size = 100000, but its weights have only"),
    "text": ("model_index.json", {"text_encoder": ["transformers", "UMT5EncoderModel"]}, "only T5"),
    "learned": (
        "scheduler/scheduler_config.json", {"variance_type": "learned_range"}, "learned_range",
    ),
    "t5": ("text_encoder/config.json", {"d_ff": 10**6}, "d_ff = 1000000, but its weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_would_be_ignored_is_refused_by_name(name, copied):
    file, settings, named = FOREIGN[name]
    changed(copied / file, **settings)
    with pytest.raises(UserError, match=named) as caught:
        load(copied, "cpu")
    assert "\n" not in str(caught.value)


def test_a_t5_that_does_not_fit_is_refused(pixart, copied):
    torch.manual_seed(0)
    shutil.rmtree(copied / "text_encoder")
    t5(40)[0].save_pretrained(copied / "text_encoder")
    with pytest.raises(UserError, match=r"its words' widths are 32, and the settings .* say 40"):
        load(copied)
