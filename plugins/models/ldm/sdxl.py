"""Stable Diffusion XL's folders in diffusers' layout: two text encoders, and sizes.

Source: Podell et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel

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
    unet_settings,
)
from t2i.plugins.models.ldm.config import LDMConfig, SizesConfig
from t2i.plugins.models.ldm.described import UNET_INPUTS
from t2i.plugins.models.ldm.layout import (
    CLIP_TOKENIZERS,
    TUNING,
    Layout,
    autoencoder_settings,
    check_tokens,
    check_words,
)

LAYOUT = Layout(
    "StableDiffusionXLPipeline",
    {
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer_2": CLIP_TOKENIZERS,
        "scheduler": (),
    },
    left_out=("image_encoder", "feature_extractor"),
    entries=("force_zeros_for_empty_prompt", "add_watermarker"),
)
STEPS, SCALE = 50, 5.0  # StableDiffusionXLPipeline's defaults: steps and guidance
ZEROS = "force_zeros_for_empty_prompt"
"""Entry of model_index.json: whether no negative prompt means features of zeros."""
WORDS = {"layer": -2, "final_norm": False, "attend_padding": True}
"""Settings of the encoder `clip` for the word vectors of Stable Diffusion XL and 3."""


def from_folder(path: Path, index: Mapping[str, Any], settings: Mapping[str, Any]) -> Model:
    """Open a folder in diffusers' layout.

    Args:
        path: The folder.
        index: The content of its model_index.json.
        settings: `sizes`, as the setting of the model.

    Returns:
        The model.

    Raises:
        UserError: A part is missing or damaged, or the pipeline would make other images.
    """
    LAYOUT.check(index, path)
    check_tokens(path)
    check_tokens(path, "_2")
    unet = network_config(path / "unet", UNet2DConditionModel)
    vae = network_config(path / "vae", AutoencoderKL)
    _refuse_unet(unet, path)
    LAYOUT.refuse_autoencoder(vae, unet["in_channels"], path)
    scheduler, guidance = read_scheduler(path / "scheduler", classes(index)["scheduler"])
    size = square_size(unet, path) * 2 ** (len(vae["block_out_channels"]) - 1)
    document = {
        "model": "ldm",
        "preset": "diffusers",
        **TUNING,
        "network": "sdxl",
        "image_size": size,
        "sizes": settings.get("sizes", {}),
        **noise_settings(scheduler),
        "autoencoder": autoencoder_settings(vae, path),
        "unet": unet_settings(unet, path / "unet"),
        "data": {"name": "none"},
        "encoder": _encoder(path, zeros=bool(index.get(ZEROS, True))),
        "sampler": sampler_section(scheduler, STEPS, guidance or SCALE),
    }
    model = build(RunConfig.parse(document, str(path)))
    check_words(model, path)
    return model


def clip_part(path: Path, suffix: str, sentence: str) -> dict[str, Any]:
    """Describe one of the CLIPs of Stable Diffusion XL or 3 as a part of the encoder `joined`.

    Args:
        path: Folder of the pipeline.
        suffix: End of the names of its folders, such as "_2".
        sentence: Its sentence vector, "projected" or "pooled".

    Returns:
        Name and settings.
    """
    return {
        "name": "clip", "weights": str(path / f"text_encoder{suffix}"),
        "tokenizer": str(path / f"tokenizer{suffix}"), "sentence": sentence, **WORDS,
    }  # fmt: skip


def _encoder(path: Path, zeros: bool) -> dict[str, Any]:
    """Describe both text encoders: word vectors side by side, and the second's sentence."""
    return {
        "name": "joined",
        "beside": [clip_part(path, "", "pooled"), clip_part(path, "_2", "projected")],
        "sentence": "last",
        "empty": "zeros" if zeros else "encoded",
    }


def _refuse_unet(unet: Mapping[str, Any], path: Path) -> None:
    """Raise UserError if the U-Net reads other things than words, a sentence and sizes."""
    unread = {key: what for key, what in UNET_INPUTS.items() if key != "addition_embed_type"}
    refuse_settings(unet, UNet2DConditionModel, f"{path}: its U-Net", unread)
    kind = unet.get("addition_embed_type")
    if kind != "text_time":
        raise UserError(
            f"{path}: its U-Net has addition_embed_type = {str(kind)[:60]}; that of Stable "
            "Diffusion XL has text_time: it reads a sentence and sizes"
        )
    for key in ("addition_time_embed_dim", "projection_class_embeddings_input_dim"):
        if unet.get(key) is None:
            raise UserError(f"{path}: its U-Net has no {key}, which text_time needs")


def unlike(run: RunConfig) -> dict[str, bool]:
    """List settings that the pipeline cannot express.

    Args:
        run: The run's configuration.

    Returns:
        Settings as they are on a command line -> whether the run has them.
    """
    chosen, config = run.encoder.config.model_dump(), run.settings
    assert isinstance(config, LDMConfig)
    return {
        "sizes": config.sizes != SizesConfig(),
        f"schedule={config.schedule}": config.schedule in CONTINUOUS,
        f"encoder.name={run.encoder.name}": run.encoder.name != "joined",
        "encoder.beside of other than two such CLIPs": not are_clips(
            chosen.get("beside", ()), chosen.get("beside", ())[-1:]
        ),
        "encoder.after, or encoder.zeros": bool(chosen.get("after") or chosen.get("zeros")),
        "encoder.sentence=all": chosen.get("sentence") != "last",
    }


def are_clips(parts: Sequence[Mapping[str, Any]], sentences: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether parts of the encoder `joined` are the CLIPs of Stable Diffusion XL and 3.

    Args:
        parts: Name and settings of each.
        sentences: Those whose sentence vectors the pipeline reads.

    Returns:
        Whether they are two CLIPs with these pipelines' word vectors and projected sentences.
    """
    words = all({**part, **WORDS, "name": "clip"} == part for part in parts)
    projected = all(part.get("sentence", "projected") == "projected" for part in sentences)
    return len(parts) == 2 and words and projected


def entries(run: RunConfig) -> dict[str, Any]:
    """Return the entries of model_index.json besides the parts.

    Args:
        run: The run's configuration.

    Returns:
        The entries.
    """
    return {ZEROS: run.encoder.config.model_dump()["empty"] == "zeros"}
