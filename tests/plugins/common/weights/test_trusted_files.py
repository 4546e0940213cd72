"""Files in a folder of a network that libraries may open: inside it, plain, and safetensors."""

import json
import os
import shutil

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from t2i.core.errors import UserError
from t2i.core.models.loading import load
from t2i.plugins.common.weights.trusted_files import check_folder
from tests.plugins.models.test_ldm_folders import SD, pipeline

NAMES = {"text_encoder": "model", "unet": "diffusion_pytorch_model"}


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
    return str(caught.value)


def entry(file, **settings):
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def index(folder, stem, shard):
    names = load_file(folder / f"{stem}.safetensors")
    document = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(document))


@pytest.mark.parametrize("part", NAMES)
@pytest.mark.parametrize("shard", ["weights.bin", "../{}", "/{}", "a/{}", "..\\{}", "{}\0"])
@pytest.mark.parametrize("beside", [True, False])
def test_an_index_names_safetensors_of_its_folder_only(part, shard, beside, copied):
    folder, stem = copied / part, NAMES[part]
    torch.save(load_file(folder / f"{stem}.safetensors"), folder / "weights.bin")
    shutil.copyfile(folder / f"{stem}.safetensors", copied / f"{stem}.safetensors")
    index(folder, stem, shard.format(f"{stem}.safetensors"))
    if not beside:
        (folder / f"{stem}.safetensors").unlink()
    assert "only .safetensors files in its folder are read" in refusal(copied)


@pytest.mark.parametrize("part", NAMES)
def test_sound_shards_are_read(part, copied):
    folder, stem = copied / part, NAMES[part]
    state = load_file(folder / f"{stem}.safetensors")
    index(folder, stem, f"{stem}-00001-of-00001.safetensors")
    (folder / f"{stem}.safetensors").rename(folder / f"{stem}-00001-of-00001.safetensors")
    save_file(state, folder / f"{stem}-00001-of-00001.safetensors", {"format": "pt"})
    load(copied, "cpu")


def test_a_configuration_names_no_file(copied):
    entry(copied / "text_encoder/config.json", transformers_weights="../x.safetensors")
    assert "transformers_weights = '../x.safetensors' names a file" in refusal(copied)


def test_a_tokenizer_reads_its_own_files_only(copied):
    folder = copied / "tokenizer"
    shutil.copyfile(folder / "vocab.json", copied / "other.json") if (
        folder / "vocab.json"
    ).exists() else (copied / "other.json").write_text("{}")
    entry(folder / "tokenizer_config.json", vocab_file="../other.json")
    (folder / "vocab.json").unlink(missing_ok=True)
    assert "vocab_file = '../other.json' names a file" in refusal(copied)


@pytest.mark.parametrize(
    "file",
    ["unet/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json", "vae",
     "scheduler/scheduler_config.json"],
)  # fmt: skip
def test_links_that_lead_out_are_not_followed(file, copied, tmp_path):
    (copied / file).rename(tmp_path / "outside")
    (copied / file).symlink_to(tmp_path / "outside")
    assert "a link that leads out of " in refusal(copied)


def test_links_of_the_hubs_cache_are_followed(whole, tmp_path):
    snapshot = tmp_path / "models--a--b/snapshots/abc"
    blobs = tmp_path / "models--a--b/blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(whole, snapshot)
    for number, file in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    load(snapshot, "cpu")
    shutil.copytree(snapshot, tmp_path / "older", symlinks=True)  # as downloaders made folders
    shutil.rmtree(tmp_path / "older/vae")
    (tmp_path / "older/vae").symlink_to(snapshot / "vae")
    load(tmp_path / "older", "cpu")


def test_pipes_adapters_and_huge_texts_are_refused(tmp_path):
    os.mkfifo(tmp_path / "merges.txt")
    with pytest.raises(UserError, match=r"merges\.txt is no regular file"):
        check_folder(tmp_path)
    (tmp_path / "merges.txt").unlink()
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="of an adapter"):
        check_folder(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with open(tmp_path / "vocab.json", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UserError, match=r"vocab\.json has 1074 MB"):
        check_folder(tmp_path)


SIZES = {
    "layers of a text encoder": ("text_encoder", "num_hidden_layers", 10**9),
    "layers within the limit": ("text_encoder", "num_hidden_layers", 999),
    "tokens": ("text_encoder", "vocab_size", 10**6),
    "a width": ("text_encoder", "intermediate_size", 10**6),
    "a word for a number": ("text_encoder", "hidden_size", "16"),
    "layers of a U-Net": ("unet", "layers_per_block", 10**6),
    "many layers of a U-Net": ("unet", "layers_per_block", 900),
    "channels": ("unet", "block_out_channels", [8, 10**6]),
    "transformers": ("unet", "transformer_layers_per_block", [900, 900]),
}


@pytest.mark.parametrize("name", SIZES)
def test_no_network_is_larger_than_its_weights(name, copied):
    part, key, value = SIZES[name]
    entry(copied / part / "config.json", **{key: value})
    assert f"config.json: {key} = " in refusal(copied)


def test_a_schedule_of_a_billion_steps_is_refused(copied):
    entry(copied / "scheduler/scheduler_config.json", num_train_timesteps=10**9)
    assert "num_train_timesteps = 1000000000" in refusal(copied)
