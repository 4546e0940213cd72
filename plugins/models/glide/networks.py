"""The networks of GLIDE: a text transformer, a U-Net for small images, and an upsampler.

Source: Nichol et al. 2022, sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.core.families.cascade import KNOWN
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.cascades.networks import (
    CascadeOf,
    PixelPartGenerator,
    UpsamplerGenerator,
)
from t2i.plugins.common.diffusion.adm.unet import AdmUNet
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.models.glide.config import GlideBase, GlideConfig, GlideUpsampler
from t2i.plugins.models.glide.transformer import TextTransformer

CAPTION = "caption embedding"  # name of the projected last place in the text's extras


class GlideUNet(nn.Module):
    """ADM's U-Net, whose attention also reads all places of a text transformer.

    The transformer's last place, projected, joins the timestep embedding.

    Args:
        config: Settings of the part, with `adm`.
    """

    def __init__(self, config: GlideBase | GlideUpsampler) -> None:
        super().__init__()
        assert config.adm is not None
        images = 2 if isinstance(config, GlideUpsampler) else 1
        inputs = config.channels * images
        if config.inpainting:
            inputs += config.channels + 1
        out = 2 * config.channels if config.learned_range else config.channels
        self.step = config.adm.step
        self.unet = AdmUNet(config.adm, inputs, out, config.image_size)
        self.inpainting, self.channels = config.inpainting, config.channels
        self.transformer_proj = nn.Linear(config.transformer.width, config.adm.embedding_width)

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Project the caption's vector.

        Args:
            text: Features of B captions, as the transformer returned them.

        Returns:
            The text, with the projection among its extras.
        """
        projected = self.transformer_proj(text.sentence)
        return replace(text, extras={**text.extras, CAPTION: projected})

    def forward(self, x: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute the network's output.

        Args:
            x: x_t, and for the upsampler the enlarged image, float (B, C, h, w). A network for
                inpainting is given what the extra `KNOWN` says between them; without it, that
                nothing is known.
            t: Timesteps, (B,).
            text: Conditioned captions.

        Returns:
            The output, float (B, C', h, w).
        """
        if self.inpainting:
            known = text.extras.get(KNOWN)
            if known is None:
                known = x.new_zeros(len(x), self.channels + 1, *x.shape[2:])
            x = torch.cat([x[:, : self.channels], known.to(x.dtype), x[:, self.channels :]], 1)
        output: Tensor = self.unet(x, t, conditioned(text, CAPTION), text.words.mT)
        return output


class GlideBaseGenerator(PixelPartGenerator):
    """eps_theta(x_t, t, y) on small images, with a text transformer of its own.

    Args:
        config: Settings of the part.
        text: Widths of the text encoder's features.
        assets: Folder of the part's saved files. None: a new part.
    """

    def __init__(self, config: GlideBase, text: TextShape, assets: Path | None = None) -> None:
        transformer = TextTransformer(config.transformer, text)
        unet = GlideUNet(config) if config.adm else None
        super().__init__(config, transformer.shape, assets, unet)
        self.transformer, self.learned_range = transformer, config.learned_range

    def condition(self, text: TextFeatures) -> TextFeatures:
        return super().condition(self.transformer(text))

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output = super().forward(x_t, t, text)
        return output.chunk(2, 1)[0] if self.learned_range else output

    def ranged(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        prediction, v = super().forward(x_t, t, text).chunk(2, 1)
        return prediction, v


class GlideUpsamplerGenerator(UpsamplerGenerator):
    """eps_theta(x_t, t, y, z) on enlarged images, with a text transformer of its own.

    Args:
        config: Settings of the part.
        text: Widths of the text encoder's features.
        assets: Folder of the part's saved files. None: a new part.
    """

    def __init__(self, config: GlideUpsampler, text: TextShape, assets: Path | None = None) -> None:
        transformer = TextTransformer(config.transformer, text)
        unet = GlideUNet(config) if config.adm else None
        super().__init__(config, transformer.shape, assets, unet)
        self.transformer, self.told = transformer, unet is None

    def condition(self, text: TextFeatures) -> TextFeatures:
        return super().condition(self.transformer(text))


class GlideGenerator(CascadeOf):
    """GLIDE: a base network draws small images, and an upsampler enlarges them.

    Args:
        config: The model's settings.
        text: Widths of the text encoder's features.
        assets: Folder of a saved model's files. None: a new one.
    """

    def __init__(self, config: GlideConfig, text: TextShape, assets: Path | None = None) -> None:
        folders = {name: assets and assets / name for name in ("base", "upsampler")}
        super().__init__(
            {
                "base": GlideBaseGenerator(config.base, text, folders["base"]),
                "upsampler": GlideUpsamplerGenerator(config.upsampler, text, folders["upsampler"]),
            }
        )
