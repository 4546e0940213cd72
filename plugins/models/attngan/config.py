"""Settings of AttnGAN."""

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


class AttnGANConfig(MatchedTreeConfig):
    """Settings of AttnGAN. The defaults are the paper's for CUB.

    The paper has no settings `standardise`, `recalibrate` and `kl`. README.md says what they are
    for.
    """

    gf: int = Field(32, ge=1)
    """Base width of the generator: its channels at each of the image sizes."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(MATCHED_TINY, encoder=("words", {"layers": 1})),
            "cub": Preset(_CUB, data=("cub", {}), encoder=("damsm", {"max_words": 18})),
            "coco": Preset(_COCO, data=("coco", {}), encoder=("damsm", {"max_words": 15})),
            "shapes": Preset({**MATCHED_TINY, **QUICK}, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**MATCHED_TINY, "image_size": size, **tree_sizes(size)}
        if memory is not None:
            gf, df = (by_memory(memory, widths) for widths in ((24, 32, 40, 48), (24, 32, 48, 64)))
            settings |= {**MATCHED_WIDE, "gf": gf, "df": df, "batch_size": TINY["batch_size"]}
        return Preset(settings, encoder=("words", {"layers": 1}))


_CUB = {
    **AVERAGED_PAPER,
    "batch_size": 20,
    "steps": 302_000,  # 200 epochs of DAMSM, 600 of the GAN, 8,855 images
}
_COCO = {
    **AVERAGED_PAPER,
    "gf": 48,
    "df": 96,
    "residual_blocks": 3,
    "batch_size": 14,
    "damsm_weight": 50.0,
    "damsm": {"epochs": 100},
    "damsm_share": 0.195,
    "steps": 882_000,  # 100 epochs of DAMSM, 120 of the GAN, 82,783 images
}
