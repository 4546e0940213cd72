"""Import of the weights that AttnGAN's authors released (`t2i import`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.gan.trees.weights import load_matched, network_state
from t2i.plugins.models.attngan.networks import build

OWN = ((r"\.att\.conv_context\.", ".attention.project."),)


def translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the authors' generator.

    Args:
        state: State dict of their G_NET, with or without the prefix "module.".

    Returns:
        The state dict of `Network`.

    Raises:
        UserError: Two tensors end under one name.
    """
    return {
        name: t.flatten(1) if name.endswith("attention.project.weight") else t
        for name, t in network_state(state, OWN).items()
    }


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from the authors' files (`t2i import`).

    Args:
        config: The run's configuration.
        files: Generator, text encoder, captions.pickle and optionally the image encoder, in any
            order (see `load_matched`).

    Returns:
        The model.

    Raises:
        UserError: A file is missing, is given twice, is none of these, or does not fit the preset.
    """
    return load_matched(config, files, build, translated, "netG*.pth or *_AttnGAN2.pth")
