"""Stable Diffusion's folders with damaged files: one line that names the file, and no waiting."""

import json
import os
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from t2i.core.errors import UserError
from t2i.core.models.loading import export, load
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.diffusion.scheduler_files import scheduler_of
from tests.plugins.models.test_ldm_folders import SCHEDULE, SD, close, ours, pipeline, theirs

UNET, VAE, SCHEDULER = "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("sd")
    pipeline(place, DDIMScheduler(**SD)).save_pretrained(place / "folder")
    return place / "folder"


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copied")


def refusal(folder):
    with pytest.raises(UserError) as caught:
        load(folder, "cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


WRONG = {
    "list for a number": (UNET, "in_channels", [4]),
    "word for a list": (UNET, "block_out_channels", "x"),
    "number for a list": (UNET, "down_block_types", 3),
    "empty list": (UNET, "attention_head_dim", []),
    "nothing": (UNET, "layers_per_block", None),
    "zero": (UNET, "attention_head_dim", [0, 2]),
    "word for a number": (UNET, "sample_size", "8"),
    "nested": (UNET, "sample_size", [[8], [8]]),
    "not a number": (UNET, "sample_size", float("nan")),
    "autoencoder": (VAE, "block_out_channels", None),
    "scale": (VAE, "scaling_factor", "x"),
    "positions": ("text_encoder/config.json", "max_position_embeddings", None),
    "switch": (SCHEDULER, "clip_sample", "yes"),
    "count": (SCHEDULER, "num_train_timesteps", 1000.0),
    "beta": (SCHEDULER, "beta_start", "x"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_of_a_wrong_kind_is_named_with_its_file(name, copied):
    file, key, value = WRONG[name]
    document = json.loads((copied / file).read_text())
    (copied / file).write_text(json.dumps({**document, key: value}))
    assert f"{file}: {key} = " in refusal(copied)


@pytest.mark.parametrize(
    "file", [UNET, VAE, SCHEDULER, "text_encoder/config.json", "tokenizer/tokenizer_config.json"]
)
def test_a_configuration_that_is_a_list_is_refused(file, copied):
    (copied / file).write_text("[1]")
    assert f"{file} holds no JSON object" in refusal(copied)


def test_pipes_and_lost_links_are_not_waited_for(copied):
    for part, file in (("unet", WEIGHTS), ("text_encoder", "model.safetensors")):
        kept = (copied / part / file).rename(copied / "kept")
        os.mkfifo(copied / part / file)
        assert f"{part}/{file} is no regular file" in refusal(copied)
        (copied / part / file).unlink()
        (copied / part / file).symlink_to("nowhere")
        assert f"{part}/{file} is a link to a file that does not" in refusal(copied)
        (copied / part / file).unlink()
        kept.rename(copied / part / file)
    (copied / "model_index.json").unlink()
    os.mkfifo(copied / "model_index.json")
    assert "names no pipeline" in refusal(copied)


def test_an_index_of_shards_names_files_beside_it(copied):
    network = UNet2DConditionModel.from_pretrained(copied / "unet")
    (copied / "unet" / WEIGHTS).unlink()
    network.save_pretrained(copied / "unet", max_shard_size="20KB")
    load(copied, "cpu")
    index = copied / "unet" / f"{WEIGHTS}.index.json"
    document = json.loads(index.read_text())
    for shard, said in {
        "../outside.safetensors": "only .safetensors files in its folder are read",
        "weights.bin": "only .safetensors files in its folder are read",
        "lost.safetensors": "names lost.safetensors, which is not there",
    }.items():
        shards = dict.fromkeys(document["weight_map"], shard)
        index.write_text(json.dumps({**document, "weight_map": shards}))
        assert said in refusal(copied)
    index.write_text('{"weight_map": [1]}')
    assert "does not say in which file each tensor is" in refusal(copied)
    index.unlink()
    assert f"{index} is missing" in refusal(copied)


def test_values_that_are_no_numbers_are_told(copied, capsys):
    file = copied / "unet" / WEIGHTS
    tensors = load_file(file)
    tensors["conv_in.bias"] = torch.full_like(tensors["conv_in.bias"], float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    model = load(copied, "cpu")
    model.sample(["a", "b"], steps=2, batch_size=1)
    said = capsys.readouterr().err
    assert said.count("warning: 1 of 1 images have values that are no numbers") == 1


def test_the_large_variance_adds_noise_in_the_last_step_as_in_diffusers(tmp_path):
    large = DDPMScheduler(**SCHEDULE, clip_sample=False, variance_type="fixed_large")
    pipe = pipeline(tmp_path, large)
    pipe.save_pretrained(tmp_path / "folder")
    model = load(tmp_path / "folder", "cpu")
    close(ours(model, 5), theirs(pipe, 5))
    export(model, tmp_path / "again")
    close(ours(load(tmp_path / "again", "cpu"), 5), theirs(pipe, 5))


@pytest.mark.parametrize(
    ("sampler", "refused"),
    [
        ({"variance": "beta", "spacing": "trailing", "steps": 5}, True),
        ({"variance": "beta", "spacing": "leading", "steps_offset": 1, "steps": 5}, True),
        ({"variance": "beta", "spacing": "leading", "steps": 5}, False),
        ({"variance": "beta", "spacing": "trailing", "steps": None}, False),
        ({"variance": "beta~", "spacing": "trailing", "steps": 5}, False),
    ],
)
def test_a_chain_whose_last_step_would_add_noise_is_not_exported(sampler, refused):
    config = resolve_config(
        "ddpm", overrides={"sampler": {"name": "ddpm", **sampler}}, data_needed=False
    )
    if not refused:
        assert scheduler_of(config).config.variance_type
        return
    with pytest.raises(UserError, match="adds noise in a last step"):
        scheduler_of(config)
