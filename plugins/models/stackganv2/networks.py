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
from t2i.plugins.common.gan.trees.blocks import residual_blocks, tiled, up
from t2i.plugins.common.gan.trees.generator import Tree, TreeGenerator
from t2i.plugins.models.stackganv2.config import StackGANv2Config


class JointConv(nn.Conv2d):
    """A 3x3 convolution without bias of [c repeated at each position; h].

    A convolution of what is the same everywhere gives nine different values: four corners, four
    edges and the inside. They are those of a 3x3 map. So c costs the same whatever the size of h.

    Args:
        c: Size of c.
        channels: Channels of h.
        c_out: Channels of the result.
    """

    def __init__(self, c: int, channels: int, c_out: int) -> None:
        super().__init__(c + channels, c_out, 3, padding=1, bias=False)
        self.c = c

    def forward(self, c: Tensor, h: Tensor) -> Tensor:
        """Convolve.

        Args:
            c: Vectors, float (B, c).
            h: The map, float (B, channels, S, S), S of at least 3.

        Returns:
            The map, float (B, c_out, S, S).
        """
        nine = F.conv2d(tiled(c, 3), self.weight[:, : self.c], padding=1)
        inside = h.shape[-1] - 2
        for axis in (2, 3):
            first, middle, last = nine.split(1, dim=axis)
            middle = middle.expand(*(inside if i == axis else -1 for i in range(4)))
            nine = torch.cat([first, middle, last], dim=axis)
        return nine + F.conv2d(h, self.weight[:, self.c :], padding=1)


class NextStage(nn.Module):
    """F_i, a later stage: c^ and features joined, residual blocks, upsampling to twice the size.

    Args:
        config: The model's settings.
        channels: Channels C of h_{i-1}.
    """

    def __init__(self, config: StackGANv2Config, channels: int) -> None:
        super().__init__()
        self.joint = nn.ModuleList(
            [JointConv(config.c_dim, channels, 2 * channels), nn.BatchNorm2d(2 * channels)]
        )
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
        join, norm = self.joint
        h_next: Tensor = self.up(self.residual(F.glu(norm(join(c, h)), dim=1)))
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
