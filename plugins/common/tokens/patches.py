"""The discriminator of patches.

Source: Isola et al. 2017 (pix2pix), as Esser et al. 2021 use it; the weights fit those of
CompVis/taming-transformers.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from t2i.plugins.common.tokens.tokenizer_config import DiscriminatorConfig


class PatchDiscriminator(nn.Module):
    """Convolutions that score overlapping patches of an image.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        widths = [config.channels * min(2**i, 8) for i in range(config.layers + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)
        ]  # fmt: skip
        for i, (before, after) in enumerate(itertools.pairwise(widths), 1):
            stride = 2 if i < config.layers else 1
            layers += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Score patches.

        Args:
            images: Images (B, 3, H, W).

        Returns:
            Scores (B, 1, h, w); larger is more real.
        """
        scores: Tensor = self.main(images)
        return scores


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
