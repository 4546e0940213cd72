"""Import of networks that EDM's authors released, once they are converted.

The released files are pickles that carry and run source code, so they are refused here. A short
command outside t2i writes their tensors as safetensors (`CONVERT`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.io.files import check_regular
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.authors import PICKLES
from t2i.plugins.common.weights.legacy import read_legacy, side, state_dict
from t2i.plugins.models.edm.config import EDMConfig
from t2i.plugins.models.edm.networks import EDMGenerator
from t2i.plugins.models.edm.preconditioning import iddpm_levels

CONVERT = (
    "python -c \"import pickle, safetensors.torch as s; n = pickle.load(open('{0}.pkl', 'rb'))"
    "['ema'].state_dict(); s.save_file({{k: v.contiguous() for k, v in n.items()}}, "
    "'{0}.safetensors')\""
)
"""Command that converts a released file. It runs the file's code, in a clone of NVlabs/edm."""

BARE = (b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""What pickles begin with that `torch.save` did not write."""

LEVELS = "u"
"""Name of the noise levels that networks of iDDPM's preconditioning store."""

UNREAD = ("map_augment.weight",)
"""Tensors that only training reads: the labels of the augmentation are 0 in sampling."""


def load_weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model with a released network (`t2i import`).

    The network's settings are read off its tensors. Its preconditioning is not in the file: it is
    the one of the settings, except that iDDPM's is recognised. A network that reads classes is
    sampled by their names: the setting `classes`, or the numbers 0, 1, ...

    Args:
        config: The run's configuration.
        files: The converted network, exactly one file.

    Returns:
        The model, which samples without text.

    Raises:
        UserError: There is not exactly one file, it is a pickle, or it holds no such network.
    """
    if len(files) != 1:
        raise UserError(f"edm: one file holds the whole network, {len(files)} are given")
    path, settings = files[0], config.settings
    assert isinstance(settings, EDMConfig)
    _refuse_pickle(path)
    released = state_dict(read_legacy(path), str(path))
    levels = released.pop(LEVELS, None)
    state = {
        key.removeprefix("model."): tensor
        for key, tensor in released.items()
        if not key.endswith(UNREAD)
    }
    found = _settings(state, str(path))
    if levels is not None:
        _check_levels(levels, str(path))
        found["preconditioning"] = "iddpm"
    found["classes"] = _classes(settings.classes, state, str(path))
    document = {
        **config.dump(),
        **found,
        "data": {"name": "none"},
        "encoder": {"name": "none"},
    }
    model = build(RunConfig.parse(document, str(path)))
    assert isinstance(model.generator, EDMGenerator)
    load_state(model.generator.unet, state, str(path))
    return model


def _refuse_pickle(path: Path) -> None:
    """Raise UserError if a file is a bare pickle, as the released ones are."""
    check_regular(path, "weights")
    with open(path, "rb") as file:
        start = file.read(9)
    bare = start.startswith(BARE) and start[8:] != b"{"  # safetensors: a length, then JSON
    if bare or path.suffix in PICKLES:
        raise UserError(
            f"weights {path}: a pickle that runs code, which t2i does not; if you trust it, "
            f"convert it in a clone of github.com/NVlabs/edm: {CONVERT.format(path.stem)}"
        )


def _settings(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Read the settings of a network off its tensors."""
    blocks = sorted(
        {(int(size), int(i)) for name in state
         for size, i in re.findall(r"^enc\.(\d{1,6})x\d+_block(\d{1,6})\.", name)},
        reverse=True,
    )  # fmt: skip
    if not blocks or "map_layer0.weight" not in state:
        raise UserError(
            f"weights {where}: no network of EDM's code (enc.32x32_block0 ..); is it the right "
            "file?"
        )
    sizes = sorted({size for size, _ in blocks}, reverse=True)
    first = side(state, f"enc.{sizes[0]}x{sizes[0]}_conv.weight", where)
    adm = "out_conv.weight" in state
    kind = "adm" if adm else "ncsnpp" if "map_noise.freqs" in state else "ddpmpp"
    channels = side(state, "map_layer0.weight", where, 1) if adm else first
    widths = [side(state, f"enc.{size}x{size}_block0.conv0.weight", where) for size in sizes]
    attention = [size for size in sizes if f"enc.{size}x{size}_block0.qkv.weight" in state]
    return {
        "image_size": sizes[0],
        "network": {
            "kind": kind, "channels": channels,
            "multipliers": tuple(width // channels for width in widths),
            "blocks": 1 + blocks[0][1], "attention": tuple(attention),
        },
    }  # fmt: skip


def _classes(named: tuple[str, ...], state: Mapping[str, Tensor], where: str) -> tuple[str, ...]:
    """Return the names of a network's classes."""
    count = side(state, "map_label.weight", where, 1) if "map_label.weight" in state else 0
    if named and len(named) != count:
        raise UserError(f"classes: {len(named)} are named, and {where} has {count}")
    return named or tuple(str(i) for i in range(count))


def _check_levels(levels: Tensor, where: str) -> None:
    """Raise UserError if a network stores other noise levels than iDDPM's."""
    ours = iddpm_levels()
    if levels.shape != ours.shape or not torch.allclose(levels.double(), ours, rtol=1e-3):
        raise UserError(f"weights {where}: its noise levels '{LEVELS}' are not those of iDDPM")
