"""Import of generators in the names of BigGAN's authors (github.com/ajbrock/BigGAN-PyTorch).

The files that they released are conditioned on the classes of ImageNet and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.legacy import (
    counted,
    read_legacy,
    renamed,
    side,
    state_dict,
    without_prefix,
)

LAYERS = (
    (r"^blocks\.(\d+)\.1\.theta\.", r"attention.\1.query."),
    (r"^blocks\.(\d+)\.1\.phi\.", r"attention.\1.key."),
    (r"^blocks\.(\d+)\.1\.g\.", r"attention.\1.value."),
    (r"^blocks\.(\d+)\.1\.o\.", r"attention.\1.out."),
    (r"^blocks\.(\d+)\.1\.gamma$", r"attention.\1.gamma"),
    (r"^blocks\.(\d+)\.0\.", r"blocks.\1."),
    (r"\.conv_sc\.", ".shortcut."),
    (r"\.u0$", ".u"),
)
GENERATOR = (
    *LAYERS,
    (r"\.bn(\d)\.stored_", r".norm\1.norm.running_"),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"^linear\.", "start."),
    (r"^output_layer\.0\.gain$", "norm.weight"),
    (r"^output_layer\.0\.stored_", "norm.running_"),
    (r"^output_layer\.0\.", "norm."),
    (r"^output_layer\.2\.", "to_rgb."),
)
OUTPUT = (*LAYERS, (r"^linear\.", "score."))


def generator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the authors' G.

    Their shared embedding of a class is our linear map of a one-hot sentence.

    Args:
        state: State dict of G, with or without the prefix "module.".

    Returns:
        The state dict of `BigGANGenerator`, without the counters of batch norm.

    Raises:
        UserError: Two tensors end under one name.
    """
    ours = renamed(_vectors(state), GENERATOR)
    ours["shared.weight"] = ours["shared.weight"].t()
    return ours


def discriminator_states(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Translate the authors' D.

    Args:
        state: State dict of D, with or without the prefix "module.".

    Returns:
        The state dicts of `Discriminator` and of `Projection`.

    Raises:
        UserError: Two tensors end under one name.
    """
    ours = renamed(_vectors(state), OUTPUT)
    ours["embed.weight"] = ours["embed.weight"].t()
    output = {k: v for k, v in ours.items() if k.startswith(("score.", "embed."))}
    return {k: v for k, v in ours.items() if k not in output}, output


def _vectors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out sv0, which is for logging only, and make vectors of u0 (1, out)."""
    plain = without_prefix(state, "module.")
    return {
        key: tensor[0] if key.endswith(".u0") else tensor
        for key, tensor in plain.items()
        if not key.endswith(".sv0")
    }


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model with a generator that takes sentences, in the authors' names (`t2i import`).

    Args:
        config: The run's configuration.
        files: One file, the state dict of a G of the authors' code whose shared embedding is a
            linear map of a sentence: `shared.weight` is (shared, D).

    Returns:
        The model.

    Raises:
        UserError: There is not exactly one file, it is conditioned on classes, as all files are
            that the authors released, or its tensors do not fit the settings.
    """
    if len(files) != 1:
        raise UserError(f"biggan: one file holds the generator, {len(files)} are given")
    model, where = build(config), str(files[0])
    state = without_prefix(state_dict(read_legacy(files[0]), where), "module.")
    rows, width = side(state, "shared.weight", where), side(state, "shared.weight", where, 1)
    taken = model.text_encoder.shape.sentence
    if width != taken:
        raise UserError(
            f"weights {where}: its shared embedding, 'shared.weight' ({rows}, {width}), is no map "
            f"of sentences of {taken} numbers; the authors' files are conditioned on 1,000 classes "
            "and take no text: train with 't2i train --model biggan'"
        )
    # `generator_state` expects their table, with a row for each number of a sentence.
    table = {**state, "shared.weight": state["shared.weight"].t()}
    load_state(model.generator, counted(model.generator, generator_state(table)), where)
    return model
