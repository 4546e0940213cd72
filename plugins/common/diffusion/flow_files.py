"""Conversion between scheduler_config.json of flow matching and settings of the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers

from t2i.core.errors import UserError, in_one_line
from t2i.core.families.schedule import THOUSAND
from t2i.core.io.json_files import read_object
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.native import FLOW, UNREAD, options_of
from t2i.plugins.common.diffusion.scheduler_files import GUIDANCE, check_known, check_settings

PATH = {"schedule": "mixing", "prediction": "velocity"}
"""Settings of `DenoisingConfig` for models of flow matching."""


def flow_section(folder: Path, name: str, steps: int, guidance: float) -> dict[str, Any]:
    """Read the scheduler of a folder as settings of the sampler.

    Args:
        folder: Folder with a scheduler_config.json.
        name: Class of the scheduler, as the pipeline's model_index.json names it.
        steps: The pipeline's number of steps.
        guidance: The pipeline's scale of guidance, if the folder has none that t2i wrote.

    Returns:
        The section: the sampler's name and its settings.

    Raises:
        UserError: There is no such file, or no sampler here can do what the scheduler does.
    """
    path = folder / "scheduler_config.json"
    config = read_object(path, f"folder {folder}")
    _check(name, config, str(path))
    return {
        "name": "scheduler",
        "steps": steps,
        "guidance": config.get(GUIDANCE) or guidance,
        "scheduler": name,
        "options": options_of(name, config),
    }


def flow_scheduler_of(run: RunConfig) -> Any:
    """Return diffusers' scheduler for a run's sampler.

    Args:
        run: Settings of the run.

    Returns:
        The scheduler.

    Raises:
        UserError: The sampler has no scheduler of flow matching.
    """
    chosen = run.sampler.config.model_dump()
    if run.sampler.name != "scheduler" or chosen["scheduler"] not in FLOW:
        raise UserError(
            f"sampler.name={run.sampler.name}: diffusers' pipelines of flow matching have the "
            f"schedulers {', '.join(FLOW)}: with sampler.name=scheduler this run can be exported"
        )
    return getattr(diffusers, chosen["scheduler"])(**chosen["options"])


def _check(name: str, config: Mapping[str, Any], where: str) -> None:
    """Raise UserError if no sampler here can do what a scheduler does."""
    if name not in FLOW:
        raise UserError(
            f"{where}: its scheduler is {name}, whose images no sampler here makes with a model of "
            f"flow matching; those that can be used are {', '.join(FLOW)}"
        )
    check_known(config, where)
    kind: Any = getattr(diffusers, name)
    check_settings(kind, config, where)
    steps = config.get("num_train_timesteps", THOUSAND)
    if steps != THOUSAND:
        raise UserError(f"{where}: num_train_timesteps = {steps}: {THOUSAND} is expected")
    for key in UNREAD:
        if config.get(key):
            raise UserError(f"{where}: {key} = {config[key]}: no model here does this")
    try:
        kind.from_config(dict(config))
    except Exception as error:  # schedulers check their settings in ways of their own
        raise UserError(f"{where}: {name} cannot be built ({in_one_line(error)})") from None
