"""Read folders of diffusers' ScoreSdeVePipeline, such as google/ncsnpp-ffhq-256, as models."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import ScoreSdeVeScheduler, UNet2DModel

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.diffusers_folders import (
    WEIGHTS,
    classes,
    network_config,
    part_of,
    pipeline_index,
    refuse_foreign_classes,
    refuse_settings,
    square_size,
    unet_settings,
)
from t2i.plugins.common.weights.trusted_files import check_pipeline

PIPELINE, UNET, SCHEDULER = "ScoreSdeVePipeline", "UNet2DModel", "ScoreSdeVeScheduler"
AGAIN = (
    "open it with the diffusers that wrote it, and write it again with "
    "save_pretrained(FOLDER, safe_serialization=True)"
)
UNREAD = dict.fromkeys(("num_class_embeds", "class_embed_type"), "is conditioned on class numbers")
"""Settings of networks that read more than noise."""


def open_pretrained(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """Open a folder of diffusers' ScoreSdeVePipeline.

    Args:
        path: The folder.
        settings: Not used: such a folder has no settings.

    Returns:
        The model, which samples without text; None if `path` is no such folder.

    Raises:
        UserError: The folder is incomplete, in an early layout, or not in safetensors.
    """
    index = pipeline_index(path)
    if index is None:
        _refuse_early(path)
        return None
    if index.get("_class_name") != PIPELINE:
        return None
    refuse_foreign_classes(index, path)
    found = classes(index)
    if (found.get("unet"), found.get("scheduler")) != (UNET, SCHEDULER):
        raise UserError(
            f"{path}: its parts are {found}, not an unet ({UNET}) and a scheduler ({SCHEDULER}): "
            f"{AGAIN}"
        )
    path = path.resolve()
    check_pipeline(path, ("unet", "scheduler"))
    source = part_of(path, "unet")
    if not any(source.glob(f"{WEIGHTS}*.safetensors")) and any(source.glob("*.bin")):
        raise UserError(f"{source}: its weights are .bin, which is a pickle and not read: {AGAIN}")
    unet = network_config(source, UNet2DModel)
    refuse_settings(unet, UNet2DModel, f"{path}: its network", UNREAD)
    if unet["time_embedding_type"] != "fourier":
        raise UserError(f"{path}: its network embeds steps, not sigma: time_embedding_type=fourier")
    return build(RunConfig.parse(_document(path, unet, source), str(path)))


def _document(path: Path, unet: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Return the run's configuration for a folder."""
    scheduler = _scheduler(part_of(path, "scheduler") / "scheduler_config.json")
    return {
        "model": "scoresde",
        "preset": "diffusers",
        "image_size": square_size(unet, path),
        "sde": "ve",
        **scheduler,
        "network": "diffusers",
        "unet": unet_settings(unet, source),
        "data": {"name": "none"},
        "encoder": {"name": "none"},
        "sampler": {"name": "ddim", "steps": 100, "guidance": 1.0, "sigma_max": None},
    }


def _scheduler(path: Path) -> dict[str, Any]:
    """Return the equation's ends, which have the scheduler's defaults."""
    document = read_object(path, f"folder {path.parent}")
    defaults = inspect.signature(ScoreSdeVeScheduler.__init__).parameters
    ends = ("sigma_min", "sigma_max")
    return {name: document.get(name, defaults[name].default) for name in ends}


def _refuse_early(path: Path) -> None:
    """Raise UserError if a folder is a pipeline in the layout of diffusers before 0.2."""
    if not (path / "config.json").is_file():
        return
    if read_object(path / "config.json", f"folder {path}").get("_class_name") == PIPELINE:
        raise UserError(f"{path}: a folder of a very early diffusers (config.json): {AGAIN}")
