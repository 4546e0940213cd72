"""Networks of GAN-CLS: a deep convolutional GAN that takes sentences.

Source: Reed et al. 2016, figure 2, with the residual blocks of the authors' code.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.conditioning.standardise import sentence_input
from t2i.plugins.models.gancls.config import START, GANCLSConfig


def widths(base: int, image_size: int) -> list[int]:
    """Return the channels at each size, from half the image's size down to 4x4.

    Args:
        base: Base width.
        image_size: Side of the images in pixels.

    Returns:
        base * min(2^i, 8) for each size.
    """
    return [base * min(2**i, 8) for i in range((image_size // START).bit_length() - 1)]


class TextMap(nn.Sequential):
    """The sentence as a network takes it: a linear map, batch norm if wanted, leaky ReLU.

    Args:
        sentence: Width D of a sentence vector.
        nt: Width of the result.
        norm: Whether there is a batch norm.
        standardise: Whether sentences are standardised before the map.
    """

    def __init__(self, sentence: int, nt: int, norm: bool, standardise: bool) -> None:
        super().__init__(
            sentence_input(sentence, standardise),
            nn.Linear(sentence, nt),
            nn.BatchNorm1d(nt) if norm else nn.Identity(),
            nn.LeakyReLU(0.2, inplace=True),
        )


class Residual(nn.Module):
    """x + three convolutions of x: 1x1 to a quarter of the channels, 3x3, 3x3 back to all.

    Args:
        c: Channels of the input and of the output.
        slope: Slope of the activation below 0: 0 in the generator, 0.2 in the discriminator.
    """

    def __init__(self, c: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.conv1 = nn.Conv2d(c, c // 4, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c // 4)
        self.conv2 = nn.Conv2d(c // 4, c // 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c // 4)
        self.conv3 = nn.Conv2d(c // 4, c, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, c, h, w).

        Returns:
            Features of the same shape.
        """
        h = F.leaky_relu(self.norm1(self.conv1(x)), self.slope)
        h = F.leaky_relu(self.norm2(self.conv2(h)), self.slope)
        y: Tensor = x + self.norm3(self.conv3(h))
        return y


class GANCLSGenerator(OneShotGenerator):
    """G, the generator: [z; text] as a 4x4 map, then transposed convolutions to the image.

    Args:
        config: The model's settings.
        sentence: Width D of a sentence vector.
    """

    def __init__(self, config: GANCLSConfig, sentence: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.noise_shape = (config.z_dim,)
        channels = widths(config.ngf, config.image_size)[::-1]
        self.text = TextMap(sentence, config.nt, config.norm_text == "both", config.standardise)
        self.start = nn.ConvTranspose2d(config.z_dim + config.nt, channels[0], START, bias=False)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(*pair, 4, stride=2, padding=1, bias=False)
            for pair in pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels)
        self.residuals = nn.ModuleList(
            Residual(c, slope=0.0) for c in channels[: 2 if config.residuals else 0]
        )
        self.to_rgb = nn.ConvTranspose2d(channels[-1], 3, 4, stride=2, padding=1)
        initialise(self)
        # The authors set biases to 0 before each evaluation. Only an imported file has another one:
        # what its last step added.
        assert self.to_rgb.bias is not None
        self.to_rgb.bias.requires_grad_(False)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        x = torch.cat([noise, self.text(text.sentence)], dim=1)[..., None, None]
        for i, norm in enumerate(self.norms):
            x = norm(self.ups[i - 1](x) if i else self.start(x))
            x = F.relu(self.residuals[i](x) if i < len(self.residuals) else x)
        return torch.tanh(self.to_rgb(x))


class Discriminator(nn.Module):
    """D, the discriminator without its output. Its features do not depend on the text.

    Args:
        config: The model's settings.

    Attributes:
        width: Channels of the features.
    """

    def __init__(self, config: GANCLSConfig) -> None:
        super().__init__()
        channels = [3 * config.pack, *widths(config.ndf, config.image_size)]
        self.width, last = channels[-1], len(channels) - 2
        layers: list[nn.Module] = []
        for i, pair in enumerate(pairwise(channels)):
            layers.append(nn.Conv2d(*pair, 4, stride=2, padding=1, bias=False))
            if i:
                layers.append(nn.BatchNorm2d(pair[1]))
            if i == last and config.residuals:
                layers.append(Residual(pair[1], slope=0.2))
            if not (i == last - 1 and i and config.bare_third):
                layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], or packs of m of them, float (B, 3 m, H, H).

        Returns:
            Features, float (B, width, 4, 4).
        """
        features: Tensor = self.layers(images)
        return features


class PairHead(nn.Module):
    """The discriminator's output: a logit of image and sentence.

    Args:
        config: The model's settings.
        width: Channels of the features of images.
        sentence: Width D of a sentence vector.
    """

    def __init__(self, config: GANCLSConfig, width: int, sentence: int) -> None:
        super().__init__()
        norm = config.norm_text != "none"
        self.text = TextMap(config.pack * sentence, config.nt, norm, config.standardise)
        self.joint = (
            nn.Sequential(
                nn.Conv2d(width + config.nt, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2, inplace=True),
            )
            if config.joint
            else nn.Identity()
        )
        self.score = nn.Conv2d(width if config.joint else width + config.nt, 1, START, bias=False)
        initialise(self)

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Score images with sentences.

        Args:
            features: Features of the images, float (B, width, 4, 4).
            sentence: Sentence vectors, float (B, D). Of packs of m images, (B, m D).

        Returns:
            Logits, float (B,). High logits mean "real, and matching the sentence".
        """
        t = self.text(sentence)[..., None, None].expand(-1, -1, START, START)
        logits: Tensor = self.score(self.joint(torch.cat([features, t], dim=1))).flatten()
        return logits


def initialise(module: nn.Module) -> None:
    """Initialise as the authors do: convolutions N(0, 0.02), batch norm's gains N(1, 0.02).

    Biases of both are 0. Linear layers keep their usual initial weights.

    Args:
        module: A network.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.affine:
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)


def build(config: GANCLSConfig, text: TextShape, assets: Path | None) -> GANCLSGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features. Only the sentence is used.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return GANCLSGenerator(config, text.sentence)
