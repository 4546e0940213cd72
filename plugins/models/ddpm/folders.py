"""diffusers' folders of DDPM, opened as models of ours; and our models of the same kind, written as such folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import read_json
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.scheduler_files import (
    GUIDANCE,
    noise_settings,
    read_scheduler,
    sampler_section,
    scheduler_of,
)
from t2i.plugins.common.diffusion.time_grid import PREDICTION_TYPES
from t2i.plugins.common.weights.diffusers_folders import (
    classes,
    part_of,
    pipeline_index,
    save_network,
    square_size,
    unet_settings,
    write_index,
    write_scheduler,
)
from t2i.plugins.models.ddpm.config import DDPMConfig
from t2i.plugins.models.ddpm.networks import DDPMGenerator

PIPELINES = ("DDPMPipeline", "DDIMPipeline")
UNET = "UNet2DModel"
STEPS = {"DDPMPipeline": None, "DDIMPipeline": 50}  # the pipelines' own; None: all


def open_pretrained(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """The model in a folder of diffusers' DDPMPipeline or DDIMPipeline; None if it is none. It draws without text."""
    index = pipeline_index(path)
    if (
        index is None
        or index.get("_class_name") not in PIPELINES
        or classes(index).get("unet") != UNET
    ):
        return None
    path = path.resolve()
    source = part_of(path, "unet")
    unet = read_json(source / "config.json", f"folder {path}")
    if unet.get("num_class_embeds") or unet.get("class_embed_type"):
        raise UserError(
            f"{path}: its images are told apart by class numbers, which captions do not give"
        )
    scheduler, guidance = read_scheduler(part_of(path, "scheduler"))
    document = {
        "model": "ddpm",
        "preset": "diffusers",
        "image_size": square_size(unet, path),
        **noise_settings(scheduler),
        "unet": unet_settings(unet, source),
        "data": {"name": "none"},
        "encoder": {"name": "none"},
        "sampler": sampler_section(scheduler, STEPS[str(index["_class_name"])], guidance or 1.0),
    }
    return build(RunConfig.parse(document, str(path)))


def weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """`t2i import`: what `open_pretrained` opens."""
    model = open_pretrained(files[0], {}) if len(files) == 1 else None
    if model is None:
        raise UserError(f"{files[0]}: no folder of diffusers' DDPMPipeline or DDIMPipeline")
    return model


def export(model: Model, folder: Path) -> None:
    """The model as a folder that diffusers' DDPMPipeline (DDIMPipeline, where that is its sampler) opens. UserError,
    naming the settings, if it has something that the pipeline cannot express."""
    generator, config = model.generator, model.config
    assert isinstance(generator, DDPMGenerator)
    _check_plain(generator.config)
    scheduler = scheduler_of(config)
    pipeline = "DDIMPipeline" if config.sampler.name == "ddim" else "DDPMPipeline"
    save_network(generator.unet.unet, folder / "unet")
    write_scheduler(folder / "scheduler", scheduler, **{GUIDANCE: config.sampler.config.guidance})
    parts = {"unet": ("diffusers", UNET), "scheduler": ("diffusers", type(scheduler).__name__)}
    write_index(folder, pipeline, parts)


def _check_plain(config: DDPMConfig) -> None:
    foreign_to_it = {
        f"patch={config.patch}": config.patch != 1,
        "unet.middle=cross": config.unet.words,
        f"unet.text_map={config.unet.text_map}": config.unet.text_map > 0,
        "unet.sentence=true": config.unet.sentence,
        "schedule=mixing": config.schedule == "mixing",
        f"prediction={config.prediction}": config.prediction not in PREDICTION_TYPES,
    }
    found = [setting for setting, there in foreign_to_it.items() if there]
    if found:
        raise UserError(
            f"diffusers' DDPMPipeline draws without text, and cannot express {', '.join(found)}: this run stays one of "
            "ours"
        )
