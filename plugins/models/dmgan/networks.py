"""Networks of DM-GAN: the dynamic memory and the later stages that use it.

The rest of the generator, the discriminators and DAMSM's image encoder are shared with other models
(`t2i.plugins.common.gan.trees`). Source: Zhu et al. 2019, section 3.1, figure 2.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.trees.blocks import ResidualBlock, residual_blocks, up
from t2i.plugins.common.gan.trees.generator import Tree, TreeGenerator
from t2i.plugins.models.dmgan.config import DMGANConfig


class Memory(nn.Module):
    """The dynamic memory: words are written into slots, and positions of the image read them.

    Source: Zhu et al. 2019, equations 3 to 9.

    Args:
        channels: Channels C of the image features.
        words: Width Dw of a word vector.
    """

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.gate_word = nn.Linear(words, 1, bias=False)  # A
        self.gate_image = nn.Linear(channels, 1, bias=False)  # B
        self.write_image = nn.Linear(channels, 2 * channels)  # M_r
        self.write_word = nn.Linear(words, 2 * channels)  # M_w
        self.key = nn.Linear(2 * channels, channels)
        self.value = nn.Linear(2 * channels, channels)
        self.response = nn.Conv2d(2 * channels, 1, 1)

    def write(self, h: Tensor, words: Tensor) -> Tensor:
        """Write a slot for each word. The writing gate chooses between the word and the image.

        No gradient reaches the image features.

        Args:
            h: Image features, float (B, C, S, S).
            words: Word vectors, float (B, L, Dw).

        Returns:
            The memory m, float (B, L, 2 C).
        """
        image = h.detach().mean((2, 3))[:, None]
        gate = torch.sigmoid(self.gate_word(words) + self.gate_image(image))
        word, whole = F.relu(self.write_word(words)), F.relu(self.write_image(image))
        memory: Tensor = whole + gate * (word - whole)
        return memory

    def read(self, h: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Read the memory at each position: the values, weighted by the softmax of <h, key>.

        Args:
            h: Image features, float (B, C, S, S).
            memory: The memory, float (B, L, 2 C).
            mask: Whether a word may be attended to, bool (B, L). The others get no weight.

        Returns:
            What was read, o, float (B, C, S, S).
        """
        keys, values = F.relu(self.key(memory)), F.relu(self.value(memory))
        places = h.flatten(2).transpose(1, 2)
        read = F.scaled_dot_product_attention(
            places, keys, values, attn_mask=mask[:, None], scale=1.0
        )
        return read.transpose(1, 2).reshape(h.shape)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Refine image features. The response gate chooses between them and what was read.

        Args:
            h: Image features, float (B, C, S, S).
            words: Word vectors, float (B, L, Dw).
            mask: Whether a word may be attended to, bool (B, L).

        Returns:
            Image features of the same shape.
        """
        read = self.read(h, self.write(h, words), mask)
        gate = torch.sigmoid(self.response(torch.cat([h, read], dim=1)))
        refined: Tensor = h + gate * (read - h)
        return refined


class NextStage(nn.Module):
    """F_i, a later stage: the memory, residual blocks, upsampling to twice the size.

    The residual blocks take the refined features twice, [h; h], as in the authors' code. The first
    convolution of that is a convolution of h, with the two halves of its weights added up.

    Args:
        config: The model's settings.
        words: Width of a word vector.
    """

    def __init__(self, config: DMGANConfig, words: int) -> None:
        super().__init__()
        self.memory = Memory(config.gf, words)
        self.residual = residual_blocks(2 * config.gf, config.residual_blocks)
        self.up = up(2 * config.gf, config.gf)

    def forward(self, h: Tensor, c: Tensor, text: TextFeatures) -> Tensor:
        """Compute the next hidden map.

        Args:
            h: h_{i-1}, float (B, gf, S, S).
            c: Not used.
            text: Text features of the batch. Words and mask are used.

        Returns:
            h_i, float (B, gf, 2S, 2S).
        """
        h = self.memory(h, text.words, text.mask)
        x = torch.cat([h, h], dim=1)
        for i, block in enumerate(self.residual):
            x = block(x) if i else x + of_both(block, h)
        h_next: Tensor = self.up(x)
        return h_next


def of_both(residual: nn.Module, h: Tensor) -> Tensor:
    """Return what the layers of a residual block make of [h; h], without its shortcut.

    Args:
        residual: The block, of 2 C channels.
        h: Features, float (B, C, S, S).

    Returns:
        Features, float (B, 2 C, S, S).
    """
    assert isinstance(residual, ResidualBlock)
    first, *others = residual.block
    assert isinstance(first.weight, Tensor)
    left, right = first.weight.chunk(2, dim=1)
    y: Tensor = F.conv2d(h, left + right, padding=1)
    for layer in others:
        y = layer(y)
    return y


class Network(Tree):
    """The generator's network. All scales have gf channels.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: DMGANConfig, text: TextShape) -> None:
        widths = [config.gf] * config.scales
        super().__init__(config, text, widths, lambda i: NextStage(config, text.words))


def build(config: DMGANConfig, text: TextShape, assets: Path | None) -> TreeGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return TreeGenerator(config, Network(config, text))
