"""Import of the weights that DM-GAN's authors released (`t2i import`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.gan.trees.weights import load_matched, network_state
from t2i.plugins.models.dmgan.networks import build

OWN = (
    (r"^(next\.\d+)\.A\.", r"\1.memory.gate_word."),
    (r"^(next\.\d+)\.B\.", r"\1.memory.gate_image."),
    (r"^(next\.\d+)\.M_r\.0\.", r"\1.memory.write_image."),
    (r"^(next\.\d+)\.M_w\.0\.", r"\1.memory.write_word."),
    (r"^(next\.\d+)\.(key|value)\.0\.", r"\1.memory.\2."),
    (r"^(next\.\d+)\.response_gate\.0\.", r"\1.memory.response."),
)


def translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the authors' generator.

    Args:
        state: State dict of their G_NET, with or without the prefix "module.".

    Returns:
        The state dict of `Network`. Their convolutions of size 1 over words are linear maps.

    Raises:
        UserError: Two tensors end under one name.
    """
    return {
        name: t.flatten(1) if ".memory." in name and t.dim() == 3 else t
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
    return load_matched(config, files, build, translated, "bird_DMGAN.pth or coco_DMGAN.pth")
