"""Settings of StackGAN-v2."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from t2i.core.settings import Preset
from t2i.plugins.common.gan.config import QUICK, SHAPES_TEXT, TINY
from t2i.plugins.common.gan.trees.config import (
    AVERAGED_PAPER,
    TREE_TINY,
    TreeConfig,
    tree_sizes,
)
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.text.config import TextPretraining


class StackGANv2Config(TreeConfig, TextPretraining):
    """Settings of StackGAN-v2. The defaults are the authors' for CUB.

    The authors have no settings `standardise` and `recalibrate`. README.md says what they are for.
    """

    gf: int = Field(64, ge=1)
    """Base width of the generator: its channels at the smallest image size. Each larger size has
    half as many as the one before."""

    c_dim: int = Field(128, ge=1)
    """Size of the augmented condition c^."""

    kl: float = Field(2.0, ge=0)
    """Weight of the KL term of the conditioning augmentation."""

    unconditional: float = Field(1.0, ge=0)
    """Weight u of the unconditional outputs in all losses. 0: the discriminators score pairs alone,
    and their loss is real + (fake + wrong)/2."""

    colour: float = Field(0.0, ge=0)
    """Weight alpha of the colour consistency of neighbouring scales in the generator's loss. 0, as
    the authors have it with text: it is left out. Without text they have 50."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": Preset(_CUB, data=("cub", {}), encoder=("char-cnn-rnn", {})),
            "shapes": Preset({**_TINY, **QUICK, **_LEARNT}, ("shapes", {}), SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size, **tree_sizes(size)}
        if memory is not None:
            gf, df = (by_memory(memory, widths) for widths in ((32, 48, 64, 96), (24, 32, 48, 64)))
            settings |= {
                "gf": gf, "df": df, "residual_blocks": 2, "z_dim": 100, "lr_g": 2e-4, "lr_d": 2e-4,
                "ema_decay": 0.999, "batch_size": TINY["batch_size"],
            }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1}))


# 8,855 training images in batches of 24 make 368 steps an epoch, for 600 epochs.
_CUB = {**AVERAGED_PAPER, "batch_size": 24, "steps": 600 * 368}
_TINY = {**TREE_TINY, "c_dim": 64, "text_share": 0.07, "colour": 1.0}

# With the authors' loss the discriminators win, whatever the rates. R1 and R2 bound them.
_LEARNT = {"loss": "relativistic", "critic_norm": "layer", "lr_g": 1.5e-3, "lr_d": 1e-3}
