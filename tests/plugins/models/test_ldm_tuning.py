"""`t2i train --from` a folder of Stable Diffusion: one option tunes it."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DModel,
)
from PIL import Image
from safetensors.torch import load_file

from t2i.cli.main import main
from t2i.core.engine import resume, train
from t2i.core.engine.automatic import Training, resolve
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.models.loading import load
from t2i.core.models.origin import find_origin
from t2i.core.runs.folder import Run
from tests.plugins.models import test_ldm_folders as folders
from tests.plugins.models import test_ldm_pixart, test_ldm_sd3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder `sd` of Stable Diffusion, its single file, and a folder `pics` of images."""
    place = tmp_path_factory.mktemp("tuning")
    scheduler = DDIMScheduler(**folders.SD, prediction_type="v_prediction")
    made = folders.pipeline(place, scheduler)
    made.save_pretrained(place / "sd")
    folders.single_file(made, place / "v1.safetensors")
    (place / "pics").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "pics" / f"{i}.png")
        (place / "pics" / f"{i}.txt").write_text(f"a bird {i}\n")
    return place


def run(*arguments):
    return main([str(argument) for argument in arguments])


SHORT = ("steps=3", "batch_size=2", "threads=1", "sampler.steps=2")


def tuned(place, out, *sets, start="sd", model=None, **options):
    start = find_origin(place / start, model, options.pop("opening", None))
    data = {"data": {"name": "imagefolder", "dir": str(place / "pics")}}
    wanted = Training(model, sets=(*SHORT, *sets), more=data, start=start, **options)
    config = resolve(wanted, str)
    return train(config, out, reporter=Silent(), start=start)


def unet(folder):
    return load_file(folder / "model" / "generator.safetensors")


def test_one_option_tunes_a_folder_and_the_run_is_sampled_and_exported(
    place, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "sd", "sd")
    assert run("train", "--from", "sd", "--dry-run") == 0
    shown = capfd.readouterr()
    for setting in ("model: ldm", "image_size: 16", "prediction: v", "lr: 1.0e-05", "name: clip"):
        assert setting in shown.out
    assert "settings of sd: model=ldm" in shown.err
    assert run("train", "--from", "sd", "--out", "a") == 2
    assert "say which images to train on, with --data-dir" in capfd.readouterr().err
    sets = [part for each in SHORT for part in ("--set", each)]
    begin = ["train", "--from", "sd", "--data-dir", place / "pics", *sets, "--out", "a"]
    assert run(*begin, "--set", "lr=0.01") == 0
    said = capfd.readouterr().err
    assert "from sd: fits: " in said and "new: 0\n" in said and "left out: 0" in said  # noqa: PT018
    assert "stage 1 of 1: diffusion" in said  # the autoencoder has its weights
    document = json.loads(Run(tmp_path / "a").config_file.read_text())
    assert document["from"] == str(tmp_path / "sd")
    shutil.rmtree("sd")  # the run needs it no longer
    assert run("sample", "--run", "a", "-p", "a bird", "--sampling-steps", "2", "--out", "b") == 0
    assert run("export", "--run", "a", "--out", "again") == 0
    pipe = StableDiffusionPipeline.from_pretrained("again")
    before = load_file(place / "sd" / "unet" / "diffusion_pytorch_model.safetensors")
    after = pipe.unet.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before if "conv" in name)
    for part, kept in (("vae", pipe.vae), ("text_encoder", pipe.text_encoder)):
        name = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        frozen = load_file(place / "sd" / part / f"{name}.safetensors")
        own = kept.state_dict()
        assert all(torch.equal(own[key], value) for key, value in frozen.items())


def test_resuming_is_exact_and_needs_no_source(place, tmp_path):
    shutil.copytree(place / "sd", tmp_path / "sd")
    shutil.copytree(place / "pics", tmp_path / "pics")
    sets = ("steps=4", "checkpoint_every=2", "keep=9", "lr=0.01", "cache_views=1")
    whole = tuned(tmp_path, tmp_path / "a", *sets)
    half = tmp_path / "b"
    shutil.copytree(whole.path, half)
    for path in (half / "checkpoints" / "step-4", half / "model"):
        shutil.rmtree(path)
    (half / "summary.json").unlink()
    shutil.rmtree(tmp_path / "sd")
    resume(half, reporter=Silent())
    ours, theirs = unet(whole.path), unet(half)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_single_file_tunes_with_its_configuration(place, tmp_path):
    origin = {"config": str(place / "sd")}
    done = tuned(place, tmp_path / "a", start="v1.safetensors", opening=origin)
    assert json.loads(done.config_file.read_text())["from_settings"] == origin
    listed = json.loads(done.from_file.read_text())
    assert (listed["new"], listed["left_out"]) == ([], [])
    load(done.path, "cpu")


def test_a_part_of_a_folder_starts_a_model_of_other_sizes(place, tmp_path):
    """The U-Net alone; the first convolution of a text map has another shape and stays new."""
    sets = (
        "autoencoder.channels=[8,16]", "autoencoder.groups=4", "autoencoder.patch=1",
        "autoencoder.latent_channels=4", "autoencoder.losses={}", "unet.channels=[8,16]",
        "unet.groups=4", "unet.attention=[cross,none]", "unet.text_map=4", "unet.sentence=false",
        "unet.head_width=4", "encoder.width=16", "encoder.heads=2", "image_size=16", "steps=4",
    )  # fmt: skip
    start = place / "sd" / "unet"
    done = tuned(place, tmp_path / "a", *sets, start=start, model="ldm")
    listed = json.loads(done.from_file.read_text())
    assert "generator.unet.unet.conv_in.weight" in listed["other_shape"]
    assert "generator.unet.unet.down_blocks.0.resnets.0.conv1.weight" in listed["fits"]
    assert any(name.startswith("generator.autoencoder.") for name in listed["new"])
    with pytest.raises(UserError, match=r"one part of a pipeline.*name it with --model"):
        find_origin(start)


def test_settings_that_name_other_weights_win(place, tmp_path):
    torch.manual_seed(5)
    other = folders.AutoencoderKL(**folders.VAE)
    other.save_pretrained(tmp_path / "vae")
    done = tuned(place, tmp_path / "a", f"autoencoder.weights={tmp_path / 'vae'}")
    weight = unet(done.path)["autoencoder.vae.encoder.conv_in.weight"]
    assert torch.equal(weight, other.state_dict()["encoder.conv_in.weight"])
    listed = json.loads(done.from_file.read_text())
    assert "generator.autoencoder.vae.encoder.conv_in.weight" in listed["left_out"]


def test_low_memory_is_one_word(place, tmp_path, capsys):
    start = find_origin(place / "sd")
    data = {"name": "imagefolder", "dir": str(place / "pics")}
    lines = []
    wanted = Training(
        None, sets=("batch_size=4",), more={"data": data}, device="cpu", start=start,
        low_memory=True,
    )  # fmt: skip
    settings = resolve(wanted, lines.append).settings
    assert (settings.gradient_checkpointing, settings.accumulate) == (True, 4)
    assert (settings.cache_views, settings.precision) == (1, "no")
    assert "low memory: gradient_checkpointing=True accumulate=4 cache_views=1" in lines
    shapes = Training("ldm", sets=("accumulate=2",), device="cpu", low_memory=True)
    settings = resolve(shapes, str).settings
    assert (settings.accumulate, settings.cache_views) == (2, 0)


def test_a_folder_of_ddpm_is_tuned_too(place, tmp_path):
    network = UNet2DModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8,
    )  # fmt: skip
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    done = tuned(place, tmp_path / "a", start=tmp_path / "ddpm")
    assert done.config().model == "ddpm"
    assert json.loads(done.from_file.read_text())["new"] == []


@pytest.mark.parametrize("kind", [test_ldm_sd3, test_ldm_pixart], ids=["sd3", "pixart"])
def test_transformers_are_tuned_too(kind, place, tmp_path):
    made = kind.pipeline(tmp_path)
    folder = tmp_path / "folder"
    done = tuned(place, tmp_path / "a", "lr=0.01", "gradient_checkpointing=true", start=folder)
    assert json.loads(done.from_file.read_text())["new"] == []
    before, after = made[0].transformer.state_dict(), unet(done.path)
    assert any(not torch.equal(x, after[f"transformer.{name}"]) for name, x in before.items())
    frozen = made[0].vae.state_dict()
    assert all(torch.equal(x, after[f"autoencoder.vae.{name}"]) for name, x in frozen.items())
