"""diffusers' schedulers with their own timesteps and settings, on a model's noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
from torch import Tensor

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

FLOW = ("FlowMatchEulerDiscreteScheduler",)
"""Schedulers that can be used on the straight path x_t = (1 - t) x_0 + t eps."""

UNREAD = ("invert_sigmas", "use_dynamic_shifting")
"""Options of `FLOW` that pipelines of other models have: the path backwards, and one for each size.
"""

WITHOUT_SAMPLE = ("PNDMScheduler", *SCALED)
"""Schedulers that accept no prediction of x_0."""


def options_of(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a scheduler's configuration.

    Args:
        name: Class of the scheduler, one of `NATIVE` or `FLOW`.
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


def unknown_settings(
    config: Mapping[str, Any], names: Sequence[str] = (*NATIVE, *FLOW)
) -> dict[str, Any]:
    """Return the settings in a configuration that no scheduler here has.

    Folders often have settings of other schedulers than their own, which diffusers ignores.

    Args:
        config: The configuration, as scheduler_config.json has it.
        names: Classes of the schedulers that are meant.

    Returns:
        The settings, without None, False, and names that begin with "_".
    """
    known = {
        key for name in names for key in inspect.signature(getattr(diffusers, name)).parameters
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
    _check_known(name, kind, options)
    asked = AS[prediction]
    asked = "epsilon" if asked == "sample" and name in WITHOUT_SAMPLE else asked
    try:
        return kind(
            num_train_timesteps=len(schedule), trained_betas=schedule.betas.tolist(),
            prediction_type=PREDICTION_TYPES[asked], **options,
        )  # fmt: skip
    except Exception as error:  # schedulers check their settings in ways of their own
        raise UserError(f"options of {name}: {in_one_line(error)}") from None


def flow_scheduler(name: str, options: Mapping[str, Any]) -> Any:
    """Build a scheduler of diffusers for the straight path of flow matching.

    Args:
        name: Class of the scheduler.
        options: Its settings besides the number of timesteps, which is 1000.

    Returns:
        The scheduler, before `set_timesteps`. Its timesteps are 1000 t.

    Raises:
        UserError: The class is none of `FLOW`, or an option is unknown, wrong, or of other models.
    """
    if name not in FLOW:
        raise UserError(
            f"scheduler = {name}: this model's noise levels are continuous; the schedulers that "
            f"can be used are {', '.join(FLOW)}; or use another sampler, such as ddim"
        )
    _check_known(name, FlowEuler, options)
    for option in UNREAD:
        if options.get(option):
            raise UserError(f"options.{option} = {options[option]}: no model here does this")
    try:
        scheduler: Any = FlowEuler
        return scheduler(**options)
    except Exception as error:  # schedulers check their settings in ways of their own
        raise UserError(f"options of {name}: {in_one_line(error)}") from None


class FlowEuler(diffusers.FlowMatchEulerDiscreteScheduler):
    """diffusers' Euler steps of flow matching, with the methods that its other schedulers have.

    Attributes:
        init_noise_sigma: Standard deviation of the noise that a chain starts from.
    """

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Return the network's input, which is the sample itself.

        Args:
            sample: x_t, float (B, ...).
            timestep: Not used.

        Returns:
            x_t.
        """
        return sample

    def add_noise(self, x_0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Compute x_t = (1 - t) x_0 + t eps at the chain's present step.

        Args:
            x_0: Clean images or latents, float (B, ...).
            noise: eps, float (B, ...).
            timesteps: The timestep, float (1,).

        Returns:
            x_t, float (B, ...).
        """
        of_diffusers: Any = super()
        noised: Tensor = of_diffusers.scale_noise(x_0, timesteps, noise)
        return noised


def _check_known(name: str, kind: Any, options: Mapping[str, Any]) -> None:
    """Raise UserError if a scheduler has no such options."""
    known = set(inspect.signature(kind.__init__).parameters) - {"self", *SCHEDULE}
    for option in options:
        if option not in known:
            raise UserError(f"options.{option}: {name} has no such option; it has "
                            f"{', '.join(sorted(known))}")  # fmt: skip
