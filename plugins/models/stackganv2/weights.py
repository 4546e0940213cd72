"""Import of the generator that StackGAN-v2's authors released (`t2i import`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.gan.trees.generator import TreeGenerator
from t2i.plugins.common.gan.trees.weights import MARK, network_state
from t2i.plugins.common.weights.legacy import counted, read_legacy, state_dict

OWN = ((r"\.jointConv\.", ".joint."),)


def translated(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Translate the authors' generator.

    Args:
        state: State dict of their G_NET, with or without the prefix "module.".
        path: The file, named in errors.

    Returns:
        The state dict of `Network`.

    Raises:
        UserError: It is no state dict of a generator with text, or two tensors end under one name.
    """
    if MARK not in state and f"module.{MARK}" not in state:
        hint = "give netG_*.pth of a model with text (birds)"
        raise UserError(f"weights {path}: no state dict of G_NET (it has no '{MARK}'): {hint}")
    return network_state(state, OWN)


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from the authors' file (`t2i import`).

    Args:
        config: The run's configuration.
        files: The generator's file, exactly one.

    Returns:
        The model.

    Raises:
        UserError: There is not exactly one file, it is no generator of StackGAN-v2 with text, or it
            does not fit the preset.
    """
    if len(files) != 1:
        raise UserError(
            f"stackganv2: one file of weights is expected, netG_*.pth; {len(files)} were given"
        )
    state = translated(state_dict(read_legacy(files[0]), str(files[0])), files[0])
    model = build(config)
    generator = model.generator
    assert isinstance(generator, TreeGenerator)
    what = f"weights {files[0]} (preset '{config.preset}')"
    load_state(generator.network, counted(generator.network, state), what)
    return model
