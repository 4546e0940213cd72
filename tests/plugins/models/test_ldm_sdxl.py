"""Stable Diffusion XL's folders: the images are those of diffusers' own pipeline."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from t2i.cli.main import main
from t2i.core.errors import UserError
from t2i.core.models.loading import export, load
from t2i.plugins.models.ldm.sdxl import are_clips, clip_part
from tests.plugins.models.pipelines import (
    CAPTIONS,
    VAE,
    changed,
    clip,
    close,
    ours,
    random,
    saved,
    theirs,
)

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BASE = EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading", steps_offset=1)
UNET = {
    "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "in_channels": 4,
    "out_channels": 4, "sample_size": 8, "cross_attention_dim": 40, "attention_head_dim": (2, 4),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 * 4 + 12,
}  # fmt: skip


def pipeline(place):
    """A pipeline of a few thousand random weights, and its folder."""
    torch.manual_seed(0)
    first, words = clip(place / "words")
    second, words_2 = clip(place / "words_2", 12, hidden_size=24, hidden_act="gelu")
    pipe = StableDiffusionXLPipeline(
        vae=random(AutoencoderKL(**VAE, scaling_factor=0.13025)), text_encoder=first,
        tokenizer=words, text_encoder_2=second, tokenizer_2=words_2,
        unet=random(UNet2DConditionModel(**UNET)), scheduler=BASE,
    )  # fmt: skip
    return saved(pipe, place / "folder")


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def model(xl):
    """Our model of the folder."""
    return load(xl[1], "cpu")


@pytest.fixture
def copied(xl, tmp_path):
    """A copy of the folder, to be changed."""
    shutil.copytree(xl[1], tmp_path / "copy")
    return tmp_path / "copy"


def with_scheduler(pipe, scheduler):
    other = StableDiffusionXLPipeline(**pipe.components)
    other.scheduler = scheduler
    other.set_progress_bar_config(disable=True)
    return other


def test_a_folder_draws_what_its_pipeline_draws(xl, model):
    pipe = xl[0]
    assert model.config.sampler.config.guidance == 5
    assert (model.config.sampler.config.steps, model.generator.image_size) == (50, 16)
    assert tuple(model.text_encoder.shape) == (12, 40)
    for steps, guidance in ((6, 5.0), (7, 1.0)):
        close(ours(model, steps, guidance), theirs(pipe, steps, guidance))
    close(ours(model, captions=CAPTIONS[:1]), theirs(pipe, captions=CAPTIONS[:1]))


@pytest.mark.parametrize("zeros", [True, False])
def test_no_negative_prompt_is_what_the_folder_says(xl, copied, zeros):
    changed(copied / "model_index.json", force_zeros_for_empty_prompt=zeros)
    pipe = StableDiffusionXLPipeline.from_pretrained(copied)
    pipe.set_progress_bar_config(disable=True)
    model = load(copied, "cpu")
    close(ours(model), theirs(pipe))
    negative = ["blurry", "text"]
    close(ours(model, negative=negative), theirs(pipe, negative_prompt=negative))
    null = model.text_encoder.null(2)
    assert bool(null.words.any()) is bool(null.sentence.any()) is not zeros
    assert null.mask.all()


@pytest.mark.parametrize(
    "scheduler",
    [
        EulerAncestralDiscreteScheduler(**SCHEDULE, timestep_spacing="trailing"),
        DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_other_schedulers_draw_the_same(xl, tmp_path, scheduler):
    pipe, folder = saved(with_scheduler(xl[0], scheduler), tmp_path / "folder")
    close(ours(load(folder, "cpu")), theirs(pipe))


def test_distilled_folders_are_drawn_in_few_steps_without_guidance(xl, tmp_path):
    """SDXL turbo's scheduler. diffusers takes a guidance of 0 and of 1 for none."""
    turbo = EulerAncestralDiscreteScheduler(**SCHEDULE, timestep_spacing="trailing")
    pipe, folder = saved(with_scheduler(xl[0], turbo), tmp_path / "folder")
    model = load(folder, "cpu")
    for steps in (1, 3):
        without = ours(model, steps, 0.0)
        close(without, theirs(pipe, steps, 0.0))
        assert torch.equal(without, ours(model, steps, 1.0))


@pytest.mark.parametrize("size", [(16, 32), (24, 16)])
def test_other_sizes_are_told_to_the_network(xl, model, size):
    close(ours(model, size=size), theirs(xl[0], size=size))


def test_sizes_are_settings(xl, model):
    pipe, folder = xl
    told = {"original": [64, 48], "crop": [8, 4], "target": [32, 16]}
    sized = load(folder, "cpu", {"sizes": told})
    given = {"original_size": (64, 48), "crops_coords_top_left": (8, 4), "target_size": (32, 16)}
    close(ours(sized), theirs(pipe, **given))
    assert (ours(sized) - ours(model)).abs().max() > 1e-3
    with pytest.raises(UserError, match=r"no setting is named 'sizes\.crops'"):
        load(folder, "cpu", {"sizes": {"crops": [0, 0]}})


def test_a_saved_model_needs_the_folder_no_longer(xl, copied, tmp_path):
    model = load(copied, "cpu", {"sizes": {"crop": [8, 4]}})
    model.save(tmp_path / "model")
    shutil.rmtree(copied)
    close(ours(load(tmp_path / "model", "cpu")), theirs(xl[0], crops_coords_top_left=(8, 4)))


def test_an_export_is_the_same_pipeline(xl, model, tmp_path):
    pipe, folder = xl
    export(model, tmp_path / "again")
    again = StableDiffusionXLPipeline.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(theirs(again), theirs(pipe), rtol=0, atol=1e-5)
    assert again.config.force_zeros_for_empty_prompt
    assert type(again.text_encoder).__name__ == "CLIPTextModel"
    close(ours(load(tmp_path / "again", "cpu")), theirs(pipe))
    with pytest.raises(UserError, match="StableDiffusionXLPipeline cannot express sizes"):
        export(load(folder, "cpu", {"sizes": {"crop": [8, 4]}}), tmp_path / "no")


def test_clips_are_those_of_the_pipelines_by_their_words_and_their_sentences():
    pooled, projected = (clip_part(Path("x"), "", kind) for kind in ("pooled", "projected"))
    assert are_clips([pooled, projected], [projected])
    assert not are_clips([projected, pooled], [pooled])
    assert not are_clips([pooled, projected], [pooled, projected])
    assert not are_clips([projected, {**projected, "layer": -1}], [projected])


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_from_the_command_line(xl, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(xl[1], "xl")
    drawing = ["-p", "a red bird", "--sampling-steps", "2"]
    sizes = ["--set", "sizes.original=[32,32]"]
    assert run("sample", "--run", "xl", *drawing, *sizes, "--out", "a") == 0
    assert run("import", "--model", "ldm", "xl", *sizes, "--out", "imported") == 0
    shutil.rmtree("xl")
    assert run("sample", "--run", "imported", *drawing, "--out", "b") == 0
    assert Image.open("a/0000-000.png").tobytes() == Image.open("b/0000-000.png").tobytes()
    capfd.readouterr()
    assert run("sample", "--run", "imported", *drawing, *sizes, "--out", "c") == 2
    assert "it is for other projects' files" in capfd.readouterr().err


INDEX, UNET_FILE = "model_index.json", "unet/config.json"
FOREIGN = {
    "refiner": (UNET_FILE, {"addition_time_embed_dim": 5}, "sentences of width 6.* the refiner"),
    "plain": (UNET_FILE, {"addition_embed_type": None}, "addition_embed_type = None"),
    "images": (UNET_FILE, {"encoder_hid_dim_type": "ip_image_proj"}, "of another text encoder"),
    "distilled": (UNET_FILE, {"time_cond_proj_dim": 8}, "reads the scale of guidance"),
    "inpainting": (UNET_FILE, {"in_channels": 9}, "9 input channels and its autoencoder 4"),
    "large": (UNET_FILE, {"addition_time_embed_dim": 1_000_000, "cross_attention_dim": 10**6,
                          "block_out_channels": [512, 1024]}, "but its weights have only"),
    "shift": ("vae/config.json", {"shift_factor": 0.1}, "shifts its latents"),
    "means": ("vae/config.json", {"latents_mean": [0.1] * 4}, "shifts its latents"),
    "no second": (INDEX, {"text_encoder_2": [None, None]}, "it names no text_encoder_2"),
    "no projection": (
        INDEX, {"text_encoder_2": ["transformers", "CLIPTextModel"]}, "only CLIPTextModelWith",
    ),
    "code": (INDEX, {"unet": ["mine", "UNet2DConditionModel"]}, "code from 'mine'"),
    "aesthetics": (INDEX, {"requires_aesthetics_score": True}, "would be ignored"),
    "short": ("tokenizer_2/tokenizer_config.json", {"model_max_length": 32}, "model_max_length"),
    "kernel": (
        "text_encoder_2/config.json", {"_attn_implementation": "me/mine"}, "names the kernel",
    ),
    "long": ("text_encoder_2/config.json", {"num_hidden_layers": 900}, "have only .* tensors"),
    "list": ("tokenizer/tokenizer_config.json", {"vocab_file": "../x"}, "names a file to read"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_would_be_ignored_is_refused_by_name(name, copied):
    file, settings, named = FOREIGN[name]
    changed(copied / file, **settings)
    with pytest.raises(UserError, match=named) as caught:
        load(copied, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "text_encoder_2"])
def test_pickles_are_refused(part, copied):
    file = next((copied / part).glob("*.safetensors"))
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(UserError, match="is a pickle"):
        load(copied)


def test_links_out_of_the_folder_and_foreign_code_are_refused(copied, tmp_path):
    config = copied / "text_encoder_2" / "config.json"
    config.rename(tmp_path / "elsewhere.json")
    config.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match="leads out of its folder"):
        load(copied)


def test_words_of_several_vectors_are_refused(copied):
    words = CLIPTokenizer.from_pretrained(copied / "tokenizer_2")
    text = CLIPTextModelWithProjection.from_pretrained(copied / "text_encoder_2")
    words.add_tokens(["<bird>", "<bird>_1"])
    words.save_pretrained(copied / "tokenizer_2")
    text.resize_token_embeddings(len(words))
    text.save_pretrained(copied / "text_encoder_2")
    with pytest.raises(UserError, match="<bird> of several vectors"):
        load(copied)


def test_sizes_are_for_this_pipeline_only(tmp_path):
    changed_index = tmp_path / "model_index.json"
    changed_index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(UserError, match="reads no sizes"):
        load(tmp_path, "cpu", {"sizes": {"crop": [1, 1]}})
