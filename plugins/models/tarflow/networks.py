"""The network of TarFlow: blocks of autoregressive affine flows, each a causal transformer.

Source: Zhai et al. 2024; where a setting says so, STARFlow (Gu et al. 2025).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.flow import FlowRun
from t2i.core.interfaces.recomputing import Recomputing
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MAP, MAP_SIZE, conditioned
from t2i.plugins.common.flows.generator import FlowNetwork, SpaceFlow
from t2i.plugins.models.tarflow.blocks import Block
from t2i.plugins.models.tarflow.config import TarFlowConfig


def build(config: TarFlowConfig, text: TextShape, assets: Path | None = None) -> SpaceFlow:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the autoencoder. None: it is built or loaded
            as the settings say.

    Returns:
        The generator.
    """
    generator = SpaceFlow(config, TarFlow(config, text), assets)
    generator.guides = generator.sequential = True
    return generator


class TarFlow(Recomputing, FlowNetwork):
    """Patches become tokens; blocks turn them into noise, every second one in reverse order.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: TarFlowConfig, text: TextShape) -> None:
        grid = config.side // config.patch
        # A token has several places of the map where there are few tokens.
        self.places = math.gcd(config.patch, max(1, MAP_SIZE // grid))
        super().__init__(config, text, grid * self.places, affine=False)
        self.patch, self.grid = config.patch, grid
        dims = config.channels * config.patch**2
        self.noise_shape = (config.tokens, dims)
        channels = config.text.text_map * self.places**2
        count = len(config.layers)
        self.blocks = nn.ModuleList(
            Block(
                config, dims, channels, layers, bool(i % 2),
                text if config.text_in == "all" or i == count - 1 else None,
            )
            for i, layers in enumerate(config.layers)
        )  # fmt: skip

    def patches(self, x: Tensor) -> Tensor:
        """Cut images or maps into the patches of tokens.

        Args:
            x: Values, (B, C, h, w).

        Returns:
            Patches, channel by channel, (B, N, C p^2) for squares of side p.
        """
        side = x.shape[-1] // self.grid
        return rearrange(F.pixel_unshuffle(x, side), "b d h w -> b (h w) d")

    def flow(self, x: Tensor, text: TextFeatures, run: FlowRun) -> tuple[Tensor, Tensor]:
        tokens = self.patches(x)
        total = x.new_zeros(len(x))
        given, without = self._texts(text, run)
        for block in self.blocks:
            tokens, log_det = self.through(block, tokens, given, without, run)
            total = total + log_det
        return tokens, total

    def unflow(self, noise: Tensor, text: TextFeatures, run: FlowRun) -> Tensor:
        given, without = self._texts(text, run)
        tokens = noise
        for block in reversed(self.blocks):
            assert isinstance(block, Block)
            back = block.swept if run.parallel else block.reverse
            tokens = back(tokens, given, without, run)
        return F.pixel_shuffle(rearrange(tokens, "b (h w) d -> b d h w", h=self.grid), self.patch)

    def _texts(self, text: TextFeatures, run: FlowRun) -> tuple[TextFeatures, TextFeatures | None]:
        """Return the captions and, for guidance, no captions; their map is cut into patches."""
        null = run.null if run.guidance != 1 else None
        return self._cut(text), None if null is None else self._cut(null)

    def _cut(self, text: TextFeatures) -> TextFeatures:
        if not self.has_map:
            return text
        return replace(text, extras={MAP: self.patches(conditioned(text, MAP))})
