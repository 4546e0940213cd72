"""The generator of images of several sizes: a row of stages, each with an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.conditioning.augmentation import ConditioningAugmentation
from t2i.plugins.common.gan.conditioning.standardise import sentence_input
from t2i.plugins.common.gan.trees.blocks import FirstStage, conv3x3, orthogonal
from t2i.plugins.common.gan.trees.config import TreeConfig


class TreeOutput(NamedTuple):
    """What the generator's network returns.

    Attributes:
        images: Images of each scale, float (B, 3, S, S) in [-1, 1], the smallest first.
        sentence: Sentence vectors as the generator used them, float (B, D).
        mean: Mean mu of the condition c^, float (B, c_dim).
        logvar: Log variance of the condition c^, float (B, c_dim).
    """

    images: list[Tensor]
    sentence: Tensor
    mean: Tensor
    logvar: Tensor


class Tree(nn.Module):
    """The generator's network, which returns the images of all scales.

    h_0 = F_0(z, F_ca(e)), h_i = F_i(h_{i-1}, c^ or words), x^_i = G_i(h_i).
    Source: Zhang et al. 2018 (StackGAN++), equation 3; Xu et al. 2018 (AttnGAN), equation 1.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        widths: Channels of h_i of each scale.
        stage: Function that builds F_i, from i = 1 on: a module that maps h_{i-1}, conditions c^
            (B, c_dim) and text features to h_i, which is twice as large.
    """

    def __init__(
        self,
        config: TreeConfig,
        text: TextShape,
        widths: Sequence[int],
        stage: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.z_dim = config.z_dim
        self.standard = sentence_input(text.sentence, config.standardise)
        self.augment = ConditioningAugmentation(text.sentence, config.c_dim, "glu")
        self.first = FirstStage(config.c_dim + config.z_dim, widths[0], config.sizes[0])
        self.next = nn.ModuleList(stage(i) for i in range(1, config.scales))
        self.to_rgb = nn.ModuleList(conv3x3(width, 3) for width in widths)
        self.apply(orthogonal)

    def forward(self, noise: Tensor, text: TextFeatures) -> TreeOutput:
        """Generate images of all scales.

        Args:
            noise: [z; eps], float (B, z_dim + c_dim). eps is the conditioning augmentation's noise.
            text: Text features of the batch.

        Returns:
            The images, with what the losses need of the condition.
        """
        sentence = self.standard(text.sentence)
        c, mean, logvar = self.augment(sentence, noise[:, self.z_dim :])
        h = [self.first(c, noise[:, : self.z_dim])]
        for stage in self.next:
            h.append(stage(h[-1], c, text))
        images = [torch.tanh(rgb(h_i)) for rgb, h_i in zip(self.to_rgb, h, strict=True)]
        return TreeOutput(images, sentence, mean, logvar)


class TreeGenerator(OneShotGenerator):
    """The generator: it returns the network's largest image.

    The noise of an image is [z; eps]. Zeros for eps give the mean condition.

    Args:
        config: The model's settings.
        network: The network.
    """

    def __init__(self, config: TreeConfig, network: Tree) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.noise_shape = (config.z_dim + config.c_dim,)
        self.network = network

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        drawn: TreeOutput = self.network(noise, text)
        return drawn.images[-1]
