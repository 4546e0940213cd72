"""A cascade of two parts from its stages to its images: trained, resumed between and within the
stages, with grids of the part that is trained."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.cli.main import main
from t2i.core.engine import previews, resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.io.sheets import sheet
from t2i.core.io.tensors import load_tensors
from t2i.core.models.building import build
from t2i.core.models.loading import load
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec
from t2i.core.runs.configure import resolve_config
from t2i.core.settings import ModelConfig, Preset
from t2i.plugins.common.cascades.config import SMALL_UPSAMPLER, PixelPart, UpsamplerPart
from t2i.plugins.common.cascades.networks import CascadeOf, PixelPartGenerator, UpsamplerGenerator
from t2i.plugins.common.cascades.training import UpsamplerTrainer, part_stage
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from tests.stopped import stopped_at

UNET = {
    "channels": (16, 16), "layers": 1, "attention": ("none", "none"), "middle": "none",
    "head_width": 4, "groups": 4, "sentence": True,
}  # fmt: skip
LEARNING = {
    "unet": UNET, "patch": 2, "lr": 5e-3, "schedule": "cosine", "prediction": "sample",
    "error": "x_0", "min_snr_gamma": 5.0,
}  # fmt: skip
BASE = {**LEARNING, "image_size": 8}
UPSAMPLER = {**SMALL_UPSAMPLER, **LEARNING, "image_size": 16, "low_size": 8, "share": 0.5}


class Config(ModelConfig):
    base: PixelPart = PixelPart(**BASE)
    upsampler: UpsamplerPart = UpsamplerPart(**UPSAMPLER)

    @classmethod
    def presets(cls):
        small = {"steps": 300, "batch_size": 8, "image_size": 16, "sample_every": 1000}
        samplers = {
            "base": {"name": "ddim", "steps": 4, "guidance": 2.0},
            "upsampler": {"name": "ddim", "steps": 2},
        }
        sampler = ("cascade", {"samplers": samplers})
        return {
            "tiny": Preset(small, data=("toydata", {}), encoder=("toytext", {}), sampler=sampler)
        }


def generator(config, text, assets=None):
    def of(name):
        return assets / name if assets and (assets / name).is_dir() else None

    return CascadeOf(
        {
            "base": PixelPartGenerator(config.base, text, of("base")),
            "upsampler": UpsamplerGenerator(config.upsampler, text, of("upsampler")),
        }
    )


def stages(config, text_encoder):
    return [
        part_stage("base", config.base, lambda n: DenoisingTrainer(config.base, n)),
        part_stage(
            "upsampler", config.upsampler, lambda n: UpsamplerTrainer(config.upsampler, n, False)
        ),
    ]


@pytest.fixture
def cascade(toy, plug, monkeypatch):
    """The model `two`, registered for the length of a test."""
    module = ModuleType("t2i_two")
    module.Config, module.generator, module.stages = Config, generator, stages
    monkeypatch.setitem(sys.modules, "t2i_two", module)

    class Plugin:
        @hookimpl
        def t2i_models(self):
            return [
                ModelSpec(
                    name="two",
                    summary="Two parts",
                    family="cascade",
                    paper="none",
                    presets=("tiny",),
                    config="t2i_two:Config",
                    generator="t2i_two:generator",
                    stages="t2i_two:stages",
                )
            ]

    plug(Plugin(), "two")


@pytest.mark.slow
def test_it_learns_and_draws_what_the_captions_say(cascade, tmp_path):
    run = train(resolve_config("two"), tmp_path / "run", reporter=Silent())
    stage_of = [json.loads(line)["stage"] for line in run.metrics_file.read_text().splitlines()]
    assert list(dict.fromkeys(stage_of)) == ["base", "upsampler"]
    model = load(run.path, "cpu")
    images = [one for batch in model.stream(["a red image", "a blue image"], n=4) for one in batch]
    assert all(one.image.shape == (16, 16, 3) for one in images)
    right = [one.image.mean((0, 1)).argmax() == 2 * one.prompt for one in images]
    assert sum(right) >= 7, right


def test_grids_show_the_cascade_up_to_the_part_that_is_trained(cascade, tmp_path, monkeypatch):
    shown = []

    def noted(blocks, layout):
        shown.append(blocks[0].images[-1].shape[1])
        return sheet(blocks, layout)

    monkeypatch.setattr(previews, "sheet", noted)
    sets = ["steps=6", "sample_every=2"]
    train(resolve_config("two", sets=sets), tmp_path / "run", reporter=Silent())
    assert (set(shown[:2]), set(shown[-1:])) == ({8}, {16}), shown

    model = build(resolve_config("two"))
    first = model.up_to("base")
    assert first.generator.image_size == 8
    assert first.generator.part("base") is model.generator.part("base")
    assert list(model.generator.parts) == ["base", "upsampler"]
    (batch,) = first.stream(["a red image"])
    assert batch[0].image.shape == (8, 8, 3)
    ((ours,),), ((theirs,),) = (
        list(one.stream(["a red image"])) for one in (model, model.up_to("upsampler"))
    )
    assert np.array_equal(ours.image, theirs.image)
    model.generator.part("base").noise_shape = (5,)  # embeddings, as of a prior
    assert model.up_to("base") is None


def test_the_images_of_a_part_are_sampled_and_sampled_again(cascade, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    build(resolve_config("two")).save(tmp_path / "two" / "model")
    command = ["sample", "--run", "two", "-p", "a red image", "--set", "base.steps=2"]
    assert main([*command, "--part", "base", "--out", "small"]) == 0
    with Image.open("small/0000-000.png") as image:
        assert image.size == (8, 8)
    assert main(["sample", "--again", "small/0000-000.png", "--out", "again"]) == 0
    assert "the same bytes" in capfd.readouterr().out
    for wrong, message in (("bass", "did you mean 'base'"), ("middle", "no part 'middle'")):
        assert main([*command, "--part", wrong]) == 2
        assert message in capfd.readouterr().err
    assert main([*command[:-1], "upsampler.sampler=dim", "--out", "no"]) == 2
    assert "did you mean 'ddim'" in capfd.readouterr().err


@pytest.mark.parametrize("step", [2, 4, 5])
def test_it_is_resumed_within_a_stage_and_between_two(cascade, tmp_path, step):
    sets = ["steps=6", "checkpoint_every=1", "keep=99", "ema_decay=0.5"]
    whole = train(resolve_config("two", sets=sets), tmp_path / "run", reporter=Silent())
    part = stopped_at(whole, step, tmp_path / "part")
    torch.manual_seed(step)
    resume(part.path, reporter=Silent())
    for name in ("modules.generator", "ema"):
        ours, theirs = (
            load_tensors(run.checkpoints / "step-6" / f"{name}.safetensors", "x")
            for run in (part, whole)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_stage_leaves_the_other_part_and_the_text_encoder_of_the_first_alone(cascade, tmp_path):
    run = train(
        resolve_config("two", sets=["steps=6", "checkpoint_every=1", "keep=99", "ema_decay=0"]),
        tmp_path / "run", reporter=Silent(),
    )  # fmt: skip

    def weights(step, name):
        return load_tensors(run.checkpoints / f"step-{step}" / f"modules.{name}.safetensors", "x")

    before, after = weights(4, "generator"), weights(6, "generator")
    moved = {key.split(".")[1] for key in after if not torch.equal(before[key], after[key])}
    assert moved == {"upsampler"}
    start = weights(0, "generator")
    moved = {key.split(".")[1] for key in start if not torch.equal(start[key], before[key])}
    assert moved == {"base"}
    encoder = weights(4, "text_encoder"), weights(6, "text_encoder")
    assert all(torch.equal(encoder[0][key], encoder[1][key]) for key in encoder[0])
