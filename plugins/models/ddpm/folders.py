"""Read DDPM folders in diffusers' layout as models, and write models as such folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import UNet2DModel

from t2i.core.errors import UserError
from t2i.core.families.continuous import CONTINUOUS
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
    network_config,
    part_of,
    pipeline_index,
    refuse_foreign_classes,
    refuse_settings,
    save_network,
    square_size,
    unet_settings,
    write_index,
    write_scheduler,
)
from t2i.plugins.common.weights.trusted_files import check_pipeline
from t2i.plugins.models.ddpm.config import DDPMConfig
from t2i.plugins.models.ddpm.networks import DDPMGenerator

PIPELINES = ("DDPMPipeline", "DDIMPipeline")
UNET = "UNet2DModel"
UNREAD = dict.fromkeys(("num_class_embeds", "class_embed_type"), "is conditioned on class numbers")
"""Settings of networks that read more than noise."""
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler")
"""Schedulers that a DDPMPipeline can call; a DDIMPipeline makes a DDIMScheduler of any."""
STEPS = {"DDPMPipeline": None, "DDIMPipeline": 50}  # the pipelines' defaults; None: all steps


def open_pretrained(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """Open a folder of diffusers' DDPMPipeline or DDIMPipeline.

    Args:
        path: The folder.
        settings: Not used: such a folder has no settings.

    Returns:
        The model, which samples without text; None if `path` is no such folder.

    Raises:
        UserError: The network is conditioned on class numbers, or the folder is incomplete.
    """
    index = pipeline_index(path)
    if index is None or index.get("_class_name") not in PIPELINES:
        return None
    refuse_foreign_classes(index, path)
    found = classes(index).get("unet")
    if found != UNET:
        raise UserError(f"{path}: its unet is {found or 'not named'}; only {UNET} is read")
    path = path.resolve()
    check_pipeline(path, ("unet", "scheduler"))
    source = part_of(path, "unet")
    unet = network_config(source, UNet2DModel)
    refuse_settings(unet, UNet2DModel, f"{path}: its network", UNREAD)
    scheduler, guidance = read_scheduler(part_of(path, "scheduler"), _scheduler(index, path))
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


def _scheduler(index: Mapping[str, Any], path: Path) -> str:
    """Return the class of the scheduler that the pipeline uses."""
    if index["_class_name"] == "DDIMPipeline":
        return "DDIMScheduler"
    name = classes(index).get("scheduler", "none")
    if name not in SCHEDULERS:
        raise UserError(
            f"{path}: its scheduler is {name}, which a DDPMPipeline cannot call; those that it can "
            f"are {', '.join(SCHEDULERS)}"
        )
    return name


def export(model: Model, folder: Path) -> None:
    """Write a model as a folder that diffusers' DDPMPipeline opens.

    With the sampler `ddim` it is a folder of DDIMPipeline.

    Args:
        model: The model.
        folder: The folder to write to.

    Raises:
        UserError: The model has settings that the pipeline cannot express. The error names them.
    """
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
    """Raise UserError if the pipeline cannot express these settings."""
    foreign_to_it = {
        "adm": config.adm is not None,
        f"patch={config.patch}": config.patch != 1,
        "unet.middle=cross": config.unet.words,
        f"unet.text_map={config.unet.text_map}": config.unet.text_map > 0,
        "unet.sentence=true": config.unet.sentence,
        f"schedule={config.schedule}": config.schedule in CONTINUOUS,
        f"prediction={config.prediction}": config.prediction not in PREDICTION_TYPES,
    }
    found = [setting for setting, there in foreign_to_it.items() if there]
    if found:
        raise UserError(
            "diffusers' DDPMPipeline samples without text, and cannot express "
            f"{', '.join(found)}: this run cannot be exported"
        )
