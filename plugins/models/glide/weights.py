"""Import of GLIDE's released weights: base.pt and upsample.pt, or those for inpainting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.legacy import read_legacy, side, state_dict
from t2i.plugins.models.glide.config import GlideConfig

KINDS = {3: ("base", False), 6: ("upsampler", False), 7: ("base", True), 10: ("upsampler", True)}
"""Part, and whether it is for inpainting, by the channels that a network reads."""

TRANSFORMER = ("token_embedding.", "positional_embedding", "padding_embedding", "final_ln.")
"""First parts of names of the transformer's tensors, besides its blocks."""

BLOCKS = "transformer.resblocks."
"""First part of the names of its blocks' tensors."""


def named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors of a released file as a part of the model does.

    Args:
        state: A released file's tensors by name.

    Returns:
        The tensors by the names of `GlideBaseGenerator` and `GlideUpsamplerGenerator`.
    """

    def name(key: str) -> str:
        if key.startswith(BLOCKS):
            return key
        if key.startswith(TRANSFORMER):
            return f"transformer.{key}"
        return f"unet.{key}" if key.startswith("transformer_proj.") else f"unet.unet.{key}"

    return {name(key): tensor for key, tensor in state.items()}


def load_weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model with released weights (`t2i import`).

    Args:
        config: The run's configuration, of the preset `filtered`.
        files: The base network's and the upsampler's file, in any order.

    Returns:
        The model.

    Raises:
        UserError: The files are not one of each, or do not fit the settings.
    """
    assert isinstance(config.settings, GlideConfig)
    states: dict[str, dict[str, Tensor]] = {}
    where: dict[str, str] = {}
    document = config.dump()
    for path in files:
        state = state_dict(read_legacy(path), str(path))
        inward = side(state, "input_blocks.0.0.weight", str(path), 1)
        if inward not in KINDS:
            raise UserError(f"weights {path}: its network reads {inward} channels; none of GLIDE's")
        part, inpainting = KINDS[inward]
        if part in states:
            raise UserError(f"weights: {where[part]} and {path} are both of the part {part}")
        states[part], where[part] = dict(state), str(path)
        document[part] = {**document[part], "inpainting": inpainting}
    lacking = [part for part in ("base", "upsampler") if part not in states]
    if lacking:
        raise UserError(
            f"glide: no file of the part {lacking[0]} is given: t2i import --model glide --preset "
            "filtered base.pt upsample.pt"
        )
    model = build(RunConfig.parse({**document, "data": {"name": "none"}}, "weights"))
    for part, state in states.items():
        network = model.generator.get_submodule(f"parts.{part}")
        load_state(network, named(state), f"weights {where[part]}")
    return model
