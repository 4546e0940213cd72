"""Import of the checkpoints that the paper's authors released (github.com/yang-song)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.legacy import read_legacy, state_dict, without_prefix
from t2i.plugins.models.scoresde.config import ScoreSDEConfig
from t2i.plugins.models.scoresde.folders import open_pretrained
from t2i.plugins.models.scoresde.networks import PaperScore

SIGMAS = "sigmas"
"""A table of theirs that networks in continuous time do not use."""
FROZEN = "all_modules.0.W"
"""The frequencies of Fourier features. They are not trained, and so not averaged."""


def weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from a checkpoint, or from a folder of diffusers (`t2i import`).

    The preset says which network the checkpoint holds, such as `cifar-ve` for
    `ve/cifar10_ncsnpp_continuous`. Its averaged weights are taken.

    Args:
        config: The configuration. The model has none of its text.
        files: The checkpoint {optimizer, model, ema, step}, or the folder; exactly one.

    Returns:
        The model, which samples without text.

    Raises:
        UserError: There is not exactly one path, it is no such file, or it does not fit the preset.
    """
    if len(files) != 1:
        raise UserError("scoresde: one checkpoint_N.pth, or one folder of diffusers, is imported")
    (path,) = files
    if path.is_dir():
        model = open_pretrained(path, {})
        if model is None:
            raise UserError(f"{path}: no folder of diffusers' ScoreSdeVePipeline")
        return model
    model = build(RunConfig.parse(_without_text(config), f"preset {config.preset}"))
    assert isinstance(model.generator, PaperScore)
    load_state(model.generator.network, averaged(read_legacy(path), str(path)), f"weights {path}")
    return model


def averaged(document: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """Return the averaged weights of a checkpoint.

    They are a list in the order of the network's trained parameters.

    Args:
        document: The checkpoint: {optimizer, model, ema, step}.
        where: Name of the file in errors.

    Returns:
        The state dict of `NCSNpp` without text.

    Raises:
        UserError: The document is no such checkpoint.
    """
    state = without_prefix(state_dict(document, where, "model"), "module.")
    state.pop(SIGMAS, None)
    fixed = FROZEN if FROZEN in state and state[FROZEN].dim() == 1 else None
    trained = [name for name in state if name != fixed]
    ema = document.get("ema")
    values = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(values, list) or not all(isinstance(value, Tensor) for value in values):
        raise UserError(f"weights {where}: it has no 'ema.shadow_params'; is it the right file?")
    shapes = [state[name].shape for name in trained]
    if shapes != [value.shape for value in values]:
        raise UserError(
            f"weights {where}: its averaged weights are not those of its network; is it whole?"
        )
    return {**state, **dict(zip(trained, values, strict=True))}


def _without_text(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as a document, without any text.

    Raises:
        UserError: The preset has another network than the authors'.
    """
    settings = config.settings
    assert isinstance(settings, ScoreSDEConfig)
    if settings.network != "ncsnpp":
        raise UserError(
            f"scoresde: the preset {config.preset} has another network than the authors'; name the "
            "preset of the checkpoint, such as --preset cifar-ve"
        )
    document = config.dump()
    document["ncsnpp"] = {**document["ncsnpp"], "sentence": False, "words": False}
    return {**document, "data": {"name": "none"}, "encoder": {"name": "none"}}
