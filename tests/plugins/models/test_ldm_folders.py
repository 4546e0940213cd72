"""Stable Diffusion's folders and files, and ours in their layout: the images are those of
diffusers' own pipeline."""

import json
import re
import shutil

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from t2i.cli.main import main
from t2i.core.engine import train
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.models.loading import export, load
from t2i.core.models.model import Model
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.ldm.networks import LDMGenerator

CAPTIONS = ["a red bird", "blue"]
KEYS = ((0, 0), (1, 0))
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
SD = {**SCHEDULE, "clip_sample": False, "set_alpha_to_one": False}
LEVELS = {
    "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
VAE = {
    "block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip


def tokenizer(folder):
    """CLIP's, over ASCII, without merges."""
    characters = [chr(code) for code in range(33, 127)]
    words = [
        *characters,
        *(f"{character}</w>" for character in characters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )


def text_encoder(tokens, **settings):
    return CLIPTextModel(
        CLIPTextConfig(**{
            "vocab_size": tokens, "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2, "bos_token_id": tokens - 2, "eos_token_id": tokens - 1,
            **settings,
        })
    )  # fmt: skip


def pipeline(place, scheduler, unet=None, text=None):
    """A Stable Diffusion of a few thousand random weights."""
    torch.manual_seed(0)
    words = tokenizer(place / "words")
    made = StableDiffusionPipeline(
        vae=AutoencoderKL(**VAE), text_encoder=text_encoder(len(words), **(text or {})),
        tokenizer=words,
        unet=UNet2DConditionModel(
            **{**LEVELS, "sample_size": 8, "cross_attention_dim": 16, "attention_head_dim": 2, **(unet or {})}  # noqa: E501
        ),
        scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    """A pipeline, and the folder that it was saved in."""
    place = tmp_path_factory.mktemp("sd")
    made = pipeline(place, DDIMScheduler(**SD))
    made.save_pretrained(place / "folder")
    return made, place / "folder"


def ours(model, steps=10, guidance=7.5, sampler=None):
    """(B, 3, H, W) in [0, 1], as pipelines give it."""
    choice = model.sampler(sampler, steps=steps, guidance=guidance)
    made = registry().samplers.build(choice)
    model.generator.eval()
    with torch.no_grad():
        request = model.request(CAPTIONS, PromptNoise(3, KEYS), null=made.needs_null)
        return (made.sample(model.generator, request) / 2 + 0.5).clamp(0, 1)


def theirs(pipe, steps=10, guidance=7.5):
    noise = PromptNoise(3, KEYS)
    shape = (pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
    with torch.no_grad():
        return pipe(
            CAPTIONS, latents=noise.start("x_T", shape), generator=noise.generators("chain", 0),
            num_inference_steps=steps, guidance_scale=guidance, output_type="pt",
        ).images  # fmt: skip


def close(a, b):
    assert a.shape == b.shape
    assert float(a.std()) > 0.01  # an image, not a plain colour
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_a_folder_draws_what_its_pipeline_draws(sd):
    pipe, folder = sd
    model = load(folder, "cpu")
    assert (model.config.model, model.config.sampler.name) == ("ldm", "ddim")
    assert model.config.sampler.config.guidance == 7.5
    assert model.generator.image_size == 16
    for steps, guidance in [(10, 7.5), (30, 1.0)]:
        close(ours(model, steps, guidance), theirs(pipe, steps, guidance))
    assert (
        model.sampler("unipc", steps=5).config.guidance == 7.5
    )  # any other sampler of diffusion models draws too
    assert ours(model, 5, sampler="unipc").isfinite().all()


V2 = {"attention_head_dim": (2, 4), "use_linear_projection": True}
OLD = {
    "beta_start": 0.001,
    "beta_end": 0.01,
    "num_train_timesteps": 100,
    "clip_sample": True,
    "steps_offset": 0,
}
FOLDERS = {
    "pndm": (
        PNDMScheduler,
        {**SCHEDULE, "skip_prk_steps": True, "set_alpha_to_one": False},
        {},
        {},
    ),
    "ddpm": (DDPMScheduler, {**SCHEDULE, "clip_sample": False}, {}, {}),
    "v": (
        DDIMScheduler,
        {**SD, "prediction_type": "v_prediction"},
        V2,
        {"hidden_act": "gelu", "num_hidden_layers": 3},
    ),
    "zero": (
        DDIMScheduler,
        {
            **SD,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        },
        {},
        {},
    ),
    "old": (
        DDIMScheduler,
        OLD,
        {},
        {},
    ),  # the pipeline does not believe that it clips, nor its offset
}


@pytest.mark.parametrize("name", FOLDERS)
def test_schedulers_and_networks_of_other_folders(name, tmp_path):
    kind, settings, unet, text = FOLDERS[name]
    pipe = pipeline(tmp_path, kind(**settings), unet, text)
    pipe.save_pretrained(tmp_path / "folder")
    kind(**settings).save_pretrained(tmp_path / "folder" / "scheduler")
    model = load(tmp_path / "folder", "cpu")
    assert model.config.sampler.name == name if name in ("pndm", "ddpm") else "ddim"
    close(ours(model), theirs(pipe))


def test_half_precision_is_read_where_nothing_else_is_there_and_the_safety_checker_never(
    sd, tmp_path
):
    folder = sd[1]
    half = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).to(torch.float16)
    half.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists()
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["safety_checker"] = [
        "stable_diffusion",
        "StableDiffusionSafetyChecker",
    ]  # and no such folder
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    model = load(tmp_path, "cpu")
    assert {p.dtype for m in (model.generator, model.text_encoder) for p in m.parameters()} == {
        torch.float32
    }
    close(ours(model), theirs(half.to(torch.float32)))


def test_pickles_are_refused_with_the_remedy(sd, tmp_path):
    for part, name in [
        ("unet", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("vae", "diffusion_pytorch_model"),
    ]:
        folder = tmp_path / part
        shutil.copytree(sd[1], folder)
        (folder / part / f"{name}.safetensors").rename(folder / part / "pytorch_model.bin")
        with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle.*save_pretrained"):
            load(folder)
    (tmp_path / "v1.ckpt").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match="is a pickle"):
        load(tmp_path / "v1.ckpt")


def test_what_is_damaged_or_of_another_kind_is_refused(sd, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(sd[1], folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"unet/\S+ is no sound safetensors.*cut at 1000 bytes"):
        load(folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("CLIPTextModel", "T5EncoderModel"))
    with pytest.raises(UserError, match="its text_encoder is T5EncoderModel; only CLIP"):
        load(folder)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="tensors that no known model has, such as 'x'; t2i"):
        load(tmp_path / "x.safetensors")


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_from_the_command_line(sd, tmp_path, monkeypatch, capfd):
    """A folder is drawn from; imported, it is a run like any other, which needs the folder no
    longer."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sd[1], tmp_path / "sd")
    drawing = ["-p", "a red bird", "--sampling-steps", "4", "--sampler", "ddim", "--guidance", "3"]
    assert run("sample", "--run", "sd", *drawing, "--out", "a") == 0
    assert Image.open("a/0000-000.png").size == (16, 16)
    assert run("import", "--model", "ldm", "sd", "--out", "imported") == 0
    shutil.rmtree("sd")
    assert run("sample", "--run", "imported", *drawing, "--set", "end=first", "--out", "b") == 0
    assert run("sample", "--run", "imported", *drawing, "--set", "config=sd", "--out", "c") == 2
    assert "--set config=...: it is for other projects' files" in capfd.readouterr().err
    assert Image.open("a/0000-000.png").tobytes() == Image.open("b/0000-000.png").tobytes()
    hashes = {
        json.loads(Image.open(f"{n}/0000-000.png").text["t2i"])["settings"]["hash"] for n in "ab"
    }
    assert len(hashes) == 1  # of the weights, wherever they lie
    assert run("export", "--run", "imported", "--out", "again") == 0
    close(theirs(StableDiffusionPipeline.from_pretrained("again")), theirs(sd[0]))
    assert run("export", "--run", "imported", "--out", "again") == 2
    assert "not empty" in capfd.readouterr().err


def test_our_own_runs_are_told_without_asking_any_plugin(sd, tmp_path, monkeypatch):
    load(sd[1], "cpu").save(tmp_path / "run" / "model")
    monkeypatch.setattr("t2i.core.models.loading.opened", None)
    load(tmp_path / "run", "cpu")
    load(tmp_path / "run" / "model", "cpu")


# The names of diffusers' tensors -> those of the authors' single files, for two levels of one
# layer.
RESNET = [("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1")]
RESNET += [
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
]
UNET_NAMES = [
    ("conv_in", "input_blocks.0.0"), ("time_embedding.linear_1", "time_embed.0"),
    ("conv_norm_out", "out.0"),
    ("time_embedding.linear_2", "time_embed.2"), ("conv_out", "out.2"),
    ("down_blocks.0.resnets.0", "input_blocks.1.0"),
    ("down_blocks.0.attentions.0", "input_blocks.1.1"),
    ("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op"),
    ("down_blocks.1.resnets.0", "input_blocks.3.0"),
    ("mid_block.resnets.0", "middle_block.0"), ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
    ("up_blocks.0.upsamplers.0.conv", "output_blocks.1.1.conv"),
    *((f"up_blocks.{i // 2}.resnets.{i % 2}", f"output_blocks.{i}.0") for i in range(4)),
    *((f"up_blocks.1.attentions.{i}", f"output_blocks.{2 + i}.1") for i in range(2)),
]  # fmt: skip
VAE_NAMES = [
    ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"),
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"), ("mid_block.attentions.0", "mid.attn_1"),
    ("group_norm", "norm"),
    ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"),
    ("downsamplers.0.conv", "downsample.conv"),
    ("upsamplers.0.conv", "upsample.conv"),
    *((f"down_blocks.{i}.resnets", f"down.{i}.block") for i in range(2)),
    *((f"up_blocks.{i}.resnets", f"up.{1 - i}.block") for i in range(2)), ("down_blocks", "down"),
    ("up_blocks.0", "up.1"), ("up_blocks.1", "up.0"),
]  # fmt: skip


def renamed(name, rules):
    for old, new in rules:
        name = re.sub(rf"(^|(?<=\.)){re.escape(old)}(?=\.)", new, name)
    return name


def single_file(pipe, path):
    state = {}
    for name, tensor in pipe.unet.state_dict().items():
        rules = UNET_NAMES + (RESNET if ".resnets." in name else [])
        state[f"model.diffusion_model.{renamed(name, rules)}"] = tensor
    for name, tensor in pipe.vae.state_dict().items():
        linear = "attentions" in name and tensor.dim() == 2
        state[f"first_stage_model.{renamed(name, VAE_NAMES)}"] = (
            tensor[..., None, None] if linear else tensor
        )
    for name, tensor in pipe.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = (
            tensor
        )
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def test_a_single_file_draws_the_same(sd, tmp_path, monkeypatch):
    pipe, folder = sd
    single_file(pipe, tmp_path / "v1.safetensors")
    shutil.copytree(folder, tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors"))
    model = load(tmp_path / "v1.safetensors", "cpu", {"config": str(tmp_path / "config")})
    close(ours(model), theirs(pipe))
    assert model.config.encoder.config.weights.endswith("v1.safetensors")
    model.save(tmp_path / "model")
    close(ours(load(tmp_path / "model", "cpu")), theirs(pipe))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="--set config=FOLDER"):
        load(tmp_path / "v1.safetensors")
    with pytest.raises(UserError, match=r"no folder with the model_index\.json"):
        load(tmp_path / "v1.safetensors", settings={"config": str(tmp_path)})
    with pytest.raises(UserError, match="a configuration and an autoencoder of its own"):
        load(folder, settings={"config": str(folder)})


OWN = [
    "image_size=16", "data.image_size=24", "schedule=cosine", "prediction=v", "timesteps=20",
    "encoder.name=clip",
    "encoder.sentence=pooled", "encoder.attend_padding=true", "sampler.steps=20",
    "sampler.guidance=3",
    "autoencoder.patch=1", "autoencoder.channels=[8, 16]", "autoencoder.groups=4",
    "autoencoder.latent_channels=4",
    "unet.channels=[8, 16]", "unet.groups=4", "unet.attention=[cross, none]", "unet.text_map=0",
    "unet.sentence=false", "unet.head_width=8",
]  # fmt: skip


def own(folder, *sets, build=True):
    names = [f"encoder.weights={folder}/text_encoder", f"encoder.tokenizer={folder}/tokenizer"]
    config = resolve_config("ldm", sets=[*OWN, *names, *sets])
    if not build:
        return config
    torch.manual_seed(1)
    encoder = import_object(registry().encoders[config.encoder.name].build)(
        config.encoder.config, None
    )
    return Model(config, LDMGenerator(config.settings, encoder.shape), encoder)


def test_our_runs_draw_the_same_in_diffusers(sd, tmp_path):
    """Whitened latents, v-prediction, the cosine schedule: exported, opened by diffusers and by us
    again."""
    model = own(sd[1])
    turn = torch.randn(4, 4) + 2 * torch.eye(4)
    model.generator.autoencoder.measure(
        torch.einsum("ij,njhw->nihw", turn, torch.randn(9, 4, 8, 8)) + 1
    )
    assert not torch.allclose(
        model.generator.autoencoder.whitening.flatten(1), torch.eye(4), atol=0.1
    )
    export(model, tmp_path / "folder")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    close(ours(model, 20, 3.0), theirs(pipe, 20, 3.0))
    again = load(tmp_path / "folder", "cpu")
    assert (again.config.settings.schedule, again.config.sampler.config.guidance) == ("cosine", 3.0)
    close(ours(again, 20, 3.0), ours(model, 20, 3.0))
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = pipe.vae.encode(images).latent_dist.mode() * pipe.vae.config.scaling_factor
        torch.testing.assert_close(latents, model.generator.encode(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        (["autoencoder.patch=2", "image_size=32"], "autoencoder.patch=2"),
        (["unet.text_map=4", "unet.sentence=true"], "unet.text_map=4, unet.sentence=true"),
        (["schedule=mixing", "prediction=sample"], "schedule=mixing"),
        (["schedule=sub-vp"], "schedule=sub-vp"),
        (["unet.context=sentence"], "unet.context=sentence"),
        (["unet.middle=self", "unet.attention=[none, self]"], "unet.middle=self"),
        (["sampler.spacing=leading"], "sampler.spacing=leading but with sampler.steps_offset=1"),
        (["encoder.attend_padding=false"], "encoder.attend_padding=false"),
    ],
)
def test_what_diffusers_cannot_express_is_refused_by_name(sd, tmp_path, sets, named):
    with pytest.raises(UserError, match=re.escape(f"cannot express {named}")):
        export(own(sd[1], *sets), tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_trained_encoder_and_a_model_without_a_layout_are_refused(toy, tmp_path):
    model = Model(resolve_config("ldm"), LDMGenerator.__new__(LDMGenerator), None)
    model.generator.config = model.config.settings
    with pytest.raises(UserError, match=r"encoder\.name=words"):
        export(model, tmp_path / "folder")
    with pytest.raises(UserError, match=r"model 'toy' has no other project's layout.*ldm"):
        export(Model(resolve_config("toy"), None, None), tmp_path / "folder")


def test_a_pretrained_autoencoder_is_frozen_scaled_and_kept(sd, tmp_path):
    pipe, folder = sd
    source = tmp_path / "vae"
    shutil.copytree(folder / "vae", source)
    model = own(folder, f"autoencoder.weights={source}")
    (stage,) = import_object(registry().models["ldm"].stages)(
        model.config.settings, model.text_encoder
    )
    assert stage.name == "diffusion"
    assert not any(p.requires_grad for p in model.generator.autoencoder.parameters())
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = pipe.vae.encode(images).latent_dist.mode() * 0.18215
        torch.testing.assert_close(model.generator.encode(images), latents, rtol=1e-5, atol=1e-6)
        back = pipe.vae.decode(latents / 0.18215).sample
        torch.testing.assert_close(model.generator.decode(latents), back, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model")
    shutil.rmtree(source)  # the run holds what it needs
    close(ours(load(tmp_path / "model", "cpu")), ours(model))
    export(model, tmp_path / "folder")
    close(
        theirs(StableDiffusionPipeline.from_pretrained(tmp_path / "folder"), 20, 3.0),
        ours(model, 20, 3.0),
    )


def test_training_on_a_pretrained_autoencoder_trains_the_unet_alone(sd, tmp_path):
    source = tmp_path / "vae"
    shutil.copytree(sd[1] / "vae", source)
    small = [
        "image_size=32",
        "data.image_size=32",
        "steps=2",
        "batch_size=2",
        "sample_every=9",
        "sampler.steps=2",
    ]
    config = own(sd[1], f"autoencoder.weights={source}", *small, build=False)
    trained = train(config, tmp_path / "run")
    shutil.rmtree(source)
    model, fresh = (
        load(trained.path, "cpu"),
        AutoencoderKL.from_pretrained(sd[1] / "vae").state_dict(),
    )
    assert all(
        torch.equal(p, fresh[name])
        for name, p in model.generator.autoencoder.vae.state_dict().items()
    )
    unet = sum(p.numel() for p in model.generator.unet.parameters())
    assert trained.summary()["parameters"]["trained"] == unet


def test_a_pretrained_autoencoder_that_does_not_fit_or_is_not_there_is_refused(sd, tmp_path):
    with pytest.raises(UserError, match=r"2 times smaller .* of 4 channels; describe it with"):
        own(sd[1], f"autoencoder.weights={sd[1]}", "autoencoder.latent_channels=8")
    with pytest.raises(
        UserError,
        match=r"autoencoder.weights = \S+: no such folder; give a hub name or a folder with",
    ):
        own(sd[1], f"autoencoder.weights={tmp_path}/none")
    with pytest.raises(UserError, match=r"have 3 channels, patches of autoencoder.patch = 2 have"):
        own(sd[1], f"autoencoder.weights={sd[1]}", "autoencoder.patch=2")
    with pytest.raises(UserError, match="it attends to vectors of 16"):
        own(sd[1], f"unet.weights={sd[1]}", "unet.context=sentence", "encoder.name=words")


# --- schedulers as they are ---

TRAILING = {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}
NATIVE = {
    "EulerDiscreteScheduler": {"use_karras_sigmas": True},
    "EulerAncestralDiscreteScheduler": {**TRAILING, "rescale_betas_zero_snr": True},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++", "thresholding": True},
    "DPMSolverSinglestepScheduler": {},
    "KDPM2AncestralDiscreteScheduler": {},
    "DEISMultistepScheduler": {"skip_prk_steps": True},  # another scheduler's setting is ignored
    "HeunDiscreteScheduler": {"use_karras_sigmas": True},
    "UniPCMultistepScheduler": {"solver_order": 3, "beta_schedule": "squaredcos_cap_v2"},
    "LMSDiscreteScheduler": {},
    "TCDScheduler": {},
    "DDIMScheduler": TRAILING,
}


def changed(path, **settings):
    document = json.loads(path.read_text())
    document |= settings
    path.write_text(json.dumps({key: v for key, v in document.items() if v != "REMOVED"}))


@pytest.fixture
def copied(sd, tmp_path):
    """A copy of the folder, to be changed."""
    shutil.copytree(sd[1], tmp_path / "copy")
    return tmp_path / "copy"


def with_scheduler(folder, kind, settings):
    place = folder / "scheduler" / "scheduler_config.json"
    place.write_text(json.dumps({"_class_name": "PNDMScheduler", **SCHEDULE, **settings}))
    changed(folder / "model_index.json", scheduler=["diffusers", kind])  # this class counts


@pytest.mark.parametrize("kind", NATIVE)
def test_any_scheduler_draws_what_its_pipeline_draws(kind, copied):
    with_scheduler(copied, kind, NATIVE[kind])
    model = load(copied, "cpu")
    choice = model.config.sampler
    assert (choice.name, choice.config.scheduler) == ("scheduler", kind)
    pipe = StableDiffusionPipeline.from_pretrained(copied)
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.scheduler).__name__ == kind
    close(ours(model, 7), theirs(pipe, 7))  # 7 does not divide the 1000 steps


def test_a_scheduler_is_kept_in_runs_and_exports(copied, tmp_path):
    with_scheduler(copied, "EulerDiscreteScheduler", {"use_karras_sigmas": True})
    model = load(copied, "cpu")
    model.save(tmp_path / "model")
    close(ours(load(tmp_path / "model", "cpu"), 7), ours(model, 7))
    export(model, tmp_path / "again")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "again")
    assert pipe.scheduler.config.use_karras_sigmas
    close(theirs(pipe, 7), ours(model, 7))


SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"
FOREIGN = {
    "guidance": ("unet/config.json", {"time_cond_proj_dim": 8}, "reads the scale of guidance"),
    "classes": ("unet/config.json", {"class_embed_type": "projection"}, "class_embed_type = proj"),
    "newer": ("unet/config.json", {"brightness": 2}, "brightness = 2.* does not know"),
    "nothing newer": ("unet/config.json", {"brightness": None}, None),
    "channels": ("unet/config.json", {"in_channels": 9}, "9 input channels and its autoencoder 4"),
    "shift": ("vae/config.json", {"shift_factor": 0.1}, "shifts its latents"),
    "flow": (SCHEDULER, {"prediction_type": "flow_prediction"}, "prediction_type = flow_pre"),
    "betas": (SCHEDULER, {"trained_betas": [0.0] * 1000}, "its betas are not all above 0"),
    "no schedule": (SCHEDULER, {"beta_schedule": "wavy"}, "wavy is not implemented"),
    "setting": (SCHEDULER, {"align_your_steps": True}, "align_your_steps = True: no scheduler"),
    "inverse": (INDEX, {"scheduler": ["diffusers", "DDIMInverseScheduler"]}, "DDIMInverse.*whose"),
    "sde": (INDEX, {"scheduler": ["diffusers", "DPMSolverSDEScheduler"]}, "DPMSolverSDE.*whose"),
    "tiny": (INDEX, {"vae": ["diffusers", "AutoencoderTiny"]}, "its vae is AutoencoderTiny"),
    "controlnet": (INDEX, {"controlnet": ["diffusers", "ControlNetModel"]}, "part controlnet"),
    "foreign": (INDEX, {"unet": ["my_unet", "UNet2DConditionModel"]}, "code from 'my_unet'"),
    "no part": (INDEX, {"vae": [None, None]}, "it names no vae"),
    "skip": (INDEX, {"clip_skip": 2}, "clip_skip = 2 would be ignored"),
    "inpaint": (
        INDEX,
        {"_class_name": "StableDiffusionInpaintPipeline"},
        "a StableDiffusionInp",
    ),
    "code": (INDEX, {"_class_name": ["pipeline", "Mine"]}, "code of its own .Mine."),
    "no class": (INDEX, {"_class_name": "REMOVED"}, "names no pipeline"),
    "mask": ("text_encoder/config.json", {"use_attention_mask": True}, "use_attention_mask"),
    "short": ("tokenizer/tokenizer_config.json", {"model_max_length": 32}, "model_max_length = 32"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_would_be_ignored_is_refused_by_name(name, copied):
    file, settings, named = FOREIGN[name]
    changed(copied / file, **settings)
    if named is None:
        load(copied, "cpu")
        return
    with pytest.raises(UserError, match=named) as caught:
        load(copied, "cpu")
    assert "\n" not in str(caught.value)
    assert str(copied) in str(caught.value)


@pytest.mark.parametrize(
    "lost", ["unet/config.json", SCHEDULER, "tokenizer/tokenizer.json", "text_encoder/config.json",
             "vae/diffusion_pytorch_model.safetensors"],
)  # fmt: skip
def test_missing_files_are_named(lost, copied):
    (copied / lost).unlink()
    part, file = lost.split("/")
    with pytest.raises(UserError, match=rf"{part}.*{re.escape(file)}.*get (it|that file) from"):
        load(copied)


def test_variants_are_told_and_two_are_refused(sd, copied, capsys):
    plain = copied / "unet" / "diffusion_pytorch_model.safetensors"
    plain = plain.rename(plain.with_suffix(".non_ema.safetensors"))
    close(ours(load(copied, "cpu"), 3), theirs(sd[0], 3))
    assert "the variant non_ema, which is used" in capsys.readouterr().err
    shutil.copy(plain, plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(UserError, match=r"variants fp16 and non_ema .* move all but one"):
        load(copied)


def test_added_words_are_read_unless_they_have_several_vectors(sd, copied):
    words = CLIPTokenizer.from_pretrained(copied / "tokenizer")
    text = CLIPTextModel.from_pretrained(copied / "text_encoder")
    for word, named in (("<my-bird>", None), ("<my-bird>_1", "<my-bird> of several vectors")):
        words.add_tokens([word])
        words.save_pretrained(copied / "tokenizer")
        text.resize_token_embeddings(len(words))
        text.save_pretrained(copied / "text_encoder")
        if named:
            with pytest.raises(UserError, match=named):
                load(copied)
        else:
            tokens = load(copied, "cpu").text_encoder.tokens(["a <my-bird> b"])[0]
            assert words.convert_tokens_to_ids("<my-bird>") in tokens[0].tolist()


# --- single files ---


@pytest.fixture(scope="module")
def single(sd, tmp_path_factory):
    """A single file, and the settings that name its configuration."""
    path = tmp_path_factory.mktemp("single") / "v1.safetensors"
    single_file(sd[0], path)
    return path, {"config": str(sd[1])}


LOST = [
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.output_blocks.1.1.conv.weight",
    "model.diffusion_model.output_blocks.1.1.conv.bias",
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    "first_stage_model.decoder.mid.attn_1.q.weight",
    "first_stage_model.encoder.down.1.block.0.norm2.bias",
    "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
]


@pytest.mark.parametrize("lost", LOST)
def test_a_lost_tensor_is_named_as_in_the_file(lost, single, tmp_path):
    state = load_file(single[0])
    del state[lost]
    save_file(state, tmp_path / "lost.safetensors")
    with pytest.raises(UserError, match=rf"is not whole: its .* has no tensor {re.escape(lost)};"):
        load(tmp_path / "lost.safetensors", "cpu", single[1])


def without(path, prefix, place):
    kept = {name: t for name, t in load_file(path).items() if not name.startswith(prefix)}
    save_file(kept, place)
    return place


def test_an_autoencoder_is_given_to_a_file_without_one(sd, single, tmp_path):
    pipe, folder = sd
    path = without(single[0], "first_stage_model.", tmp_path / "no_vae.safetensors")
    with pytest.raises(UserError, match=r"no autoencoder .* --set vae=FILE_OR_FOLDER"):
        load(path, "cpu", single[1])
    save_file(pipe.vae.state_dict(), tmp_path / "vae.safetensors")
    for vae in (folder, folder / "vae", tmp_path / "vae.safetensors", single[0]):
        close(ours(load(path, "cpu", {**single[1], "vae": str(vae)}), 5), theirs(pipe, 5))
    for vae, named in ((tmp_path / "none", "no such file"), (path, "give an autoencoder")):
        with pytest.raises(UserError, match=f"vae = .*{named}"):
            load(path, "cpu", {**single[1], "vae": str(vae)})
    bare = without(path, "cond_stage_model.", tmp_path / "unet.safetensors")
    with pytest.raises(UserError, match=r"no text encoder .* and no autoencoder"):
        load(bare, "cpu", single[1])


def test_marks_and_averages_of_a_file_are_told(sd, single, tmp_path, capsys):
    state = load_file(single[0])
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file({**state, **marks}, tmp_path / "v.safetensors")
    model = load(tmp_path / "v.safetensors", "cpu", single[1])
    assert "marked v_pred, ztsnr" in capsys.readouterr().err
    pipe = StableDiffusionPipeline.from_pretrained(sd[1])
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler(**SD, **TRAILING, rescale_betas_zero_snr=True)
    close(ours(model, 7), theirs(pipe, 7))
    averages = {f"model_ema.{i}": torch.zeros(1) for i in range(101)}
    save_file({**state, **averages}, tmp_path / "ema.safetensors")
    close(ours(load(tmp_path / "ema.safetensors", "cpu", single[1]), 5), theirs(sd[0], 5))
    assert "as in diffusers, the others are used" in capsys.readouterr().err


def test_files_of_other_models_are_named(single, tmp_path):
    path = without(single[0], "nothing", tmp_path / "x.safetensors")
    first = "model.diffusion_model.input_blocks.0.0.weight"
    for change, named in (
        ({first: torch.zeros(8, 9, 3, 3)}, "for inpainting: its U-Net has 9 input channels"),
        ({"conditioner.embedders.1.model.logit": torch.zeros(1)}, "is Stable Diffusion XL; t2i"),
        ({"control_model.time_embed.0.weight": torch.zeros(1)}, "is a ControlNet"),
    ):
        save_file({**load_file(single[0]), **change}, path)
        with pytest.raises(UserError, match=named):
            load(path, "cpu", single[1])
