"""Fully connected networks of GANs: generator, and the discriminator's layers.

Source: Goodfellow et al. 2014 (the vanilla GAN); Mirza and Osindero 2014 (the conditional GAN).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.plugins.common.gan.mlp.config import MLPGANConfig

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "sigmoid": nn.Sigmoid,
}


class Maxout(nn.Module):
    """Units that are each the largest of several linear maps.

    Source: Goodfellow et al. 2013 (Maxout Networks).

    Args:
        c_in: Width of the input.
        units: Number of units.
        pieces: Linear maps of a unit. The maps of one unit are neighbours in the linear layer.
    """

    def __init__(self, c_in: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, units * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Compute the units.

        Args:
            x: Inputs, float (B, c_in).

        Returns:
            The units, float (B, units).
        """
        h: Tensor = self.linear(x)
        return h.reshape(len(x), -1, self.pieces).amax(-1)


def layer(c_in: int, c_out: int, activation: str, pieces: int = 0) -> nn.Module:
    """Build a hidden layer.

    Args:
        c_in: Width of the input.
        c_out: Width of the output.
        activation: "maxout", or a name of ACTIVATIONS.
        pieces: Linear maps of a maxout unit.

    Returns:
        The layer.
    """
    if activation == "maxout":
        return Maxout(c_in, c_out, pieces)
    return nn.Sequential(nn.Linear(c_in, c_out), ACTIVATIONS[activation]())


class Layers(nn.Module):
    """Hidden layers, each with dropout of what it takes.

    Args:
        c_in: Width of the input.
        widths: Widths of the layers. None of them: the input is returned.
        activations: Activation of each layer. The last one serves the layers that are left.
        pieces: Linear maps of a maxout unit.
        dropout: Dropout rate of the input.
        hidden: Dropout rate of the units between the layers.
    """

    def __init__(
        self,
        c_in: int,
        widths: Sequence[int],
        activations: Sequence[str],
        pieces: int = 0,
        dropout: float = 0.0,
        hidden: float = 0.0,
    ) -> None:
        super().__init__()
        sides = [c_in, *widths]
        self.layers = nn.ModuleList(
            layer(a, b, activations[min(i, len(activations) - 1)], pieces)
            for i, (a, b) in enumerate(zip(sides, widths, strict=False))
        )
        self.rates = [dropout] + [hidden] * len(widths)
        self.width = sides[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers.

        Args:
            x: Inputs, float (B, c_in).

        Returns:
            The units of the last layer, float (B, width).
        """
        for rate, one in zip(self.rates, self.layers, strict=False):
            x = one(F.dropout(x, rate, self.training) if rate else x)
        return x


def spread(module: nn.Module, bound: float | None) -> None:
    """Draw initial weights from U(-bound, bound), and set biases to 0.

    Args:
        module: A network.
        bound: The bound. None: PyTorch's own initial weights are kept.
    """
    if bound is None:
        return
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.uniform_(part.weight, -bound, bound)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def uniform_of(noise: Tensor) -> Tensor:
    """Turn normal noise into uniform noise of the same variance, by its distribution function.

    Args:
        noise: Noise from N(0, 1), of any shape.

    Returns:
        Noise from U(-sqrt 3, sqrt 3). 0 stays 0.
    """
    return math.sqrt(3) * torch.erf(noise / math.sqrt(2))


class MLPGenerator(OneShotGenerator):
    """A generator of linear layers. A subclass says what enters the hidden layers.

    Args:
        config: The model's settings.
        c_in: Width of what enters the hidden layers.
    """

    def __init__(self, config: MLPGANConfig, c_in: int) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.noise_shape = (config.z_dim,)
        self.hidden = Layers(c_in, config.widths_g, config.activations_g, hidden=config.dropout_g)
        self.pixels = nn.Linear(self.hidden.width, config.channels * config.image_size**2)
        spread(self.hidden, config.spread_g)
        spread(self.pixels, config.spread_output or config.spread_g)

    def noise_of(self, noise: Tensor) -> Tensor:
        """Return the noise as the first layer gets it.

        Args:
            noise: Noise from N(0, I), float (B, z_dim).

        Returns:
            The same, or uniform noise.
        """
        return uniform_of(noise) if self.config.z_law == "uniform" else noise

    def images(self, inputs: Tensor) -> Tensor:
        """Turn what enters the hidden layers into images.

        Args:
            inputs: Inputs, float (B, c_in).

        Returns:
            Images, float (B, 3, H, H). In [-1, 1], but in training with a linear output.
        """
        h = F.dropout(self.hidden(inputs), self.config.dropout_g, self.training)
        y = self.pixels(h).view(len(h), -1, self.image_size, self.image_size)
        match self.config.output:
            case "sigmoid":
                y = 2 * torch.sigmoid(y) - 1
            case "tanh":
                y = torch.tanh(y)
            case "linear":
                y = y if self.training else y.clamp(-1, 1)
        images: Tensor = y.expand(-1, 3, -1, -1)
        return images


class ImageLayers(nn.Module):
    """The discriminator's layers that take images alone.

    Args:
        config: The model's settings.

    Attributes:
        width: Width of the last layer.
    """

    def __init__(self, config: MLPGANConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = Layers(
            config.pack * config.channels * config.image_size**2,
            config.widths_d,
            (config.activation_d,),
            config.pieces,
            config.dropout_input,
            config.dropout_d,
        )
        self.width = self.layers.width
        spread(self, config.spread_d)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], or packs of m of them, float (B, 3 m, H, H).

        Returns:
            Features, float (B, width).
        """
        x = images
        if self.config.channels == 1:
            x = x.reshape(len(x), -1, 3, *x.shape[2:]).mean(2)
        x = x.flatten(1)
        features: Tensor = self.layers((x + 1) / 2 if self.config.output == "sigmoid" else x)
        return features
