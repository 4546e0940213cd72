"""Settings of DM-GAN."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from t2i.core.settings import Preset
from t2i.plugins.common.gan.config import QUICK, SHAPES_TEXT, TINY
from t2i.plugins.common.gan.trees.config import (
    AVERAGED_PAPER,
    MATCHED_TINY,
    MATCHED_WIDE,
    MatchedTreeConfig,
    tree_sizes,
)
from t2i.plugins.common.sizing import by_memory


class DMGANConfig(MatchedTreeConfig):
    """Settings of DM-GAN. The defaults are the authors' for CUB.

    The authors have no settings `standardise`, `recalibrate` and `kl`. README.md says what they are
    for.
    """

    gf: int = Field(64, ge=1)
    """Base width of the generator: its channels at each of the image sizes."""

    df: int = Field(32, ge=1)
    """Base width of the discriminators: the channels of their first layer."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": Preset(_CUB, data=("cub", {}), encoder=("damsm", {"max_words": 18})),
            "coco": Preset(_COCO, data=("coco", {}), encoder=("damsm", {"max_words": 12})),
            "shapes": Preset({**_TINY, **QUICK}, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size, **tree_sizes(size)}
        if memory is not None:
            gf, df = (by_memory(memory, widths) for widths in ((32, 40, 48, 64), (24, 32, 48, 64)))
            settings |= {**MATCHED_WIDE, "gf": gf, "df": df, "batch_size": TINY["batch_size"]}
        return Preset(settings, encoder=("words", {"layers": 1}))


_CUB = {
    **AVERAGED_PAPER,
    "batch_size": 10,
    "damsm_share": 0.05,
    "steps": 745_000,  # 200 epochs of DAMSM, 800 of the GAN, 8,855 images
}
_COCO = {
    **AVERAGED_PAPER,
    "residual_blocks": 3,
    "batch_size": 16,
    "damsm_weight": 50.0,
    "damsm": {"epochs": 100},
    "damsm_share": 0.143,
    "steps": 1_207_000,  # 100 epochs of DAMSM, 200 of the GAN, 82,783 images
}
# Spectral norm holds the discriminators back, so they learn faster than AttnGAN's.
_TINY = {**MATCHED_TINY, "lr_d": 1e-3}
