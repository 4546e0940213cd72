"""Import of the authors' generators (hanzhanggit/StackGAN-Pytorch).

A file is the state dict of stage I, or of stage II, which contains stage I.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.legacy import counted, read_legacy, renamed, state_dict
from t2i.plugins.models.stackgan.config import StackGANConfig
from t2i.plugins.models.stackgan.networks import StackGANGenerator

OWN_NAMES = (
    (r"\bca_net\.fc\b", "augment.linear"),
    (r"\bfc\.(?=\d)", "start."),
    (r"\bhr_joint\b", "joint"),
    (r"\bresidual\b", "residuals"),
    # Layer 0 of their up-blocks is the upsampling, which is part of our convolution.
    *(
        (rf"\bupsample{n}\.{layer}\b", f"blocks.{n - 1}.{layer - 1}")
        for n in range(1, 9)
        for layer in (1, 2)
    ),
    (r"\bimg\.0\b", "to_rgb"),
)


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from one of the authors' files (`t2i import`).

    A file of stage I gives a model of stage I alone: its `stages` is 1, and its `image_size` is the
    size of stage I's images.

    Args:
        config: The run's configuration.
        files: The file of stage I or of stage II, exactly one.

    Returns:
        The model.

    Raises:
        UserError: There is not exactly one file, it is no StackGAN generator, or it does not fit
            the preset.
    """
    if len(files) != 1:
        raise UserError(
            "stackgan: one file of weights is expected, stage I's or stage II's; "
            f"{len(files)} were given"
        )
    state, both = translated(state_dict(read_legacy(files[0]), str(files[0])), files[0])
    model = build(config if both else of_stage_one(config))
    generator = model.generator
    assert isinstance(generator, StackGANGenerator)
    state["refines"] = torch.tensor(both)
    what = f"weights {files[0]} (preset '{config.preset}')"
    load_state(generator, counted(generator, state), what)
    return model


def translated(state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], bool]:
    """Translate the authors' state dict.

    Args:
        state: Their state dict, with or without "module." in the names.
        path: The file, named in errors.

    Returns:
        The state dict of `StackGANGenerator` without `refines`, and whether it holds stage II.

    Raises:
        UserError: It is no state dict of a StackGAN generator.
    """
    state = renamed(state, [(r"(^|\.)module\.", r"\1")])
    if not any("ca_net." in name for name in state):
        raise UserError(
            f"weights {path}: no state dict of a StackGAN generator (it has no 'ca_net'): "
            "give netG_*.pth"
        )
    both = any(name.startswith("STAGE1_G.") for name in state)
    places = (
        [(r"^STAGE1_G\.", "first."), (r"^(?!first\.)", "second.")] if both else [(r"^", "first.")]
    )
    return renamed(state, [*places, *OWN_NAMES]), both


def of_stage_one(config: RunConfig) -> RunConfig:
    """Return the configuration of stage I alone.

    Args:
        config: The configuration of both stages.

    Returns:
        The same with `stages` 1 and with stage I's image size, for the data set too.
    """
    assert isinstance(config.settings, StackGANConfig)
    document = config.dump() | {"stages": 1, "image_size": config.settings.first_size}
    document["data"] = {
        key: value for key, value in document["data"].items() if key != "image_size"
    }
    return RunConfig.parse(document, "stage I")
