"""Import of DDPM's weights: diffusers' folders, and files of ADM's authors."""

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
from t2i.plugins.common.diffusion.adm.conditional import AdmNetwork
from t2i.plugins.common.weights.legacy import read_legacy, side, state_dict
from t2i.plugins.models.ddpm.config import ADM, DDPMConfig
from t2i.plugins.models.ddpm.folders import open_pretrained

LABELS = "label_emb.weight"
"""Name of the table of classes in ADM's state dicts."""


def load_weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """Open a folder of diffusers, or build a model with weights of ADM's authors (`t2i import`).

    Args:
        config: The run's configuration. A folder has its own; a file is of the network of `adm`.
        files: The folder, or the file, exactly one.

    Returns:
        The model. It samples without text, or by the names of its classes.

    Raises:
        UserError: There is not exactly one path, or it is neither.
    """
    if len(files) != 1:
        raise UserError(f"ddpm: one file or folder holds the whole network, {len(files)} are given")
    if files[0].is_file():
        return _adm(config, files[0])
    model = open_pretrained(files[0], {})
    if model is None:
        raise UserError(f"{files[0]}: no folder of diffusers' DDPMPipeline or DDIMPipeline")
    return model


def _adm(config: RunConfig, path: Path) -> Model:
    """Build a model with one of the authors' files, such as 256x256_diffusion_uncond.pt."""
    settings, where = config.settings, str(path)
    assert isinstance(settings, DDPMConfig)
    if settings.adm is None:
        raise UserError(
            f"weights {where}: a file does not say how large its images are: add --preset "
            f"{' or '.join(ADM)}"
        )
    state = state_dict(read_legacy(path), where)
    _check_kind(state, where)
    classes = _classes(settings.classes, state, where)
    document = {
        **config.dump(),
        "classes": classes,
        "learned_range": side(state, "out.2.weight", where) == 2 * settings.channels,
        "data": {"name": "none"},
        "encoder": {"name": "none"},
    }
    model = build(RunConfig.parse(document, where))
    network = model.generator.get_submodule("unet")
    assert isinstance(network, AdmNetwork)
    named = {key if key == LABELS else f"unet.{key}": tensor for key, tensor in state.items()}
    load_state(network, named, f"weights {where}")
    return model


def _check_kind(state: Mapping[str, Any], where: str) -> None:
    """Raise UserError if the file is none of ADM's diffusion models."""
    if "out.2.c_proj.weight" in state:
        raise UserError(f"weights {where}: a classifier: t2i import --model guide {where}")
    inward = side(state, "input_blocks.0.0.weight", where, 1)
    if inward == 6:
        raise UserError(f"weights {where}: an upsampler, which enlarges images; it is no ddpm")
    if inward != 3:
        raise UserError(f"weights {where}: its network reads {inward} channels, not 3")


def _classes(named: tuple[str, ...], state: Mapping[str, Tensor], where: str) -> tuple[str, ...]:
    """Return the names of a network's classes: those of the settings, else their numbers."""
    count = side(state, LABELS, where) if LABELS in state else 0
    if named and len(named) != count:
        raise UserError(f"classes: {len(named)} are named, and {where} has {count}")
    return named or tuple(str(i) for i in range(count))
