"""Read folders of Karlo, diffusers' UnCLIPPipeline, as models.

The folder is read part by part. diffusers since 0.38 cannot open it as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.diffusers_folders import (
    classes,
    network_config,
    pipeline_index,
    square_size,
)
from t2i.plugins.common.weights.trusted_files import check_pipeline
from t2i.plugins.models.dalle2.config import KARLO_SAMPLERS

PIPELINE = "UnCLIPPipeline"
PARTS = {
    "prior": "PriorTransformer",
    "decoder": "UNet2DConditionModel",
    "text_proj": "UnCLIPTextProjModel",
    "super_res_first": "UNet2DModel",
    "super_res_last": "UNet2DModel",
    "text_encoder": "CLIPTextModelWithProjection",
    "tokenizer": "CLIPTokenizer",
    "prior_scheduler": "UnCLIPScheduler",
    "decoder_scheduler": "UnCLIPScheduler",
    "super_res_scheduler": "UnCLIPScheduler",
}
"""Class of each part of the pipeline. None of them is imported by the name in the folder."""

SCHEDULERS = {"prior": "prior", "decoder": "decoder", "upsampler": "super_res"}
"""Part of the cascade -> first word of its scheduler's name."""


def open_pretrained(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """Open a folder of Karlo.

    Args:
        path: The folder.
        settings: Not used: such a folder has no settings.

    Returns:
        The model, without the image half of CLIP. None if `path` is no such folder.

    Raises:
        UserError: The folder is incomplete, or a part is not as Karlo's.
    """
    index = pipeline_index(path)
    if index is None or index.get("_class_name") != PIPELINE:
        return None
    found = classes(index)
    for part, kind in PARTS.items():
        if found.get(part) != kind:
            raise UserError(
                f"{path}: its {part} is {found.get(part) or 'not named'}; only {kind} is read"
            )
    path = path.resolve()
    check_pipeline(path, PARTS)
    prior = network_config(path / "prior", PriorTransformer)
    decoder = network_config(path / "decoder", UNet2DConditionModel)
    first = network_config(path / "super_res_first", UNet2DModel)
    projections = read_object(path / "text_proj" / "config.json", f"folder {path}")
    small, size = square_size(decoder, path / "decoder"), square_size(first, path)
    noise = {part: _noise(path / f"{name}_scheduler") for part, name in SCHEDULERS.items()}
    width = int(prior["num_attention_heads"]) * int(prior["attention_head_dim"])
    document = {
        "model": "dalle2",
        "preset": "diffusers",
        "image_size": size,
        "clip": None,
        "unit_embeddings": False,
        "prior": {
            **noise["prior"][0], "image_size": size, "weights": str(path), "draws": 1,
            "width": width, "layers": prior["num_layers"], "heads": prior["num_attention_heads"],
            "length": prior["num_embeddings"],
        },
        "decoder": {
            **noise["decoder"][0], "image_size": small, "weights": str(path),
            "tokens": projections.get("clip_extra_context_tokens", 4),
        },
        "upsampler": {
            **noise["upsampler"][0], "image_size": size, "low_size": small, "weights": str(path),
            "resize": "bicubic",
        },
        "data": {"name": "none"},
        "encoder": {
            "name": "clip", "weights": str(path / "text_encoder"),
            "tokenizer": str(path / "tokenizer"),
        },
        "sampler": {
            "name": "cascade",
            "samplers": {
                part: {**own, **noise[part][1]} for part, own in KARLO_SAMPLERS.items()
            },
        },
    }  # fmt: skip
    return build(RunConfig.parse(document, str(path)))


def _noise(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a UnCLIPScheduler: settings of a part, and of its sampler."""
    file = folder / "scheduler_config.json"
    config = read_object(file, f"folder {folder}")
    prediction = config.get("prediction_type", "epsilon")
    variance = config.get("variance_type", "fixed_small_log")
    for key, value, known in (
        ("prediction_type", prediction, ("epsilon", "sample")),
        ("variance_type", variance, ("fixed_small_log", "learned_range")),
        ("beta_schedule", config.get("beta_schedule"), (None, "squaredcos_cap_v2")),
    ):
        if value not in known:
            raise UserError(f"{file}: {key} = {str(value)[:60]}: UnCLIPScheduler has no such one")
    clip = config.get("clip_sample_range", 1.0) if config.get("clip_sample", True) else None
    learned = variance == "learned_range"
    settings = {
        "schedule": "cosine", "timesteps": config.get("num_train_timesteps", 1000),
        "prediction": prediction, "learned_range": learned,
    }  # fmt: skip
    return settings, {"clip": clip, "variance": "learned" if learned else "beta~"}
