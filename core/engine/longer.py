"""A longer budget for a run that has ended, or that was interrupted."""

from __future__ import annotations

from dataclasses import replace

from t2i.core.engine.budget import Budget
from t2i.core.engine.checkpoint import Saved
from t2i.core.engine.context import RunContext
from t2i.core.errors import UserError
from t2i.core.runs.configure import RunConfig


def with_budget(config: RunConfig, steps: int | None, minutes: float | None) -> RunConfig:
    """Change the budget of a run.

    Args:
        config: The run's configuration.
        steps: The new budget in steps, from the beginning of the run. None: not given.
        minutes: The new budget in minutes of training, from the beginning of the run. None: not
            given.

    Returns:
        The configuration with the new budget; unchanged if none is given.

    Raises:
        UserError: Both budgets are given, or the budget is not positive.
    """
    if steps is not None and minutes is not None:
        raise UserError("steps and minutes are two ways to say the budget: give one of them")
    if minutes is not None:
        return replace(config, settings=config.settings.with_(minutes=minutes))
    if steps is not None:
        return replace(config, settings=config.settings.with_(steps=steps, minutes=None))
    return config


def check_longer(context: RunContext, saved: Saved | None) -> None:
    """Check that a run can go on with the new budget.

    Args:
        context: The run, with the new budget in its settings.
        saved: The checkpoint that it goes on from; None if there is none.

    Raises:
        UserError: The run has no stages, no checkpoint to go on from, or has spent the budget.
    """
    path, settings = context.run.path, context.settings
    if not context.plans:
        raise UserError(f"{path}: model '{context.config.model}' has nothing to train")
    if saved is None and (context.run.model.exists() or context.run.metrics_file.exists()):
        raise UserError(
            f"{path} has no checkpoint that it can go on from; "
            f"'t2i train --from {path}' begins a new run with its weights"
        )
    if saved is None:
        return
    done, clock = saved.state.step, saved.state.clock / 60
    if settings.minutes is None and settings.steps <= done:
        raise UserError(
            f"{path} has {done} steps already: the new budget is a total, name more than {done}"
        )
    if settings.minutes is not None and settings.minutes <= clock:
        raise UserError(
            f"{path} has trained for {clock:.3g} minutes already: the new budget is a total, "
            "name more"
        )


def refit_warm_up(context: RunContext, saved: Saved) -> None:
    """Express the end of the warm-up, a share of the stage, in the new length of the stage.

    Args:
        context: The run, with the new budget in its settings.
        saved: The checkpoint that it goes on from; its state is changed.
    """
    state = saved.state
    warmup = context.plans[state.stage].settings.warmup
    if state.begun and 0 < warmup < state.stage_step:
        context.state = state
        state.warm = Budget(context, state.stage).progress() * warmup / state.stage_step
