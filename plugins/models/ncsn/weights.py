"""Import of checkpoints that the authors' code wrote (ermongroup/ncsn and ermongroup/ncsnv2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.legacy import read_legacy_list, side, state_dict, without_prefix
from t2i.plugins.models.ncsn.config import Depth, NCSNConfig
from t2i.plugins.models.ncsn.networks import NCSNGenerator

LEVEL_ROWS = "normalizer.embed.weight"
"""The tensor that NCSN's checkpoints have, and NCSNv2's do not."""


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from a checkpoint of the authors' code (`t2i import`).

    It is a list: [model, optimizer] of NCSN, or [model, optimizer, epoch, step, average] of NCSNv2,
    whose averaged weights are taken. The network's size and its noise levels are those of the file.
    Such models sample without text.

    Args:
        config: The run's configuration. Its settings are completed, and its encoder becomes `none`.
        files: The checkpoint, exactly one file.

    Returns:
        The model.

    Raises:
        UserError: There is not exactly one file, it is no such checkpoint, it is of images without
            colours, or it belongs to another preset.
    """
    if len(files) != 1:
        raise UserError(
            f"ncsn: one checkpoint_*.pth of the authors is expected; {len(files)} were given"
        )
    state, sigmas = authors_state(read_legacy_list(files[0]), str(files[0]))
    settings = config.settings
    assert isinstance(settings, NCSNConfig)
    settings = fitted(settings, state, sigmas, str(files[0]))
    encoder = registry().encoders.choose("none", {})
    model = build(replace(config, settings=settings, encoder=encoder))
    assert isinstance(model.generator, NCSNGenerator)
    load_state(model.generator.network, state, f"weights {files[0]} (preset '{config.preset}')")
    return model


def authors_state(parts: Sequence[Any], where: str) -> tuple[dict[str, Tensor], Tensor | None]:
    """Take the network's weights from the parts of a checkpoint.

    Args:
        parts: The list that the file holds.
        where: Name of the file in errors.

    Returns:
        The state dict without the prefix "module.", with averaged weights where the file has them;
        and the noise levels (L,), the largest first, None in files of NCSN.

    Raises:
        UserError: It is no such list.
    """
    if not parts or not isinstance(parts[0], Mapping):
        raise UserError(
            f"weights {where}: no list [model, optimizer, ..] of the authors; is it the right file?"
        )
    state = without_prefix(state_dict(parts[0], where), "module.")
    if len(parts) > 4:
        average = without_prefix(state_dict({"average": parts[4]}, where, "average"), "module.")
        unknown = average.keys() - state.keys()
        if unknown:
            raise UserError(
                f"weights {where}: its average has '{min(unknown)[:80]}', which its model lacks"
            )
        state |= average
    return state, state.pop("sigmas", None)


def fitted(
    settings: NCSNConfig, state: Mapping[str, Tensor], sigmas: Tensor | None, where: str
) -> NCSNConfig:
    """Fit settings to a checkpoint: the network's size, and the noise levels as far as it has them.

    Args:
        settings: Settings of a preset.
        state: The network's weights.
        sigmas: The noise levels, the largest first. None: those of the settings, in the number that
            the weights have.
        where: Name of the file in errors.

    Returns:
        The settings, without text.

    Raises:
        UserError: The file does not belong to the settings.
    """
    missing = {"begin_conv.weight", "end_conv.weight", "res4.0.conv1.weight"} - state.keys()
    if missing:
        raise UserError(f"weights {where}: no RefineNet of the authors (it has no {min(missing)})")
    per_level = LEVEL_ROWS in state
    if per_level != settings.network.per_level:
        told = ("NCSN", "cifar-v1") if per_level else ("NCSNv2", "cifar-v2")
        raise UserError(f"weights {where}: a checkpoint of {told[0]}: use --preset {told[1]}")
    channels = side(state, "end_conv.weight", where)
    if channels != 3:
        raise UserError(
            f"weights {where}: it makes images of {channels} channel(s); only three are supported"
        )
    depth: Depth = "plain" if "res5.0.conv1.weight" not in state else "deeper"
    if "res31.0.conv1.weight" in state:
        depth = "deepest"
    ngf = side(state, "begin_conv.weight", where)
    network = {"ngf": ngf, "depth": depth, "per_level": per_level}
    own = {**settings.model_dump(), "network": network, "patch": 1, "scaled_input": False}
    if per_level and sigmas is None:
        own["levels"] = side(state, LEVEL_ROWS, where)
    elif sigmas is None:
        raise UserError(f"weights {where}: it has no noise levels 'sigmas'; is it whole?")
    else:
        own |= _levels(sigmas.double(), where)
    return NCSNConfig.of(own, where)


def _levels(sigmas: Tensor, where: str) -> dict[str, Any]:
    """Return the settings of a geometric sequence of noise levels."""
    count = len(sigmas) if sigmas.dim() == 1 else 0
    ladder = torch.linspace(0, 1, count, dtype=torch.float64)
    geometric = count > 1 and torch.allclose(
        sigmas, sigmas[0] * (sigmas[-1] / sigmas[0]) ** ladder, rtol=1e-4
    )
    if not geometric:
        raise UserError(f"weights {where}: its noise levels are no geometric sequence")
    first, last = float(sigmas[0]), float(sigmas[-1])
    return {"sigma_begin": first, "sigma_end": last, "levels": count}
