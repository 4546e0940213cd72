"""Stable Diffusion 3's folders in diffusers' layout: a transformer, two CLIPs and a T5.

Source: Esser et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, SD3Transformer2DModel

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.flow_files import PATH, flow_section
from t2i.plugins.common.weights.diffusers_folders import (
    classes,
    network_config,
    refuse_settings,
    square_size,
)
from t2i.plugins.models.ldm.layout import (
    CLIP_TOKENIZERS,
    T5_TOKENIZERS,
    TUNING,
    Layout,
    autoencoder_settings,
    check_tokens,
)
from t2i.plugins.models.ldm.sdxl import are_clips, clip_part

LAYOUT = Layout(
    "StableDiffusion3Pipeline",
    {
        "transformer": ("SD3Transformer2DModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModelWithProjection",),
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer_2": CLIP_TOKENIZERS,
        "text_encoder_3": ("T5EncoderModel",),
        "tokenizer_3": T5_TOKENIZERS,
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
    },
    optional=("text_encoder_3", "tokenizer_3"),
    left_out=("image_encoder", "feature_extractor"),
    latent_settings=("latents_mean", "latents_std"),
)
STEPS, SCALE = 28, 7.0  # StableDiffusion3Pipeline's defaults: steps and guidance
T5_LENGTH = 256
"""Tokens of T5 that StableDiffusion3Pipeline reads, zeros where there is no T5."""


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
    check_tokens(path)
    check_tokens(path, "_2")
    network = network_config(path / "transformer", SD3Transformer2DModel)
    vae = network_config(path / "vae", AutoencoderKL)
    refuse_settings(network, SD3Transformer2DModel, f"{path}: its transformer", {})
    LAYOUT.refuse_autoencoder(vae, network["in_channels"], path, "transformer")
    found = classes(index)
    document = {
        "model": "ldm",
        "preset": "diffusers",
        **TUNING,
        "network": "sd3",
        "image_size": square_size(network, path) * 2 ** (len(vae["block_out_channels"]) - 1),
        **PATH,
        "autoencoder": autoencoder_settings(vae, path),
        "transformer": {
            "weights": str(path / "transformer"), "patch": network["patch_size"],
        },
        "data": {"name": "none"},
        "encoder": _encoder(path, found, network["joint_attention_dim"]),
        "sampler": flow_section(path / "scheduler", found["scheduler"], STEPS, SCALE),
    }  # fmt: skip
    return build(RunConfig.parse(document, str(path)))


def _encoder(path: Path, found: Mapping[str, str], width: int) -> dict[str, Any]:
    """Describe the text encoders: two CLIPs side by side, then T5's words, or zeros for them."""
    if ("text_encoder_3" in found) != ("tokenizer_3" in found):
        raise UserError(f"{path}: it has one of text_encoder_3 and tokenizer_3 without the other")
    beside = [clip_part(path, suffix, "projected") for suffix in ("", "_2")]
    if "text_encoder_3" not in found:
        return {"name": "joined", "beside": beside, "width": width, "zeros": T5_LENGTH}
    after = {
        "name": "t5", "weights": str(path / "text_encoder_3"),
        "tokenizer": str(path / "tokenizer_3"), "length": T5_LENGTH, "padding": "attended",
    }  # fmt: skip
    return {"name": "joined", "beside": beside, "after": after, "width": width}


def unlike(run: RunConfig) -> dict[str, bool]:
    """List settings that the pipeline cannot express.

    Args:
        run: The run's configuration.

    Returns:
        Settings as they are on a command line -> whether the run has them.
    """
    chosen = run.encoder.config.model_dump()
    after = chosen.get("after")
    whole = after is None and chosen.get("zeros") == T5_LENGTH
    t5 = {"name": "t5", "length": T5_LENGTH, "padding": "attended"}
    whole |= after is not None and {**after, **t5} == after and not chosen.get("zeros")
    return {
        f"encoder.name={run.encoder.name}": run.encoder.name != "joined",
        "encoder.beside of other than two such CLIPs": not are_clips(
            chosen.get("beside", ()), chosen.get("beside", ())
        ),
        "encoder.sentence=last": chosen.get("sentence") != "all",
        "encoder.empty=zeros": chosen.get("empty") != "encoded",
        f"encoder.after, or encoder.zeros, of other than {T5_LENGTH} words": not whole,
    }
