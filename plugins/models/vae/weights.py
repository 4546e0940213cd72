"""Import of VDVAE's weights, as openai/vdvae saves and releases them (`*-model-ema.th`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.legacy import (
    read_legacy,
    renamed,
    side,
    state_dict,
    without_prefix,
)
from t2i.plugins.models.vae.config import VAEConfig
from t2i.plugins.models.vae.networks import VAEGenerator

RULES = (
    (r"^encoder\.in_conv\.", "network.encoder.stem."),
    (r"^encoder\.enc_blocks\.", "network.encoder.blocks."),
    (r"^decoder\.dec_blocks\.(\d+)\.enc\.", r"network.blocks.\1.posterior."),
    (r"^decoder\.dec_blocks\.(\d+)\.z_proj\.", r"network.blocks.\1.project."),
    (r"^decoder\.dec_blocks\.", "network.blocks."),
    (r"^decoder\.out_net\.out_conv\.", "output.parameters_of."),
    (r"^decoder\.(gain|bias)$", r"network.\1"),
    (r"^decoder\.bias_xs\.", "network.biases."),
)
"""Rules that turn names in the authors' weights into ours. Biases are numbered there, and named by
their size here (`sized`)."""

FIRST_BIAS = "decoder.bias_xs.0"


def sized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the biases of the maps by their sizes.

    Args:
        state: The authors' state dict.

    Returns:
        The state dict; "decoder.bias_xs.1" of 4x4 places has become "decoder.bias_xs.4".
    """
    return {
        f"decoder.bias_xs.{tensor.shape[-1]}"
        if name.startswith("decoder.bias_xs.") and tensor.dim() == 4
        else name: tensor
        for name, tensor in state.items()
    }


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from a checkpoint of the authors' code (`t2i import`).

    Its blocks are those of the preset; its width, latents and mixtures are read off the file. The
    authors' networks read no text, so that the model samples without text.

    Args:
        config: The run's configuration.
        files: The checkpoint, exactly one file.

    Returns:
        The model.

    Raises:
        UserError: There is not exactly one file, it is no such checkpoint, or it belongs to another
            preset.
    """
    if len(files) != 1:
        raise UserError(f"vae: one *-model-ema.th of openai/vdvae is expected; {len(files)} given")
    where = str(files[0])
    state = without_prefix(state_dict(read_legacy(files[0]), where), "module.")
    settings = config.settings
    assert isinstance(settings, VAEConfig)
    if settings.network != "deep" or settings.autoencoder is not None:
        raise UserError("vae: these weights are those of network=deep on pixels: --preset deep")
    width = side(state, FIRST_BIAS, where, axis=1)
    latents = side(state, "decoder.dec_blocks.0.z_proj.weight", where, axis=1)
    mixtures = side(state, "decoder.out_net.out_conv.weight", where) // 10
    deep = settings.deep.model_copy(update={"width": width, "z": latents})
    settings = settings.model_copy(update={"deep": deep, "mixtures": mixtures, "output": "mixture"})
    encoder = registry().encoders.choose("none", {})
    model = build(replace(config, settings=settings, encoder=encoder))
    generator = model.generator
    assert isinstance(generator, VAEGenerator)
    ours = renamed(sized(state), RULES)
    text = {
        name: torch.zeros_like(tensor)
        for name, tensor in generator.state_dict().items()
        if name.startswith(("network.sentences.", "network.grids."))
    }
    load_state(generator, {**text, **ours}, f"weights {where} (preset '{config.preset}')")
    return model
