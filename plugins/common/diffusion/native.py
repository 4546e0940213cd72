"""diffusers' schedulers with their own timesteps and settings, on a model's noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from t2i.core.errors import UserError, in_one_line
from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import DiscreteSchedule
from t2i.plugins.common.diffusion.time_grid import AS, PREDICTION_TYPES

SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
            "prediction_type")  # fmt: skip
"""Settings of a scheduler that the model gives, not its options."""

SCALED = (
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
    "LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
)  # fmt: skip
"""Schedulers that work on x_t / alpha, and scale the input of the network."""

NATIVE = (
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
    "LCMScheduler", "TCDScheduler", "SASolverScheduler", *SCALED,
)  # fmt: skip
"""Schedulers that can be used: their chains lead from noise to images, over betas."""

WITHOUT_SAMPLE = ("PNDMScheduler", *SCALED)
"""Schedulers that accept no prediction of x_0."""


def options_of(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a scheduler's configuration.

    Args:
        name: Class of the scheduler, one of `NATIVE`.
        config: Its configuration, as scheduler_config.json has it.

    Returns:
        The settings that the class knows and that are not its defaults, without the noise schedule
        and the kind of prediction. diffusers ignores settings that the class does not know.
    """
    known = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {
        key: value
        for key, value in config.items()
        if key in known and key not in SCHEDULE and value != known[key].default
    }


def unknown_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a configuration that no scheduler here has.

    Folders often have settings of other schedulers than their own, which diffusers ignores.

    Args:
        config: The configuration, as scheduler_config.json has it.

    Returns:
        The settings, without None, False, and names that begin with "_".
    """
    known = {
        key for name in NATIVE for key in inspect.signature(getattr(diffusers, name)).parameters
    }
    return {
        key: value
        for key, value in config.items()
        if key not in known and not key.startswith("_") and value not in (None, False)
    }


def native_scheduler(
    name: str, options: Mapping[str, Any], schedule: DiscreteSchedule, prediction: Prediction
) -> Any:
    """Build a scheduler of diffusers on a noise schedule.

    Args:
        name: Class of the scheduler.
        options: Its settings besides the noise schedule and the kind of prediction.
        schedule: The noise schedule.
        prediction: What the model predicts. A scheduler is given the nearest kind that it accepts.

    Returns:
        The scheduler, before `set_timesteps`.

    Raises:
        UserError: The class is none of `NATIVE`, or an option is unknown or wrong.
    """
    if name not in NATIVE:
        raise UserError(
            f"scheduler = {name}: the schedulers that can be used are {', '.join(NATIVE)}"
        )
    kind: Any = getattr(diffusers, name)
    known = set(inspect.signature(kind.__init__).parameters) - {"self", *SCHEDULE}
    for option in options:
        if option not in known:
            raise UserError(f"options.{option}: {name} has no such option; it has "
                            f"{', '.join(sorted(known))}")  # fmt: skip
    asked = AS[prediction]
    asked = "epsilon" if asked == "sample" and name in WITHOUT_SAMPLE else asked
    try:
        return kind(
            num_train_timesteps=len(schedule), trained_betas=schedule.betas.tolist(),
            prediction_type=PREDICTION_TYPES[asked], **options,
        )  # fmt: skip
    except Exception as error:  # schedulers check their settings in ways of their own
        raise UserError(f"options of {name}: {in_one_line(error)}") from None
