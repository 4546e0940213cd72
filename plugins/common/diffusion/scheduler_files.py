"""Conversion between diffusers' scheduler_config.json and our settings of schedule and sampler."""

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

GUIDANCE = "_t2i_guidance"  # our key in scheduler_config.json; diffusers ignores names with a "_"
NAMED = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}
ALMOST_ONE = 1 - 2.0**-24  # replaces beta_T = 1 of schedules that end without any signal


def read_scheduler(folder: Path) -> tuple[Any, float | None]:
    """Read the scheduler of a folder.

    Args:
        folder: Folder with a scheduler_config.json.

    Returns:
        The scheduler, and the guidance that is stored if t2i wrote the folder, else None.
    """
    document = read_json(folder / "scheduler_config.json", f"folder {folder}")
    document = document if isinstance(document, dict) else {}
    return known_scheduler(str(document.get("_class_name")), document), document.get(GUIDANCE)


def known_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """Build a scheduler of diffusers from its configuration.

    Args:
        name: Name of its class.
        config: Its configuration.

    Returns:
        The scheduler; a DDIMScheduler with the same noise schedule if we have no sampler for the
        class.
    """
    kind: Any = getattr(diffusers, name if name in SCHEDULERS.values() else "DDIMScheduler")
    return kind.from_config(dict(config))


def noise_settings(scheduler: Any) -> dict[str, Any]:
    """Describe a scheduler's noise schedule and prediction as settings of `DenoisingConfig`.

    Args:
        scheduler: A scheduler of diffusers.

    Returns:
        The settings. The schedule is named if it is one of ours, else its betas are listed.
    """
    betas: Tensor = scheduler.betas.double()
    predictions = {theirs: ours for ours, theirs in PREDICTION_TYPES.items()}
    settings = {
        "timesteps": len(betas),
        "prediction": predictions[scheduler.config.prediction_type],
    }
    for name in ("linear", "scaled_linear", "cosine"):
        with suppress(ValueError):  # a linear schedule of few steps would have betas above 1
            named = DiscreteSchedule.named(name, len(betas)).betas.double()
            if torch.allclose(betas, named, rtol=1e-5, atol=1e-8):
                return {**settings, "schedule": name}
    return {**settings, "trained_betas": tuple(betas.clamp(max=ALMOST_ONE).tolist())}


def sampler_section(scheduler: Any, steps: int | None, guidance: float) -> dict[str, Any]:
    """Return settings of the sampler that does the same as a pipeline with this scheduler.

    Args:
        scheduler: A scheduler of diffusers that is one of `SCHEDULERS`.
        steps: Number of sampling steps. None: all.
        guidance: Scale of classifier-free guidance.

    Returns:
        The section: the sampler's name and its settings.
    """
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
    """Return diffusers' scheduler for a run's noise schedule and sampler.

    Args:
        config: Settings of the run.
        unused_offset: steps_offset to write if the spacing is not "leading", where it has no
            effect.

    Returns:
        The scheduler; a DDIMScheduler if the sampler has no counterpart in diffusers.
    """
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
        num_train_timesteps=settings.timesteps,
        prediction_type=PREDICTION_TYPES[settings.prediction],
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
