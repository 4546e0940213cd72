"""Read DeepFloyd IF's folders in diffusers' layout, stage by stage, and write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler, UNet2DConditionModel

from t2i.core.errors import UserError
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.scheduler_files import (
    GUIDANCE,
    noise_settings,
    read_scheduler,
    sampler_section,
    scheduler_of,
)
from t2i.plugins.common.weights.diffusers_folders import (
    classes,
    network_config,
    pipeline_index,
    refuse_foreign_classes,
    refuse_settings,
    save_network,
    square_size,
    write_index,
    write_scheduler,
)
from t2i.plugins.common.weights.trusted_files import check_pipeline
from t2i.plugins.models.imagen.config import IF_TEXT
from t2i.plugins.models.imagen.deepfloyd import DeepFloydConfig
from t2i.plugins.models.imagen.stages import FirstStage, SecondStage

FIRST, SECOND = "IFPipeline", "IFSuperResolutionPipeline"
NOISING = "image_noising_scheduler"
UNET = "UNet2DConditionModel"
PARTS = ("unet", "scheduler", "text_encoder", "tokenizer")
LEFT_OUT = ("safety_checker", "feature_extractor", "watermarker")
"""Parts that are not read: they filter and mark the images of the pipeline."""

DEFAULTS = {FIRST: (100, 7.0), SECOND: (50, 4.0)}
"""The pipelines' defaults: steps and guidance."""

LEVEL = 0.25
"""The pipeline's noise_level, 250 of 1000."""

TEXT = {key: value for key, value in IF_TEXT.items() if key != "weights"}
TYPES = {
    "text_encoder": ("T5EncoderModel",),
    "tokenizer": ("T5Tokenizer", "T5TokenizerFast"),
    "unet": (UNET,),
}
READ = {
    "addition_embed_type": ("text",),
    "encoder_hid_dim_type": (None, "text_proj"),
    "class_embed_type": (None, "timestep"),
}
"""Settings of the network -> the values that are read here."""

UNREAD = {
    "num_class_embeds": "reads class numbers",
    "time_cond_proj_dim": "reads the scale of guidance",
}


def open_pretrained(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """Open a stage of DeepFloyd IF: a folder of diffusers' IFPipeline or IFSuperResolutionPipeline.

    Args:
        path: The folder.
        settings: `low_size`: height and width of the images that a second stage enlarges. Without
            it they are a quarter of the stage's own, as IF's are.

    Returns:
        The model; None if `path` is no such folder.

    Raises:
        UserError: A part is missing or damaged, or the pipeline would make other images.
    """
    index = pipeline_index(path) if path.is_dir() else None
    pipeline = None if index is None else index.get("_class_name")
    if index is None or not isinstance(pipeline, str) or pipeline not in DEFAULTS:
        return None
    path = path.resolve()
    _check(index, path)
    network = network_config(path / "unet", UNet2DConditionModel)
    refuse_settings(network, UNet2DConditionModel, f"{path}: its U-Net", UNREAD)
    for key, wanted in READ.items():
        if network[key] not in wanted:
            raise UserError(
                f"{path}: its U-Net has {key} = {network[key]}, which no stage of IF has"
            )
    learned = network["out_channels"] == 6
    scheduler, guidance = read_scheduler(
        path / "scheduler", classes(index)["scheduler"], learned=learned
    )
    steps, scale = DEFAULTS[str(pipeline)]
    size = square_size(network, path)
    document = {
        "model": "deepfloyd",
        "preset": "diffusers",
        "image_size": size,
        **noise_settings(scheduler),
        **_described(network),
        **(_second(path, index, size, settings) if pipeline == SECOND else {}),
        "weights": str(path / "unet"),
        "learned_range": learned,
        "masked": False,
        "data": {"name": "none"},
        "encoder": {
            "name": "t5", "weights": str(path / "text_encoder"),
            "tokenizer": str(path / "tokenizer"), **TEXT,
        },
        "sampler": sampler_section(scheduler, steps, guidance or scale),
    }  # fmt: skip
    return build(RunConfig.parse(document, str(path)))


def weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """Open what `open_pretrained` opens (`t2i import`).

    Args:
        config: Only `low_size` is used: a folder has its own configuration.
        files: The folder.

    Returns:
        The model.

    Raises:
        UserError: It is no such folder, or cannot be opened.
    """
    assert isinstance(config.settings, DeepFloydConfig)
    low = config.settings.low_size
    model = open_pretrained(files[0], {"low_size": low} if low else {}) if len(files) == 1 else None
    if model is None:
        raise UserError(f"{files[0]}: no folder of diffusers' {FIRST} or {SECOND}")
    return model


def export(model: Model, folder: Path) -> None:
    """Write a stage as a folder that diffusers' pipeline opens.

    Args:
        model: The model.
        folder: The folder to write to.

    Raises:
        UserError: The model has settings that the pipeline cannot express. The error names them.
    """
    generator, run = model.generator, model.config
    assert isinstance(generator, FirstStage)
    pipeline = SECOND if isinstance(generator, SecondStage) else FIRST
    encoder, chosen = registry().encoders[run.encoder.name], run.encoder.config.model_dump()
    unlike = [key for key, value in TEXT.items() if chosen.get(key) != value]
    if run.encoder.name != "t5" or unlike or not generator.learned_range:
        raise UserError(
            f"diffusers' {pipeline} reads captions by t5 with {TEXT}, and a learned variance: this "
            "run cannot be exported"
        )
    scheduler = scheduler_of(run)
    parts = import_object(str(encoder.export))(model.text_encoder, folder, False)
    save_network(generator.unet, folder / "unet")
    write_scheduler(folder / "scheduler", scheduler, **{GUIDANCE: run.sampler.config.guidance})
    ours: dict[str, tuple[str | None, str | None]] = {
        **dict.fromkeys(LEFT_OUT, (None, None)),
        **parts,
        "unet": ("diffusers", UNET),
        "scheduler": ("diffusers", type(scheduler).__name__),
    }
    if isinstance(generator, SecondStage):
        assert isinstance(generator.levels, DiscreteSchedule)
        betas = generator.levels.betas.tolist()
        noising: Any = DDPMScheduler(num_train_timesteps=len(betas), trained_betas=betas)
        write_scheduler(folder / NOISING, noising)
        ours[NOISING] = ("diffusers", "DDPMScheduler")
    write_index(folder, pipeline, ours, requires_safety_checker=False)


def _check(index: Mapping[str, Any], path: Path) -> None:
    """Raise UserError if a folder does not hold the parts that are read, and no others."""
    refuse_foreign_classes(
        {
            name: value
            for name, value in index.items()
            if name not in LEFT_OUT  # their code, deepfloyd_if's, is not imported
        },
        path,
    )
    found = classes(index)
    wanted = (*PARTS, *((NOISING,) if index["_class_name"] == SECOND else ()))
    for name in wanted:
        if name not in found:
            raise UserError(f"{path}: model_index.json names no {name}, which a stage of IF has")
        if name in TYPES and found[name] not in TYPES[name]:
            raise UserError(f"{path}: its {name} is {found[name]}; only {TYPES[name][0]} is read")
    for name in sorted(set(found) - {*wanted, *LEFT_OUT}):
        raise UserError(f"{path}: it has the part {name} ({found[name]}), which would be ignored")
    check_pipeline(path, wanted)


def _second(
    path: Path, index: Mapping[str, Any], size: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings that a second stage has besides those of the first."""
    scheduler, _ = read_scheduler(path / NOISING, classes(index)[NOISING])
    noise = noise_settings(scheduler)
    if "schedule" not in noise:
        raise UserError(
            f"{path / NOISING}: its betas are none of the schedules linear, scaled_linear, cosine"
        )
    return {
        "low_size": settings.get("low_size", max(size // 4, 4)),
        "augmentation_sampling": LEVEL,
        "augmentation_schedule": noise["schedule"],
        "augmentation_timesteps": noise["timesteps"],
    }


def _described(network: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a network of diffusers as settings."""
    width = network["attention_head_dim"]
    return {
        "network": tuple(network["block_out_channels"]),
        "layers": network["layers_per_block"],
        "attention": tuple("Attn" in str(kind) for kind in network["down_block_types"]),
        "head_width": width if isinstance(width, int) else width[0],
        "pool_heads": network["addition_embed_type_num_heads"],
        "groups": network["norm_num_groups"],
        "words": network["cross_attention_dim"],
    }
