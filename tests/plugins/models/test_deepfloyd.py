"""DeepFloyd IF's folders: each stage draws what diffusers' own pipeline of it draws."""

import json
import shutil

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    IFPipeline,
    IFSuperResolutionPipeline,
    UNet2DConditionModel,
)

from t2i.core.errors import UserError
from t2i.core.families.cascade import rounded
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.models.enlarging import Upsampling
from t2i.core.models.loading import export, load
from tests.plugins.models.pipelines import (
    CAPTIONS,
    KEYS,
    changed,
    close,
    counted,
    ours,
    random,
    saved,
    t5,
)

NETWORK = {
    "sample_size": 16, "layers_per_block": 1, "block_out_channels": (32, 64),
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "in_channels": 3, "out_channels": 6, "cross_attention_dim": 32, "encoder_hid_dim": 32,
    "attention_head_dim": 8, "addition_embed_type": "text", "addition_embed_type_num_heads": 2,
    "cross_attention_norm": "group_norm", "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}  # fmt: skip
LARGER = {
    "in_channels": 6, "layers_per_block": (1, 2), "class_embed_type": "timestep",
    "mid_block_scale_factor": 1.414, "time_embedding_act_fn": "gelu", "time_embedding_dim": 32,
}  # fmt: skip
CHAIN = {"beta_schedule": "squaredcos_cap_v2"}
BOUNDED = {
    **CHAIN, "thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5,
    "variance_type": "learned_range",
}  # fmt: skip
PARTS = {
    "safety_checker": None, "feature_extractor": None, "watermarker": None,
    "requires_safety_checker": False,
}  # fmt: skip


def noise(captions=CAPTIONS):
    return PromptNoise(3, KEYS[: len(captions)])


def gentle(unet):
    """Random weights; small outputs, because variances are exponentials of them."""
    with torch.no_grad():
        random(unet).conv_out.weight.mul_(0.2)
    return unet


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A first stage of a few thousand random weights, and its folder."""
    torch.manual_seed(0)
    text, words = t5(32)
    unet = gentle(UNet2DConditionModel(**NETWORK))
    pipe = IFPipeline(words, text, unet, DDPMScheduler(**BOUNDED), **PARTS)
    return saved(pipe, tmp_path_factory.mktemp("first") / "folder")


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """A second stage of a few thousand random weights, and its folder."""
    torch.manual_seed(1)
    text, words = t5(32)
    unet = gentle(UNet2DConditionModel(**{**NETWORK, **LARGER}))
    scheduler = DDPMScheduler(**{**BOUNDED, "sample_max_value": 1.0})
    noising = DDPMScheduler(**CHAIN)
    pipe = IFSuperResolutionPipeline(words, text, unet, scheduler, noising, **PARTS)
    return saved(pipe, tmp_path_factory.mktemp("second") / "folder")


@pytest.fixture
def copied(first, tmp_path):
    """A copy of the first stage's folder, to be changed."""
    shutil.copytree(first[1], tmp_path / "copy")
    return tmp_path / "copy"


def theirs(pipe, monkeypatch, drawn, captions=CAPTIONS, **more):
    """The images of a pipeline, which asks for the tensors `drawn` before its chain begins."""
    module, queue = pipe.__module__, list(drawn)
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, **__: queue.pop(0))
    with torch.no_grad():
        images = pipe(
            prompt=list(captions), generator=noise(captions).generators("chain", 0),
            output_type="pt", clean_caption=False, **more,
        ).images  # fmt: skip
    assert not queue
    return (images / 2 + 0.5).clamp(0, 1)


def test_a_first_stage_draws_what_its_pipeline_draws(first, monkeypatch):
    pipe, folder = first
    model = load(folder, "cpu")
    chosen = model.config.sampler.config
    assert (chosen.threshold, chosen.threshold_cap, chosen.variance) == (0.95, 1.5, "learned")
    assert (chosen.steps, chosen.guidance, chosen.spacing) == (100, 7.0, "leading")
    start = noise().start("x_T", (3, 16, 16))
    for steps, guidance in ((4, 7.0), (7, 1.0)):
        wanted = theirs(
            pipe, monkeypatch, [start], num_inference_steps=steps, guidance_scale=guidance
        )
        close(ours(model, steps, guidance), wanted)
    assert torch.equal(ours(model, captions=["RED"]), ours(model, captions=["red"]))


def test_text_is_read_once_and_both_branches_in_one_batch(first):
    model = load(first[1], "cpu")
    unet = model.generator.unet
    calls = counted(unet, unet.add_embedding, model.text_encoder.t5)
    ours(model, steps=4, guidance=7.0)
    # Captions, and no caption: that is one text, however many images there are.
    assert [sum(rows) for rows in calls[1:]] == [4, 3]
    assert calls[0] == [4] * 4
    ours(model, steps=4, guidance=1.0)
    assert calls[0][4:] == [2] * 4


def test_a_second_stage_draws_what_its_pipeline_draws(second, monkeypatch):
    pipe, folder = second
    model = load(folder, "cpu")
    assert model.generator.low_size == 4
    assert model.config.sampler.config.threshold_cap == 1.0
    low = rounded(torch.rand(2, 3, 4, 4) * 2 - 1)
    start = noise().start("x_T", (3, 16, 16))
    added = noise().scope("link").normal("augmentation", 0, (3, 16, 16))
    for steps, guidance in ((4, 4.0), (3, 1.0)):
        sampler = model.sampler(None, steps=steps, guidance=guidance)
        larger = Upsampling(model, sampler).enlarge(low, CAPTIONS, noise())
        wanted = theirs(
            pipe, monkeypatch, [start, added], image=low, num_inference_steps=steps,
            guidance_scale=guidance,
        )  # fmt: skip
        close((larger / 2 + 0.5).clamp(0, 1), wanted)
    other = Upsampling(model, model.sampler(None, steps=3, guidance=1.0), level=0.6)
    told = theirs(
        pipe, monkeypatch, [start, added], image=low, num_inference_steps=3, guidance_scale=1.0,
        noise_level=600,
    )  # fmt: skip
    close((other.enlarge(low, CAPTIONS, noise()) / 2 + 0.5).clamp(0, 1), told)


def test_another_scheduler_reads_no_variance(first, copied, monkeypatch):
    pipe = first[0]
    scheduler = DPMSolverMultistepScheduler(**CHAIN, variance_type="learned_range")
    scheduler.save_pretrained(copied / "scheduler")
    changed(copied / "model_index.json", scheduler=["diffusers", "DPMSolverMultistepScheduler"])
    start, before = noise().start("x_T", (3, 16, 16)), pipe.scheduler
    pipe.scheduler = scheduler
    wanted = theirs(pipe, monkeypatch, [start], num_inference_steps=4, guidance_scale=3.0)
    pipe.scheduler = before
    close(ours(load(copied, "cpu"), 4, 3.0), wanted)


@pytest.mark.parametrize("stage", ["first", "second"])
def test_an_export_is_the_same_pipeline(stage, request, tmp_path):
    _, folder = request.getfixturevalue(stage)
    model = load(folder, "cpu")
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", "cpu")
    close(ours(loaded), ours(model))
    export(loaded, tmp_path / "again")
    kind = IFPipeline if stage == "first" else IFSuperResolutionPipeline
    kind.from_pretrained(tmp_path / "again")
    close(ours(load(tmp_path / "again", "cpu")), ours(model))


FOREIGN = {
    "text": ({"text_encoder": ["transformers", "UMT5EncoderModel"]}, "only T5"),
    "part": ({"vae": ["diffusers", "AutoencoderKL"]}, "vae"),
    "code": ({"unet": ["evil", "UNet"]}, "evil"),
    "lacking": ({"scheduler": "REMOVED"}, "names no scheduler"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_would_be_ignored_is_refused_by_name(name, copied):
    change, message = FOREIGN[name]
    changed(copied / "model_index.json", **change)
    with pytest.raises(UserError, match=message):
        load(copied, "cpu")


def test_the_checker_of_a_true_folder_is_not_read(copied):
    index = json.loads((copied / "model_index.json").read_text())
    index |= {"safety_checker": ["deepfloyd_if", "IFSafetyChecker"],
              "watermarker": ["deepfloyd_if", "IFWatermarker"]}  # fmt: skip
    (copied / "model_index.json").write_text(json.dumps(index))
    assert load(copied, "cpu").generator.image_size == 16
