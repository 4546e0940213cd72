"""Conversion between diffusers' scheduler_config.json and our settings of schedule and sampler."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from t2i.core.errors import UserError, in_one_line
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.io.json_files import read_object
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.config import MOST_TIMESTEPS, DenoisingConfig
from t2i.plugins.common.diffusion.native import (
    NATIVE,
    native_scheduler,
    options_of,
    unknown_settings,
)
from t2i.plugins.common.diffusion.sampling import VARIANCES, clipping, schedule_of
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
WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
NAMED = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}
MOST_BOUND = 1e6  # stands for no bound of dynamic thresholding
ALMOST_ONE = 1 - 2.0**-24  # replaces beta_T = 1 of schedules that end without any signal


def read_scheduler(
    folder: Path, name: str, learned: bool = False, **forced: Any
) -> tuple[Any, float | None]:
    """Read the scheduler of a folder.

    Args:
        folder: Folder with a scheduler_config.json.
        name: Class of the scheduler, as the pipeline's model_index.json names it. Like diffusers,
            we use this class whatever the configuration says.
        learned: Whether the network predicts variances, which the scheduler may then read.
        forced: Settings that the pipeline changes, whatever the folder says.

    Returns:
        The scheduler, and the guidance that is stored if t2i wrote the folder, else None.

    Raises:
        UserError: There is no such file, or no sampler here can do what the scheduler does.
    """
    path = folder / "scheduler_config.json"
    document = read_object(path, f"folder {folder}")
    scheduler = known_scheduler(name, document, str(path), learned, **forced)
    return scheduler, document.get(GUIDANCE)


def known_scheduler(
    name: str, config: Mapping[str, Any], where: str, learned: bool = False, **forced: Any
) -> Any:
    """Build a scheduler of diffusers from its configuration.

    Args:
        name: Name of its class.
        config: Its configuration.
        where: File of the configuration, for errors.
        learned: Whether the network predicts variances.
        forced: Settings to change, if the class knows them.

    Returns:
        The scheduler.

    Raises:
        UserError: No sampler here can do what the scheduler does, or its settings are wrong.
    """
    if name not in NATIVE:
        raise UserError(
            f"{where}: its scheduler is {name}, whose images no sampler here makes; those that can "
            f"be used are {', '.join(NATIVE)}"
        )
    kind: Any = getattr(diffusers, name)
    check_known(config, where)
    check_settings(kind, config, where)
    try:
        scheduler = kind.from_config(dict(config))
        changed = {key: value for key, value in forced.items() if key in scheduler.config}
        scheduler = kind.from_config({**config, **changed}) if changed else scheduler
    except Exception as error:  # schedulers check their settings in ways of their own
        raise UserError(f"{where}: {name} cannot be built ({in_one_line(error)})") from None
    betas = scheduler.betas
    if not bool(((betas > 0) & (betas <= 1)).all()):
        raise UserError(f"{where}: its betas are not all above 0 and at most 1")
    kind_of = str(scheduler.config.get("prediction_type", "epsilon"))
    variance = str(scheduler.config.get("variance_type"))
    for key, value, known in (
        ("prediction_type", kind_of, kind_of in PREDICTION_TYPES.values()),
        (
            "variance_type",
            variance,
            not variance.startswith("learned") or (learned and variance == "learned_range"),
        ),
        ("use_flow_sigmas", "true", not scheduler.config.get("use_flow_sigmas")),
    ):
        if not known:
            raise UserError(f"{where}: {key} = {value}: no model here does this")
    return scheduler


def check_known(config: Mapping[str, Any], where: str) -> None:
    """Check that a configuration has no settings of a newer diffusers.

    Args:
        config: The configuration.
        where: Its file, for errors.

    Raises:
        UserError: No scheduler that is used here has one of its settings.
    """
    for key, value in unknown_settings(config).items():
        raise UserError(
            f"{where}: {key} = {str(value)[:60]}: no scheduler that is used here (diffusers "
            f"{diffusers.__version__}) has this setting: a newer diffusers, or remove it"
        )


def check_settings(kind: Any, config: Mapping[str, Any], where: str) -> None:
    """Check the kinds of a scheduler's settings.

    Args:
        kind: Class of the scheduler.
        config: Its configuration.
        where: File of the configuration, for errors.

    Raises:
        UserError: A setting is of another kind than its default, or a count is too large.
    """
    for key, parameter in inspect.signature(kind.__init__).parameters.items():
        value, wanted = config.get(key), type(parameter.default)
        if value is None or wanted not in (bool, int, float, str):
            continue
        if type(value) is not wanted and (type(value), wanted) != (int, float):
            raise UserError(
                f"{where}: {key} = {value!r:.60}: {WANTED[wanted]} is expected, such as "
                f"{parameter.default!r}"
            )
        least = 1 if key == "num_train_timesteps" else -MOST_TIMESTEPS
        if wanted is int and not least <= value <= MOST_TIMESTEPS:
            raise UserError(
                f"{where}: {key} = {value!r:.60}: from {least} to {MOST_TIMESTEPS} is expected"
            )


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
        scheduler: A scheduler of diffusers that is one of `NATIVE`.
        steps: Number of sampling steps. None: all.
        guidance: Scale of classifier-free guidance.

    Returns:
        The section: the sampler's name and its settings.
    """
    config: Mapping[str, Any] = scheduler.config
    kind = type(scheduler).__name__
    if not _exact(kind, config):
        options = options_of(kind, config)
        return {"name": "scheduler", "steps": steps, "guidance": guidance, "scheduler": kind,
                "options": options}  # fmt: skip
    name = next(ours for ours, theirs in SCHEDULERS.items() if theirs == kind)
    section = {
        "name": name,
        "steps": steps,
        "guidance": guidance,
        "spacing": config["timestep_spacing"],
        "steps_offset": config["steps_offset"],
        "sigma_max": None,
    }
    if name in ("ddim", "pndm"):
        section["end"] = "x_0" if config["set_alpha_to_one"] else "first"
    if name in ("ddim", "ddpm"):
        bounds = config["clip_sample"] and not config["thresholding"]
        section["clip"] = config["clip_sample_range"] if bounds else None
    if name == "ddpm":
        learned = config["variance_type"] == "learned_range"
        fixed = "beta" if "large" in config["variance_type"] else "beta~"
        section["variance"] = "learned" if learned else fixed
        if config["thresholding"]:
            section["threshold"] = config["dynamic_thresholding_ratio"]
            section["threshold_cap"] = config["sample_max_value"]
    return section


def _exact(kind: str, config: Mapping[str, Any]) -> bool:
    """Return whether a sampler of ours makes exactly a scheduler's images, for any number of steps.

    With "leading" spacing, diffusers' distance between two timesteps is that of its own formulas.
    """
    if kind == "PNDMScheduler":
        plain = bool(config["skip_prk_steps"])
    elif kind == "DDIMScheduler":  # a last step to x_0 from timestep 0, or to the first one
        plain = not config["set_alpha_to_one"] or not config["steps_offset"]
    else:  # in a last step from a timestep above 0 diffusers adds noise; only beta~ is 0 there
        variance = config.get("variance_type")
        large = variance == "fixed_large" and not config["steps_offset"]
        learned = variance == "learned_range" and not config["steps_offset"]
        plain = kind == "DDPMScheduler" and (variance == "fixed_small" or large or learned)
    # Where DDIM thresholds here, it also computes eps anew.
    unlike = kind != "DDPMScheduler" or config["sample_max_value"] < 1
    thresholds = config.get("thresholding") and unlike
    odd = thresholds or config.get("rescale_betas_zero_snr")
    return plain and not odd and config["timestep_spacing"] == "leading"


def scheduler_of(config: RunConfig, unused_offset: int = 0) -> Any:
    """Return diffusers' scheduler for a run's noise schedule and sampler.

    Args:
        config: Settings of the run.
        unused_offset: steps_offset to write if the spacing is not "leading", where it has no
            effect.

    Returns:
        The scheduler; a DDIMScheduler if the sampler has no counterpart in diffusers.

    Raises:
        UserError: A scheduler of diffusers would make other images with these settings.
    """
    settings, sampler = config.settings, config.sampler
    assert isinstance(settings, DenoisingConfig)
    chosen = sampler.config.model_dump()
    if sampler.name == "scheduler":
        schedule = schedule_of(settings)
        assert isinstance(schedule, DiscreteSchedule)
        return native_scheduler(
            chosen["scheduler"], chosen["options"], schedule, settings.prediction
        )
    name = sampler.name if sampler.name in SCHEDULERS else "ddim"
    more: dict[str, Any] = {}
    if name in ("ddim", "pndm"):
        more["set_alpha_to_one"] = chosen.get("end") != "first"
    if name in ("ddim", "ddpm"):
        more |= clipping(chosen.get("clip"))
        if chosen.get("threshold") is not None:
            more |= _thresholding(name, chosen["threshold"], chosen["threshold_cap"])
    if name == "ddpm":
        _check_last_step(chosen, settings.timesteps)
        more["variance_type"] = VARIANCES[chosen["variance"]]
    if name == "pndm":
        more["skip_prk_steps"] = True
    kind: Any = getattr(diffusers, SCHEDULERS[name])
    spacing = chosen.get("spacing", "trailing")  # samplers without a counterpart may have none
    offset = chosen["steps_offset"] if spacing == "leading" else unused_offset
    return kind(
        num_train_timesteps=settings.timesteps,
        prediction_type=PREDICTION_TYPES[settings.prediction],
        timestep_spacing=spacing, steps_offset=offset, **_betas(settings), **more,
    )  # fmt: skip


def _thresholding(name: str, share: float, cap: float | None) -> dict[str, Any]:
    """Return the settings of diffusers' DDPMScheduler that threshold predictions of x_0."""
    if name != "ddpm":
        raise UserError(
            "diffusers' DDIMScheduler does not compute eps anew from a thresholded x_0: this run "
            "cannot be exported; with sampler.threshold=null it can"
        )
    most = MOST_BOUND if cap is None else cap
    return {"thresholding": True, "dynamic_thresholding_ratio": share, "sample_max_value": most}


def _check_last_step(sampler: Mapping[str, Any], timesteps: int) -> None:
    """Raise UserError if diffusers adds noise to the image that is sampled with `ddpm`."""
    steps = sampler["steps"] or timesteps
    above = {"leading": sampler["steps_offset"] > 0, "trailing": steps < timesteps}
    variance = sampler["variance"]
    if variance != "beta~" and above.get(sampler["spacing"], False):
        raise UserError(
            f"diffusers' DDPMScheduler with the variance {variance} adds noise in a last step from "
            "a timestep above 0: this run cannot be exported; with sampler.variance=beta~ it can"
        )


def _betas(settings: DenoisingConfig) -> dict[str, Any]:
    schedule = schedule_of(settings)
    assert isinstance(schedule, DiscreteSchedule)
    if not settings.trained_betas and settings.schedule in NAMED:
        scale = 1000 / settings.timesteps
        start, end = (scale * beta for beta in NAMED[settings.schedule])
        return {"beta_schedule": settings.schedule, "beta_start": start, "beta_end": end}
    return {"trained_betas": schedule.betas.tolist()}
