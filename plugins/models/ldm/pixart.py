"""PixArt-alpha's folders in diffusers' layout: a transformer that reads T5's words.

Source: Chen et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, PixArtTransformer2DModel

from t2i.core.errors import UserError
from t2i.core.families.continuous import CONTINUOUS
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.scheduler_files import (
    noise_settings,
    read_scheduler,
    sampler_section,
)
from t2i.plugins.common.weights.diffusers_folders import (
    classes,
    network_config,
    refuse_settings,
    square_size,
)
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.layout import T5_TOKENIZERS, TUNING, Layout, autoencoder_settings

LAYOUT = Layout(
    "PixArtAlphaPipeline",
    {
        "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("T5EncoderModel",),
        "tokenizer": T5_TOKENIZERS,
        "scheduler": (),
    },
)
"""Folders from before diffusers 0.28 name the transformer by its former class."""
STEPS, SCALE = 20, 4.5  # PixArtAlphaPipeline's defaults: steps and guidance
TEXT = {"length": 120, "padding": "ignored", "lower": True}
"""Settings of the encoder `t5`, as the pipeline reads captions."""


def from_folder(path: Path, index: Mapping[str, Any]) -> Model:
    """Open a folder in diffusers' layout.

    Args:
        path: The folder.
        index: The content of its model_index.json.

    Returns:
        The model.

    Raises:
        UserError: A part is missing or damaged, or the pipeline would make other images.
    """
    LAYOUT.check(index, path)
    network = network_config(path / "transformer", PixArtTransformer2DModel)
    vae = network_config(path / "vae", AutoencoderKL)
    refuse_settings(network, PixArtTransformer2DModel, f"{path}: its transformer", {})
    LAYOUT.refuse_autoencoder(vae, network["in_channels"], path, "transformer")
    channels = network["in_channels"], network["out_channels"]
    if channels[1] not in (None, channels[0], 2 * channels[0]):
        raise UserError(
            f"{path}: its transformer turns {channels[0]} channels into {channels[1]}: a "
            "prediction, and perhaps a variance, of as many each are expected"
        )
    scheduler, guidance = read_scheduler(path / "scheduler", classes(index)["scheduler"])
    document = {
        "model": "ldm",
        "preset": "diffusers",
        **TUNING,
        "network": "pixart",
        "image_size": square_size(network, path) * 2 ** (len(vae["block_out_channels"]) - 1),
        **noise_settings(scheduler),
        "autoencoder": autoencoder_settings(vae, path),
        "transformer": {
            "weights": str(path / "transformer"), "patch": network["patch_size"],
        },
        "data": {"name": "none"},
        "encoder": {
            "name": "t5", "weights": str(path / "text_encoder"),
            "tokenizer": str(path / "tokenizer"), **TEXT,
        },
        "sampler": sampler_section(scheduler, STEPS, guidance or SCALE),
    }  # fmt: skip
    return build(RunConfig.parse(document, str(path)))


def unlike(run: RunConfig) -> dict[str, bool]:
    """List settings that the pipeline cannot express.

    Args:
        run: The run's configuration.

    Returns:
        Settings as they are on a command line -> whether the run has them.
    """
    chosen, config = run.encoder.config.model_dump(), run.settings
    assert isinstance(config, LDMConfig)
    other = {f"encoder.{key}={chosen.get(key)}": chosen.get(key) != TEXT[key] for key in TEXT}
    name = run.encoder.name
    continuous = {f"schedule={config.schedule}": config.schedule in CONTINUOUS}
    return {**continuous, f"encoder.name={name}": name != "t5", **(other if name == "t5" else {})}
