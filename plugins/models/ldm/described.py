"""Stable Diffusion's folders in diffusers' layout: what they hold, and as settings of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from diffusers import AutoencoderKL, UNet2DConditionModel
from packaging.version import InvalidVersion, Version

from t2i.core.errors import UserError
from t2i.core.families.continuous import CONTINUOUS
from t2i.core.io.json_files import read_object
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.scheduler_files import (
    noise_settings,
    read_scheduler,
    sampler_section,
)
from t2i.plugins.common.diffusion.time_grid import PREDICTION_TYPES
from t2i.plugins.common.weights.diffusers_folders import (
    classes,
    network_config,
    refuse_settings,
    square_size,
    unet_settings,
)
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.layout import (
    CLIP_TOKENIZERS,
    TUNING,
    Layout,
    autoencoder_settings,
    check_tokens,
    check_words,
)

LAYOUT = Layout(
    "StableDiffusionPipeline",
    {
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": CLIP_TOKENIZERS,
        "scheduler": (),
    },
    left_out=("safety_checker", "feature_extractor", "image_encoder"),
    entries=("requires_safety_checker",),
)
"""Stable Diffusion 1.x and 2.x."""
FORCED: dict[str, Any] = {"steps_offset": 1, "clip_sample": False}
"""Settings of the scheduler that the pipeline changes. Old folders omit these, but mean them."""
STEPS, SCALE = 50, 7.5  # StableDiffusionPipeline's defaults: steps and guidance
UNET_INPUTS = {
    "time_cond_proj_dim": "reads the scale of guidance",
    "class_embed_type": "reads class numbers or vectors of images",
    "num_class_embeds": "reads class numbers",
    "addition_embed_type": "reads more than the caption's words",
    "encoder_hid_dim": "reads the vectors of another text encoder",
    "encoder_hid_dim_type": "reads the vectors of another text encoder",
}
"""Settings of a U-Net that give it further inputs, and what they are."""


@dataclass(frozen=True)
class Described:
    """The configuration of a Stable Diffusion pipeline.

    Args:
        source: The pipeline's folder or its single file.
        unet: Configuration of the U-Net.
        vae: Configuration of the autoencoder.
        scheduler: diffusers' scheduler.
        guidance: Guidance scale. None: the pipeline's default.
    """

    source: Path
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Any
    guidance: float | None

    def run_config(self, encoder: Mapping[str, Any]) -> RunConfig:
        """Translate the configuration to our settings.

        Args:
            encoder: Settings of the text encoder `clip`, which all these pipelines have.

        Returns:
            The configuration of a run.

        Raises:
            UserError: Our settings cannot express the configuration.
        """
        levels = len(self.vae["block_out_channels"])
        size = _latent_size(self.unet, self.source) * 2 ** (levels - 1)
        document = {
            "model": "ldm",
            "preset": "diffusers",
            **TUNING,
            "image_size": size,
            **noise_settings(self.scheduler),
            "autoencoder": autoencoder_settings(self.vae, self.source),
            "unet": unet_settings(
                self.unet, self.source / "unet" if self.source.is_dir() else self.source
            ),
            "data": {"name": "none"},
            "encoder": {"name": "clip", "sentence": "pooled", "attend_padding": True, **encoder},
            "sampler": sampler_section(self.scheduler, STEPS, self.guidance or SCALE),
        }
        return RunConfig.parse(document, str(self.source))


def _latent_size(unet: Mapping[str, Any], source: Path) -> int:
    """Return the default height and width of latents.

    The pipeline takes 64 for U-Nets from before diffusers 0.9 that say less.
    """
    size = square_size(unet, source)
    try:
        old = Version(str(unet.get("_diffusers_version", diffusers.__version__))) < Version("0.9.0")
    except InvalidVersion:
        old = False
    return 64 if old and size < 64 and isinstance(unet["sample_size"], int) else size


def refuse_networks(unet: Mapping[str, Any], vae: Mapping[str, Any], source: Path) -> None:
    """Check that the networks read nothing but latents, timesteps and the caption's words.

    Args:
        unet: Configuration of the U-Net.
        vae: Configuration of the autoencoder.
        source: Folder or file of the pipeline, for errors.

    Raises:
        UserError: One does, or has a setting that diffusers does not know.
    """
    refuse_settings(unet, UNet2DConditionModel, f"{source}: its U-Net", UNET_INPUTS)
    LAYOUT.refuse_autoencoder(vae, unet.get("in_channels", 4), source)


def check_text(source: Path) -> None:
    """Check that captions are read as the pipeline reads them.

    Args:
        source: Folder of the pipeline.

    Raises:
        UserError: The text encoder or the tokenizer has a setting that is not followed here.
    """
    text = read_object(source / "text_encoder" / "config.json", f"folder {source}")
    if text.get("use_attention_mask"):
        raise UserError(
            f"{source}: its text encoder has use_attention_mask, which is not followed here"
        )
    check_tokens(source)


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
    check_text(path)
    unet = network_config(path / "unet", UNet2DConditionModel)
    vae = network_config(path / "vae", AutoencoderKL)
    refuse_networks(unet, vae, path)
    scheduler = read_scheduler(path / "scheduler", classes(index)["scheduler"], **FORCED)
    described = Described(path, unet, vae, *scheduler)
    model = build(
        described.run_config(
            {"weights": str(path / "text_encoder"), "tokenizer": str(path / "tokenizer")}
        )
    )
    check_words(model, path)
    return model


def unlike(run: RunConfig) -> dict[str, bool]:
    """List settings that the pipeline cannot express.

    Args:
        run: The run's configuration.

    Returns:
        Settings as they are on a command line -> whether the run has them.
    """
    config, sampler = run.settings, run.sampler.config.model_dump()
    assert isinstance(config, LDMConfig)
    text = run.encoder.config.model_dump() if run.encoder.name == "clip" else {}
    return {
        f"unet.middle={config.unet.middle}": not config.unet.words,
        f"unet.text_map={config.unet.text_map}": config.unet.text_map > 0,
        "unet.sentence=true": config.unet.sentence,
        "unet.context=sentence": config.unet.context == "sentence",
        f"schedule={config.schedule}": config.schedule in CONTINUOUS,
        f"prediction={config.prediction}": config.prediction not in PREDICTION_TYPES,
        f"encoder.name={run.encoder.name}": run.encoder.name != "clip",
        f"encoder.layer={text.get('layer')}": text.get("layer", -1) != -1,
        "encoder.final_norm=false": not text.get("final_norm", True),
        "encoder.attend_padding=false": not text.get("attend_padding", True),
        "sampler.spacing=leading but with sampler.steps_offset=1": (
            sampler.get("spacing") == "leading" and sampler["steps_offset"] != 1
        ),
    }
