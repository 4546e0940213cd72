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
from t2i.core.io.files import read_object
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.scheduler_files import (
    noise_settings,
    read_scheduler,
    sampler_section,
)
from t2i.plugins.common.weights.diffusers_folders import (
    INDEX,
    classes,
    network_config,
    refuse_foreign_classes,
    refuse_settings,
    square_size,
    unet_settings,
)
from t2i.plugins.common.weights.trusted_files import check_pipeline

PIPELINE = "StableDiffusionPipeline"
PARTS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that do not take part in sampling from text."""
FORCED = {"steps_offset": 1, "clip_sample": False}
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
VAE_SCALES = dict.fromkeys(("shift_factor", "latents_mean", "latents_std"), "shifts its latents")
"""Settings of an autoencoder that StableDiffusionPipeline does not read."""


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
        vae = self.vae
        autoencoder = {
            "weights": str(self.source / "vae") if self.source.is_dir() else str(self.source),
            "channels": vae["block_out_channels"],
            "layers": vae["layers_per_block"],
            "latent_channels": vae["latent_channels"],
            "attention": vae.get("mid_block_add_attention", True),
            "groups": vae["norm_num_groups"],
        }
        size = _latent_size(self.unet, self.source) * 2 ** (len(vae["block_out_channels"]) - 1)
        document = {
            "model": "ldm",
            "preset": "diffusers",
            "image_size": size,
            **noise_settings(self.scheduler),
            "autoencoder": autoencoder,
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
    refuse_settings(vae, AutoencoderKL, f"{source}: its autoencoder", VAE_SCALES)
    channels = (unet.get("in_channels", 4), vae.get("latent_channels", 4))
    if channels[0] != channels[1]:
        raise UserError(
            f"{source}: its U-Net has {channels[0]} input channels and its autoencoder "
            f"{channels[1]}: it reads more than noise (as for inpainting, upscaling or depth), and "
            f"t2i samples from noise and text only"
        )


def check_index(index: Mapping[str, Any], source: Path) -> None:
    """Check that a pipeline has the parts that are read here, and no others that matter.

    Args:
        index: The content of model_index.json.
        source: Folder of the pipeline, for errors.

    Raises:
        UserError: A part is missing, of another class, or would be ignored.
    """
    refuse_foreign_classes(index, source)
    found = classes(index)
    wanted = {**dict.fromkeys(PARTS), "tokenizer": None, "scheduler": None}
    for name in wanted:
        fitting = TOKENIZERS if name == "tokenizer" else (PARTS.get(name, found.get(name)),)
        if name not in found:
            raise UserError(f"{source / INDEX}: it names no {name}, which a {PIPELINE} has")
        if found[name] not in fitting:
            raise UserError(f"{source}: its {name} is {found[name]}; only {fitting[0]} is read")
    for name in sorted(set(found) - {*wanted, *LEFT_OUT}):
        raise UserError(
            f"{source}: it has the part {name} ({found[name]}), which would be ignored: a "
            f"{PIPELINE} has none; remove it from {INDEX} to sample without it"
        )
    for name, value in index.items():
        plain = name.startswith("_") or name == "requires_safety_checker" or isinstance(value, list)
        if not plain and value not in (None, False):
            raise UserError(
                f"{source / INDEX}: {name} = {value} would be ignored, here as in a {PIPELINE}: "
                "remove it from the file"
            )


def check_files(path: Path) -> None:
    """Check that each part of a pipeline has its configuration.

    Args:
        path: Folder of the pipeline.

    Raises:
        UserError: A part has none.
    """
    files = {
        **dict.fromkeys(PARTS, "config.json"),
        "scheduler": "scheduler_config.json",
    }
    for name, file in files.items():
        if not (path / name / file).is_file():
            raise UserError(
                f"{path}: {name}/{file} is missing, though {INDEX} names this part: get it from "
                "where the folder is from"
            )
    tokenizer = path / "tokenizer"
    if not any((tokenizer / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UserError(
            f"{path}: tokenizer/ is missing or has neither tokenizer.json nor vocab.json and "
            "merges.txt: get it from where the folder is from"
        )


def check_text(source: Path) -> None:
    """Check that captions are read as the pipeline reads them.

    Args:
        source: Folder of the pipeline.

    Raises:
        UserError: The text encoder or the tokenizer has a setting that is not followed here.
    """
    config = source / "text_encoder" / "config.json"
    text = read_object(config, f"folder {source}")
    if text.get("use_attention_mask"):
        raise UserError(
            f"{source}: its text encoder has use_attention_mask, which is not followed here"
        )
    place = source / "tokenizer" / "tokenizer_config.json"
    words = read_object(place, f"folder {source}") if place.is_file() else {}
    length, most = words.get("model_max_length"), text.get("max_position_embeddings", 77)
    if type(most) is not int or most < 1:
        raise UserError(f"{config}: max_position_embeddings = {str(most)[:60]!r} is no count: a "
                        "whole number from 1 on is expected")  # fmt: skip
    if isinstance(length, (int, float)) and length < most:
        raise UserError(
            f"{place}: model_max_length = {length}, but the text encoder reads {most} tokens, and "
            f"captions are padded to these here: set it to {most}"
        )


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
    check_index(index, path)
    check_files(path)
    check_pipeline(path, (*PARTS, "tokenizer", "scheduler"))
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
    _check_words(model, path)
    return model


def _check_words(model: Model, path: Path) -> None:
    """Raise UserError if a word stands for several tokens, which the pipeline would put in."""
    tokenizer: Any = getattr(model.text_encoder, "tokenizer", None)
    added = tokenizer.get_added_vocab() if tokenizer is not None else {}
    for word in added:
        if f"{word}_1" in added:
            raise UserError(
                f"{path}: its tokenizer has the word {word} of several vectors ({word}_1, ...): "
                "only words of one vector are read here"
            )
