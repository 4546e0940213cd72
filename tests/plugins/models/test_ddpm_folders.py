"""diffusers' folders of DDPM, and ours in their layout: the images are those of diffusers' own
pipelines."""

import json
import re
import shutil

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from t2i.cli.main import main
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.models.building import build as build_model
from t2i.core.models.loading import export, load
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config

LEVELS = {
    "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
    "attention_head_dim": 8, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
KEYS = ((0, 0), (1, 0))


def folder(place, kind=DDPMPipeline, unet=None, **scheduler):
    torch.manual_seed(0)
    made = (DDPMScheduler if kind is DDPMPipeline else DDIMScheduler)(**scheduler)
    pipe = kind(UNet2DModel(**{**LEVELS, **(unet or {})}), made)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(place)
    return pipe


def ours(model, steps):
    choice = model.sampler(steps=steps)
    made = registry().samplers.build(choice)
    model.generator.eval()
    with torch.no_grad():
        request = model.request(["a red bird", ""], PromptNoise(3, KEYS))
        return (made.sample(model.generator, request) / 2 + 0.5).clamp(0, 1)


def theirs(pipe, steps, monkeypatch):
    """From the same initial noise: these pipelines take none, so their own draw of it is
    replaced."""
    noise = PromptNoise(3, KEYS)
    module = type(pipe).__module__
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(f"{module}.randn_tensor", lambda shape, **_: noise.start("x_T", shape[1:]))
        drawn = pipe(
            batch_size=2,
            num_inference_steps=steps,
            generator=noise.generators("chain", 0),
            output_type="np",
        ).images
    return torch.from_numpy(drawn).movedim(-1, 1)


def close(a, b):
    assert a.shape == b.shape
    assert float(a.std()) > 0.01
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


FOLDERS = {
    "paper": (DDPMPipeline, {"num_train_timesteps": 60, "clip_sample": True}, "ddpm", 60),
    "large": (DDPMPipeline, {"variance_type": "fixed_large", "clip_sample_range": 0.8}, "ddpm", 30),
    "cosine": (
        DDPMPipeline,
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
        "ddpm",
        20,
    ),
    "ddim": (
        DDIMPipeline,
        {"beta_start": 0.001, "beta_end": 0.022, "set_alpha_to_one": False},
        "ddim",
        20,
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_draws_what_its_pipeline_draws(name, tmp_path, monkeypatch):
    kind, scheduler, sampler, steps = FOLDERS[name]
    pipe = folder(tmp_path, kind, **scheduler)
    model = load(tmp_path, "cpu")
    assert (model.config.model, model.config.sampler.name) == ("ddpm", sampler)
    assert model.config.sampler.config.guidance == 1
    # The scheduler counts abar in float32: errors of 1e-7, which near pure noise reach the image.
    times = torch.arange(pipe.scheduler.config.num_train_timesteps).double()
    abar = model.generator.schedule.alpha(times) ** 2
    torch.testing.assert_close(pipe.scheduler.alphas_cumprod.double(), abar, rtol=0, atol=1e-6)
    pipe.scheduler.alphas_cumprod = abar
    close(ours(model, steps), theirs(pipe, steps, monkeypatch))


def renamed(place, **parts):
    path = place / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


def test_the_pipeline_decides_about_the_scheduler(tmp_path, monkeypatch):
    """DDIMPipeline makes a DDIMScheduler of any; DDPMPipeline calls few others than its own."""
    folder(tmp_path, timestep_spacing="trailing", clip_sample_range=0.8)
    renamed(tmp_path, _class_name="DDIMPipeline")
    pipe = DDIMPipeline.from_pretrained(tmp_path)
    close(ours(load(tmp_path, "cpu"), 7), theirs(pipe, 7, monkeypatch))
    renamed(tmp_path, _class_name="DDPMPipeline")
    pipe = DDPMPipeline.from_pretrained(tmp_path)
    close(ours(load(tmp_path, "cpu"), 7), theirs(pipe, 7, monkeypatch))
    renamed(tmp_path, scheduler=["diffusers", "EulerDiscreteScheduler"])
    with pytest.raises(UserError, match="EulerDiscreteScheduler, which a DDPMPipeline cannot call"):
        load(tmp_path)
    renamed(tmp_path, unet=["diffusers", "UNet2DConditionModel"])
    with pytest.raises(UserError, match="its unet is UNet2DConditionModel; only UNet2DModel"):
        load(tmp_path)


def test_all_parts_may_lie_in_the_folder_itself(tmp_path, monkeypatch):
    pipe = folder(tmp_path)
    for part in ("unet", "scheduler"):
        for path in (tmp_path / part).iterdir():
            shutil.move(path, tmp_path / path.name)
        (tmp_path / part).rmdir()
    close(ours(load(tmp_path, "cpu"), 10), theirs(pipe, 10, monkeypatch))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_class_embeds": 10}, "class numbers"),
        ({"in_channels": 1, "out_channels": 1}, "it turns 1 channels into 1, not 3"),
        ({"out_channels": 6}, "it turns 3 channels into 6"),
        ({"sample_size": (8, 16)}, "squares of one size"),
    ],
)
def test_networks_that_are_none_of_ours_are_refused(change, named, tmp_path):
    folder(tmp_path, unet=change)
    with pytest.raises(UserError, match=named):
        load(tmp_path)


def test_imported_saved_and_exported_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe = folder(tmp_path / "theirs", clip_sample=True)
    assert main(["import", "--model", "ddpm", "theirs", "--out", "run"]) == 0
    shutil.rmtree("theirs")
    assert (
        main(["sample", "--run", "run", "-p", "", "--sampling-steps", "3", "--out", "drawn"]) == 0
    )
    assert main(["export", "--run", "run", "--out", "again"]) == 0
    assert (
        json.loads((tmp_path / "again" / "model_index.json").read_text())["_class_name"]
        == "DDPMPipeline"
    )
    close(
        theirs(DDPMPipeline.from_pretrained("again"), 10, monkeypatch),
        theirs(pipe, 10, monkeypatch),
    )


OWN = [
    "image_size=8", "data.image_size=24", "patch=1", "unet.channels=[8, 16]", "unet.groups=4",
    "unet.text_map=0",
    "unet.sentence=false", "unet.attention=[none, self]", "unet.head_width=8", "encoder.name=none",
    "timesteps=20",
    "sampler.guidance=1",
]  # fmt: skip


def test_our_runs_without_text_draw_the_same_in_diffusers(tmp_path, monkeypatch):
    torch.manual_seed(1)
    model = build_model(resolve_config("ddim", sets=[*OWN, "sampler.steps=20"]))
    export(model, tmp_path / "folder")
    pipe = DDIMPipeline.from_pretrained(tmp_path / "folder")
    close(ours(model, 20), theirs(pipe, 20, monkeypatch))
    close(ours(load(tmp_path / "folder", "cpu"), 20), ours(model, 20))


@pytest.mark.parametrize("sampler", ["ode", "edm-heun", "flow-euler", "pc", "langevin"])
def test_samplers_without_a_counterpart_are_exported_as_ddim(sampler, tmp_path):
    sets = [*OWN, f"sampler.name={sampler}"]
    export(build_model(resolve_config("ddpm", sets=sets)), tmp_path / "folder")
    written = json.loads((tmp_path / "folder/scheduler/scheduler_config.json").read_text())
    assert (written["_class_name"], written["timestep_spacing"]) == ("DDIMScheduler", "trailing")


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        (["patch=2"], "patch=2"),
        (["unet.sentence=true", "unet.text_map=2"], "unet.text_map=2, unet.sentence=true"),
        (["unet.middle=cross", "unet.attention=[none, cross]"], "unet.middle=cross"),
        (["schedule=mixing", "prediction=sample"], "schedule=mixing"),
        (["schedule=vp"], "schedule=vp"),
    ],
)
def test_what_diffusers_cannot_express_is_refused_by_name(sets, named, tmp_path):
    model = build_model(resolve_config("ddpm", sets=[*OWN, *sets]))
    with pytest.raises(UserError, match=re.escape(f"cannot express {named}")):
        export(model, tmp_path / "folder")


def test_the_encoder_of_no_text_says_nothing():
    encoder = import_object(registry().encoders["none"].build)(None, None)
    text = encoder.encode(["a red bird", ""])
    assert text.shape == encoder.shape == (1, 1)
    assert not text.sentence.any()
    assert text.mask.all()
    assert not encoder.trainable
