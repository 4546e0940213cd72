"""diffusers' scheduler_config.json in our settings' words: a model's noise schedule, and its sampler."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.io.files import read_json
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.config import DenoisingConfig
from t2i.plugins.common.diffusion.sampling import clipping, schedule_of
from t2i.plugins.common.diffusion.time_grid import PREDICTION_TYPES

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "dpmpp-2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Our sampler -> diffusers' scheduler."""

GUIDANCE = "_t2i_guidance"  # a key of ours in scheduler_config.json; diffusers passes over what begins with "_"
NAMED = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}
ALMOST_ONE = 1 - 2.0**-24  # beta_T of schedules that end without any signal


def read_scheduler(folder: Path) -> tuple[Any, float | None]:
    """The scheduler of a folder, and the guidance that a folder of ours names."""
    document = read_json(folder / "scheduler_config.json", f"folder {folder}")
    document = document if isinstance(document, dict) else {}
    return known_scheduler(str(document.get("_class_name")), document), document.get(GUIDANCE)


def known_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """The scheduler of that class, or, where we have no such sampler, DDIM under the same noise schedule."""
    kind: Any = getattr(diffusers, name if name in SCHEDULERS.values() else "DDIMScheduler")
    return kind.from_config(dict(config))


def noise_settings(scheduler: Any) -> dict[str, Any]:
    """The noise schedule and what the network predicts, in the words of `DenoisingConfig`."""
    betas: Tensor = scheduler.betas.double()
    predictions = {theirs: ours for ours, theirs in PREDICTION_TYPES.items()}
    settings = {
        "timesteps": len(betas),
        "prediction": predictions[scheduler.config.prediction_type],
    }
    for name in ("linear", "scaled_linear", "cosine"):
        with suppress(ValueError):  # of few steps there is no linear schedule
            named = DiscreteSchedule.named(name, len(betas)).betas.double()
            if torch.allclose(betas, named, rtol=1e-5, atol=1e-8):
                return {**settings, "schedule": name}
    return {**settings, "trained_betas": tuple(betas.clamp(max=ALMOST_ONE).tolist())}


def sampler_section(scheduler: Any, steps: int | None, guidance: float) -> dict[str, Any]:
    """The sampler that draws as a pipeline with this scheduler does."""
    config: Mapping[str, Any] = scheduler.config
    name = next(ours for ours, theirs in SCHEDULERS.items() if theirs == type(scheduler).__name__)
    section = {
        "name": name,
        "steps": steps,
        "guidance": guidance,
        "spacing": config.get("timestep_spacing", "leading"),
        "steps_offset": config.get("steps_offset", 0),
        "sigma_max": None,
    }
    if name in ("ddim", "pndm"):
        section["end"] = "x_0" if config["set_alpha_to_one"] else "first"
    if name in ("ddim", "ddpm"):
        section["clip"] = config["clip_sample_range"] if config["clip_sample"] else None
    if name == "ddpm":
        section["variance"] = "beta" if "large" in config["variance_type"] else "beta~"
    return section


def scheduler_of(config: RunConfig, unused_offset: int = 0) -> Any:
    """diffusers' scheduler for a run's noise schedule and sampler; DDIM for samplers that have none. unused_offset:
    what to write where only "leading" times have an offset, and these are others."""
    settings, sampler = config.settings, config.sampler
    assert isinstance(settings, DenoisingConfig)
    chosen = sampler.config.model_dump()
    name = sampler.name if sampler.name in SCHEDULERS else "ddim"
    more: dict[str, Any] = {}
    if name in ("ddim", "pndm"):
        more["set_alpha_to_one"] = chosen.get("end") != "first"
    if name in ("ddim", "ddpm"):
        more |= clipping(chosen.get("clip"))
    if name == "ddpm":
        more["variance_type"] = "fixed_large" if chosen["variance"] == "beta" else "fixed_small"
    if name == "pndm":
        more["skip_prk_steps"] = True
    kind: Any = getattr(diffusers, SCHEDULERS[name])
    offset = chosen["steps_offset"] if chosen["spacing"] == "leading" else unused_offset
    return kind(
        num_train_timesteps=settings.timesteps, prediction_type=PREDICTION_TYPES[settings.prediction],
        timestep_spacing=chosen["spacing"], steps_offset=offset, **_betas(settings), **more,
    )  # fmt: skip


def _betas(settings: DenoisingConfig) -> dict[str, Any]:
    schedule = schedule_of(settings)
    assert isinstance(schedule, DiscreteSchedule)
    if not settings.trained_betas and settings.schedule in NAMED:
        scale = 1000 / settings.timesteps
        start, end = (scale * beta for beta in NAMED[settings.schedule])
        return {"beta_schedule": settings.schedule, "beta_start": start, "beta_end": end}
    return {"trained_betas": schedule.betas.tolist()}
