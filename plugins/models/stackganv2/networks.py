"""Networks of StackGAN-v2: the later stages of its tree.

The rest of the generator and the discriminators are shared with other models
(`t2i.plugins.common.gan.trees`). Source: Zhang et al. 2018 (StackGAN++), section 3.2, figure 3.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.trees.blocks import (
    conv3x3,
    gated,
    residual_blocks,
    tiled,
    up,
)
from t2i.plugins.common.gan.trees.generator import Tree, TreeGenerator
from t2i.plugins.models.stackganv2.config import StackGANv2Config


def joined(weight: Tensor, c: Tensor, h: Tensor) -> Tensor:
    """Convolve [c repeated at each position; h] with a 3x3 kernel and padding.

    A convolution of what is the same everywhere gives nine different values: four corners, four
    edges and the inside. They are those of a 3x3 map. So c costs the same whatever the size of h.

    Args:
        weight: The kernel, float (c_out, D + C, 3, 3).
        c: Vectors, float (B, D).
        h: The map, float (B, C, S, S), S of at least 3.

    Returns:
        The map, float (B, c_out, S, S).
    """
    of_c, of_h = weight[:, : c.shape[1]], weight[:, c.shape[1] :]
    values = F.conv2d(tiled(c, 3), of_c, padding=1)
    inside = h.shape[-1] - 2
    left, middle, right = values[..., :1], values[..., 1:2], values[..., 2:]
    rows = torch.cat([left, middle.expand(-1, -1, -1, inside), right], dim=3)
    top, middle, bottom = rows[:, :, :1], rows[:, :, 1:2], rows[:, :, 2:]
    whole = torch.cat([top, middle.expand(-1, -1, inside, -1), bottom], dim=2)
    return whole + F.conv2d(h, of_h, padding=1)


class NextStage(nn.Module):
    """F_i, a later stage: c^ and features joined, residual blocks, upsampling to twice the size.

    Args:
        config: The model's settings.
        channels: Channels C of h_{i-1}.
    """

    def __init__(self, config: StackGANv2Config, channels: int) -> None:
        super().__init__()
        self.joint = nn.Sequential(*gated(conv3x3(config.c_dim + channels, 2 * channels)))
        self.residual = residual_blocks(channels, config.residual_blocks)
        self.up = up(channels, channels // 2)

    def forward(self, h: Tensor, c: Tensor, text: TextFeatures) -> Tensor:
        """Compute the next hidden map.

        Args:
            h: h_{i-1}, float (B, C, S, S).
            c: Conditions c^, float (B, c_dim).
            text: Not used.

        Returns:
            h_i, float (B, C // 2, 2S, 2S).
        """
        convolution, norm, gate = self.joint
        assert isinstance(convolution.weight, Tensor)
        h = gate(norm(joined(convolution.weight, c, h)))
        h_next: Tensor = self.up(self.residual(h))
        return h_next


class Network(Tree):
    """The generator's network. Each scale has half of the channels of the one before.

    Args:
        config: The model's settings.
        text: Widths of the text features. Only the sentence is used.
    """

    def __init__(self, config: StackGANv2Config, text: TextShape) -> None:
        widths = [config.gf >> i for i in range(config.scales)]
        super().__init__(config, text, widths, lambda i: NextStage(config, widths[i - 1]))


def build(config: StackGANv2Config, text: TextShape, assets: Path | None) -> TreeGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return TreeGenerator(config, Network(config, text))
