"""The transformers of Stable Diffusion 3 and PixArt-alpha, both of diffusers, on latents."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import PixArtTransformer2DModel, SD3Transformer2DModel
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.weights.diffusers_folders import described_network, keep_description
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.networks import LatentGenerator


class TransformerGenerator(LatentGenerator):
    """Base of both generators.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the networks with their own configuration.
            None: they are loaded as the settings say.

    Raises:
        UserError: The network cannot be loaded, or does not fit the settings or the text.
    """

    kind: ClassVar[type[Any]]
    """Class of the network in diffusers."""

    def __init__(self, config: LDMConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__(config, assets)
        weights, patch = config.transformer.weights, config.transformer.patch
        network: Any = described_network(self.kind, weights, "transformer", assets)
        self.transformer, given = network, network.config
        self.size_step = config.image_size // config.latent_size * patch
        channels = config.autoencoder.latent_channels
        fits = {
            "input channels": (given.in_channels, channels),
            "pixels of latents a token": (given.patch_size, patch),
            **self.widths(text),
        }
        for what, (own, wanted) in fits.items():
            if own != wanted:
                raise UserError(
                    f"transformer.weights = {weights}: its {what} are {own}, and the settings and "
                    f"the text encoder say {wanted}"
                )

    @abstractmethod
    def widths(self, text: TextShape) -> dict[str, tuple[int, int]]:
        """Compare what the network reads with what the text encoder gives.

        Args:
            text: Widths of the text features.

        Returns:
            The network's width and the text encoder's, by a description.
        """

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        keep_description(self.transformer, "transformer", folder)


class SD3Generator(TransformerGenerator):
    """The transformer of Stable Diffusion 3: words and latents attend to each other as one.

    It predicts the velocity eps - z_0 on the path z_t = (1 - t) z_0 + t eps. Source: Esser et al.
    2024, sections 2 and 4.
    """

    kind = SD3Transformer2DModel

    def widths(self, text: TextShape) -> dict[str, tuple[int, int]]:
        given = self.transformer.config
        return {
            "words' widths": (given.joint_attention_dim, text.words),
            "sentences' widths": (given.pooled_projection_dim, text.sentence),
        }

    def shape_of(self, size: tuple[int, int] | None) -> tuple[int, ...]:
        shape = super().shape_of(size)
        most = self.transformer.config.pos_embed_max_size * self.transformer.config.patch_size
        if max(shape[1:]) > most:
            raise UserError(
                f"height and width are at most {most * self.config.autoencoder.reduction} pixels: "
                "the network has no position embeddings beyond"
            )
        return shape

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        # The network has no mask: all word vectors count, those of padding too.
        output: Tensor = self.transformer(
            x_t,
            encoder_hidden_states=text.words,
            pooled_projections=text.sentence,
            timestep=self.schedule.embedded(t),
            return_dict=False,
        )[0]
        return output


class PixArtGenerator(TransformerGenerator):
    """The transformer of PixArt-alpha, which attends to T5's words.

    It predicts eps, and a variance that no sampler here reads. Source: Chen et al. 2023, section
    2.3.
    """

    kind = PixArtTransformer2DModel

    def widths(self, text: TextShape) -> dict[str, tuple[int, int]]:
        given = self.transformer.config
        return {"words' widths": (given.caption_channels or given.cross_attention_dim, text.words)}

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output: Tensor = self.transformer(
            x_t,
            encoder_hidden_states=text.words,
            encoder_attention_mask=text.mask,
            timestep=self.schedule.embedded(t),
            added_cond_kwargs=self.sizes(x_t),
            return_dict=False,
        )[0]
        return output[:, : x_t.shape[1]]

    def sizes(self, x_t: Tensor) -> dict[str, Tensor | None]:
        """List the sizes that the network for 1024 pixels takes as input; others take none.

        Args:
            x_t: Noisy latents, (B, C, h, w).

        Returns:
            "resolution", height and width in pixels, (B, 2), and "aspect_ratio", height over width,
            (B, 1); None for a network that reads neither.
        """
        if not self.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        scale = self.config.autoencoder.reduction
        height, width = x_t.shape[2] * scale, x_t.shape[3] * scale
        numbers = {"resolution": [height, width], "aspect_ratio": [height / width]}
        return {
            name: torch.tensor([row], dtype=x_t.dtype, device=x_t.device).expand(len(x_t), -1)
            for name, row in numbers.items()
        }
