"""Import of the authors' generators (hanzhanggit/StackGAN-Pytorch): state dicts of stage I, and of stage II, which
holds stage I."""

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
    # Their first layer of an up-block is the upsampling, which ours has in its convolution.
    *(
        (rf"\bupsample{n}\.{layer}\b", f"blocks.{n - 1}.{layer - 1}")
        for n in range(1, 9)
        for layer in (1, 2)
    ),
    (r"\bimg\.0\b", "to_rgb"),
)


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """The model of one of the authors' files of weights. A file of stage I gives the model of stage I alone, whose
    images are the small ones: `stages` and `image_size` of the configuration say so."""
    if len(files) != 1:
        raise UserError(
            f"stackgan: one file of weights is expected, stage I's or stage II's; {len(files)} were given"
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
    """A generator's state dict under our names, and whether it is stage II's. UserError if it is none."""
    state = renamed(state, [(r"(^|\.)module\.", r"\1")])
    if not any("ca_net." in name for name in state):
        raise UserError(
            f"weights {path}: no state dict of a StackGAN generator (it has no 'ca_net'): give netG_*.pth"
        )
    both = any(name.startswith("STAGE1_G.") for name in state)
    places = (
        [(r"^STAGE1_G\.", "first."), (r"^(?!first\.)", "second.")] if both else [(r"^", "first.")]
    )
    return renamed(state, [*places, *OWN_NAMES]), both


def of_stage_one(config: RunConfig) -> RunConfig:
    """The configuration of stage I alone, its images the model's."""
    assert isinstance(config.settings, StackGANConfig)
    document = config.dump() | {"stages": 1, "image_size": config.settings.first_size}
    document["data"] = {
        key: value for key, value in document["data"].items() if key != "image_size"
    }
    return RunConfig.parse(document, "stage I")
