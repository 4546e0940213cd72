"""Settings of AttnGAN."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from t2i.core.settings import Preset
from t2i.plugins.common.gan.config import QUICK, SHAPES_TEXT, quick_batch
from t2i.plugins.common.gan.trees.config import MatchedTreeConfig
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
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": Preset(_CUB, data=("cub", {}), encoder=("damsm", {"max_words": 18})),
            "coco": Preset(_COCO, data=("coco", {}), encoder=("damsm", {"max_words": 15})),
            "shapes": Preset({**_TINY, **QUICK}, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size, "scales": 2 if size <= 64 else 3}
        if memory is None:
            gf, df = (24, 32) if size <= 32 else (16, 16) if size <= 64 else (8, 8)
            settings |= {"gf": gf, "df": df, "batch_size": quick_batch(size)}
        else:
            gf, df = (by_memory(memory, widths) for widths in ((24, 32, 40, 48), (24, 32, 48, 64)))
            settings |= {
                "gf": gf, "df": df, "residual_blocks": 2, "z_dim": 100, "c_dim": 100, "lr_g": 2e-4,
                "lr_d": 2e-4, "image_encoder": {"kind": "small", "width": 64}, "ema_decay": 0.999,
            }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1}))


_PAPER = {
    "image_size": 256,
    "augment": {"scale": 76 / 64, "flip": True},
    "ema_decay": 0.999,
    "checkpoint_every": 5000,
    "sample_every": 5000,
}
_CUB = {
    **_PAPER,
    "batch_size": 20,
    "steps": 302_000,  # 200 epochs of DAMSM, 600 of the GAN, 8,855 images
}
_COCO = {
    **_PAPER,
    "gf": 48,
    "df": 96,
    "residual_blocks": 3,
    "batch_size": 14,
    "damsm_weight": 50.0,
    "damsm": {"epochs": 100},
    "damsm_share": 0.195,
    "steps": 882_000,  # 100 epochs of DAMSM, 120 of the GAN, 82,783 images
}
_TINY = {
    "image_size": 32,
    "gf": 24,
    "df": 32,
    "scales": 2,
    "residual_blocks": 1,
    "z_dim": 32,
    "c_dim": 64,
    "batch_size": 32,
    "steps": 4000,
    "image_encoder": {"kind": "small"},
    "damsm": {"batch_size": 48, "lr": 1e-3, "lr_text": 3e-4, "epochs": 1},
    "damsm_share": 0.075,
    "damsm_weight": 0.2,
    "kl": 0.002,
    "lr_g": 2e-3,
    "lr_d": 6e-4,
    "standardise": True,
    "recalibrate": 20,
    "ema_decay": 0.998,
    "lr_schedule": "linear",
    "lr_floor": 0.1,
    "warmup": 50,
    "channels_last": True,
}
