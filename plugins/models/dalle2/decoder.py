"""The decoder of DALL-E 2, which draws a small image for CLIP's embedding of it, and Karlo's parts.

Source: Ramesh et al. 2022, section 2.1; Lee et al. 2022 (Karlo).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.cascade import LEVEL, PREVIOUS
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.cascades.networks import PixelPartGenerator, UpsamplerGenerator
from t2i.plugins.common.diffusion.adm.conditional import AdmNetwork
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.common.diffusion.unet import SENTENCE
from t2i.plugins.common.weights.diffusers_folders import (
    described_network,
    keep_description,
    load_network,
)
from t2i.plugins.models.dalle2.config import DecoderPart, UnclipUpsampler

try:
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
except ImportError:  # diffusers before 0.38
    from diffusers.pipelines.unclip.text_proj import (  # type: ignore[no-redef]
        UnCLIPTextProjModel,
    )

STEPS = ("super_res_first", "super_res_last")
"""Karlo's networks of the upsampler: the second one makes the last step."""


class ImageEmbedding(nn.Module):
    """Brings an embedding of an image to the timestep's embedding and to further words.

    Args:
        width: Values of an embedding, D.
        time: Width of the timestep's embedding.
        tokens: Number of words that are made of an embedding.
        words: Width of a word.

    Attributes:
        null: What stands for "no embedding", (D,).
    """

    def __init__(self, width: int, time: int, tokens: int, words: int) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(width))
        self.time = nn.Linear(width, time)
        self.count = tokens
        self.tokens = nn.Linear(width, tokens * words) if tokens else None

    def dropped(self, z: Tensor, keep: Tensor) -> Tensor:
        """Replace some embeddings by `null`.

        Args:
            z: Embeddings, (B, D).
            keep: Which to keep, bool (B,).

        Returns:
            Embeddings, (B, D).
        """
        return torch.where(keep[:, None], z, self.null)

    def joined(self, z: Tensor, text: TextFeatures) -> TextFeatures:
        """Put the words that are made of embeddings before a text's own.

        Args:
            z: Embeddings, (B, D).
            text: Features of B captions.

        Returns:
            The text with more words.
        """
        if self.tokens is None:
            return text
        made = self.tokens(z).view(len(z), -1, self.count).mT  # (B, tokens, words)
        return replace(
            text,
            words=torch.cat([made, text.words], 1),
            mask=F.pad(text.mask, (self.count, 0), value=True),
        )


class KarloUNet(nn.Module):
    """Karlo's U-Net, called like the other U-Nets: `unet(x_t, t, text)`, after `condition(text)`.

    Args:
        unet: The network of diffusers.
        text: Width of a sentence.
    """

    def __init__(self, unet: UNet2DConditionModel, text: int) -> None:
        super().__init__()
        self.unet = cast(Any, unet)
        self.step = 2 ** (len(self.unet.config.block_out_channels) - 1)
        self.sentence = nn.Linear(text, self.unet.time_embedding.linear_2.out_features)

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Project the sentences.

        Args:
            text: Features of B captions.

        Returns:
            The text, with the projection among its extras.
        """
        return replace(text, extras={**text.extras, SENTENCE: self.sentence(text.sentence)})

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute the network's output.

        Args:
            x_t: Noisy images, float (B, 3, h, w).
            t: Timesteps, (B,).
            text: Conditioned captions.

        Returns:
            The output, float (B, 6, h, w).
        """
        output: Tensor = self.unet(
            x_t, t, encoder_hidden_states=text.words, class_labels=conditioned(text, SENTENCE),
            attention_mask=text.mask, return_dict=False,
        )[0]  # fmt: skip
        return output


class DecoderGenerator(PixelPartGenerator):
    """eps_theta(x_t, t, z_i, y) on small images.

    The embedding z_i comes as `PREVIOUS` of the text's extras. Without it `null` stands for it.

    Args:
        config: Settings of the part.
        text: Widths of the text features. An embedding is as wide as a sentence.
        assets: Folder of the part's saved files. None: a new part.
    """

    def __init__(self, config: DecoderPart, text: TextShape, assets: Path | None = None) -> None:
        unet: AdmNetwork | KarloUNet | None = None
        words, time = text.words, 4 * config.unet.channels[0]
        given = described_network(UNet2DConditionModel, config.weights, "decoder", assets)
        if given is not None:
            words, unet = given.config.cross_attention_dim, KarloUNet(given, text.sentence)
            time = unet.sentence.out_features
        elif config.adm is not None:
            words, time = config.adm.encoder_kv, config.adm.embedding_width
            out = 2 * config.channels if config.learned_range else config.channels
            shape = TextShape(text.sentence, words)
            unet = AdmNetwork(config.adm, config.channels, out, config.image_size, shape)
        super().__init__(config, TextShape(text.sentence, words), assets, unet)
        self.config, self.learned_range = config, config.learned_range
        self.given = given is not None
        self.project: nn.Module = nn.Identity()
        if unet is not None:
            self.project = nn.Sequential(nn.Linear(text.words, words), nn.LayerNorm(words))
        reads = unet is not None or config.unet.words or config.unet.map_hops > 0
        tokens = config.tokens if reads else 0  # a U-Net that reads no words has no use for more
        self.image = ImageEmbedding(text.sentence, time, tokens, words)
        if isinstance(unet, KarloUNet) and assets is None and config.weights:
            self._load(load_network(UnCLIPTextProjModel, config.weights, "text_proj"))

    @torch.no_grad()
    def _load(self, projections: Any) -> None:
        """Take over Karlo's projections of words and embeddings."""
        assert isinstance(self.unet, KarloUNet)
        assert isinstance(self.project, nn.Sequential)
        pairs = (
            (self.project[0], projections.encoder_hidden_states_proj),
            (self.project[1], projections.text_encoder_hidden_states_norm),
            (self.unet.sentence, projections.embedding_proj),
            (self.image.time, projections.clip_image_embeddings_project_to_time_embeddings),
            (self.image.tokens, projections.clip_extra_context_tokens_proj),
        )
        for own, theirs in pairs:
            shapes = [p.shape for p in theirs.parameters()]
            if own is None or [p.shape for p in own.parameters()] != shapes:
                raise UserError(
                    f"decoder.weights = {self.config.weights}: its projections (text_proj) do not "
                    "fit its decoder, or the text encoder"
                )
            own.load_state_dict(theirs.state_dict())
        self.image.null.copy_(projections.learned_classifier_free_guidance_embeddings)

    def condition(self, text: TextFeatures) -> TextFeatures:
        if not self.config.text:
            text = replace(
                text,
                sentence=torch.zeros_like(text.sentence),
                words=torch.zeros_like(text.words),
            )
        z = text.extras.get(PREVIOUS)
        if z is None:
            z = self.image.null.expand(len(text), -1)
        text = self.image.joined(z, replace(text, words=self.project(text.words)))
        text = super().condition(text)
        told = conditioned(text, SENTENCE) + self.image.time(z)
        return replace(text, extras={**text.extras, SENTENCE: told})

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output = super().forward(x_t, t, text)
        return output.chunk(2, 1)[0] if self.learned_range else output

    def ranged(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        prediction, v = super().forward(x_t, t, text).chunk(2, 1)
        return prediction, v

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        if self.given:
            assert isinstance(self.unet, KarloUNet)
            keep_description(self.unet.unet, "decoder", folder)


class KarloUpsampler(nn.Module):
    """Karlo's two networks that enlarge: the second one makes the last step.

    Args:
        networks: The networks of diffusers, by their names in `STEPS`.
    """

    def __init__(self, networks: dict[str, Any]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        levels = [len(network.config.block_out_channels) for network in networks.values()]
        self.step = 2 ** (max(levels) - 1)

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Return the text as it is, which is not read.

        Args:
            text: Features of B captions.

        Returns:
            The text.
        """
        return text

    def forward(self, x: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute the prediction.

        Args:
            x: x_t and the enlarged image, (B, 6, H, W).
            t: Timesteps, (B,). At 0 the second network is called.
            text: Not read.

        Returns:
            The prediction, (B, 3, H, W).
        """
        last = t == 0
        if bool(last.all()):
            return self._called(1, x, t)
        output = self._called(0, x, t)
        if bool(last.any()):  # in training only
            output = torch.where(last.view(-1, 1, 1, 1), self._called(1, x, t), output)
        return output

    def _called(self, number: int, x: Tensor, t: Tensor) -> Tensor:
        """Call a network."""
        network: Any = self.networks[STEPS[number]]
        output: Tensor = network(x, t, return_dict=False)[0]
        return output


class UnclipUpsamplerGenerator(UpsamplerGenerator):
    """The part that enlarges: this project's upsampler, or Karlo's networks.

    Args:
        config: Settings of the part.
        text: Widths of the text features.
        assets: Folder of the part's saved files. None: a new part.
    """

    def __init__(
        self, config: UnclipUpsampler, text: TextShape, assets: Path | None = None
    ) -> None:
        given = [described_network(UNet2DModel, config.weights, name, assets) for name in STEPS]
        unet = None if given[0] is None else KarloUpsampler(dict(zip(STEPS, given, strict=True)))
        super().__init__(config, text, assets, unet)
        self.given, self.told = unet, unet is None

    def enlarging(
        self, images: Tensor, noise: Noise, level: Tensor | None = None
    ) -> dict[str, Tensor]:
        self.check_told(level)
        if self.given is None:
            return super().enlarging(images, noise, level)
        low = images.clamp(-1, 1)  # as Karlo has it: neither rounded nor noised
        return {PREVIOUS: low, LEVEL: low.new_zeros(len(low))}

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        if self.given is not None:
            for name in STEPS:
                keep_description(self.given.networks[name], name, folder)
