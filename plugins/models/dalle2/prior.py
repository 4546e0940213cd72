"""The prior of DALL-E 2: a causal transformer that draws CLIP's embedding of an image.

Source: Ramesh et al. 2022, section 2.2.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import PriorTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.sampling import schedule_of
from t2i.plugins.common.weights.diffusers_folders import described_network, keep_description
from t2i.plugins.models.dalle2.config import PriorPart

PART = "prior"
EXTRA = 4  # tokens after the words: text embedding, timestep, noisy embedding, query
LEAST = 1e-3  # smallest standard deviation that embeddings are divided by


class PriorGenerator(DiffusionGenerator):
    """A transformer that predicts the embedding z_i of an image from a noisy one.

    Its tokens are the words, the text's embedding z_t, the timestep, the noisy embedding and a
    learned query, whose output is the prediction. Each attends to those before it. Embeddings are
    standardised: each value has mean 0 and deviation 1 over the data.

    x_t holds all draws of an image, (B, draws, D).

    Args:
        config: Settings of the part.
        text: Widths of the text features. The sentence is z_t, as wide as an embedding.
        assets: Folder of the part's saved files. None: a new part.

    Attributes:
        seen: Number of embeddings of which mean and deviation were taken.
    """

    seen: Tensor

    def __init__(self, config: PriorPart, text: TextShape, assets: Path | None = None) -> None:
        super().__init__()
        self.config = config  # no image_size: the part samples no images
        self.noise_shape = (config.draws, text.sentence)
        self.schedule, self.prediction = schedule_of(config), config.prediction
        given = described_network(PriorTransformer, config.weights, PART, assets)
        self.unet = cast(Any, given or _fresh(config, text))
        for name in ("clip_mean", "clip_std"):  # measured, not learned
            values = getattr(self.unet, name).detach()
            delattr(self.unet, name)
            self.unet.register_buffer(name, values)
        if given is not None:
            _check(given.config, config, text)
        self.words = (
            nn.Linear(text.words, text.sentence) if text.words != text.sentence else nn.Identity()
        )
        self.register_buffer("seen", torch.zeros(()))

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Project words and text embedding to tokens, without their positions."""
        length = self.unet.config.num_embeddings
        projected = self.unet.encoder_hidden_states_proj(self.words(text.words[:, :length]))
        sentence = self.unet.embedding_proj(text.sentence)
        return replace(text, sentence=sentence, words=projected, mask=text.mask[:, :length])

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        draws, net = x_t.shape[1], self.unet
        words, mask, z_t = (
            x.repeat_interleave(draws, 0) for x in (text.words, text.mask, text.sentence)
        )
        times = net.time_proj(self.schedule.embedded(t).repeat_interleave(draws))
        rest = [
            z_t,
            net.time_embedding(times.to(z_t.dtype)),
            net.proj_in(x_t.flatten(0, 1)),
            net.prd_embedding[0].expand(len(z_t), -1),
        ]
        places = net.positional_embedding
        # Words that a batch does not have count for nothing, so they are left out.
        first = words + places[:, : words.shape[1]]
        last = torch.stack(rest, 1) + places[:, -EXTRA:]
        h = torch.cat([first, last], 1)
        seen = causal(F.pad(mask, (0, EXTRA), value=True))
        if net.norm_in is not None:
            h = net.norm_in(h)
        for block in net.transformer_blocks:
            h = block(h, attention_mask=seen)
        output: Tensor = net.proj_to_clip_embeddings(net.norm_out(h[:, -1]))
        return output.view(x_t.shape)

    def shape_of(self, size: tuple[int, int] | None) -> tuple[int, ...]:
        return self.noise_shape

    def standardised(self, embeddings: Tensor) -> Tensor:
        """Bring embeddings to mean 0 and deviation 1.

        Args:
            embeddings: Embeddings, (B, D).

        Returns:
            What the network denoises, (B, 1, D).
        """
        deviation = self.unet.clip_std.clamp_min(LEAST)
        scaled: Tensor = (embeddings - self.unet.clip_mean) / deviation
        return scaled[:, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Undo `standardised`.

        Args:
            latents: Standardised embeddings, (B, draws, D).

        Returns:
            Embeddings, (B, draws, D).
        """
        embeddings: Tensor = latents * self.unet.clip_std + self.unet.clip_mean
        return embeddings

    @torch.no_grad()
    def observe(self, embeddings: Tensor) -> None:
        """Take more embeddings into their mean and deviation.

        A pretrained prior keeps those that it was trained with.

        Args:
            embeddings: Embeddings of images, (B, D).
        """
        if self.config.weights:
            return
        mean, variance = self.unet.clip_mean, self.unet.clip_std.square()
        more, before = len(embeddings), self.seen
        share = more / (before + more)
        shift = embeddings.mean(0, keepdim=True) - mean
        variance = (
            (1 - share) * variance
            + share * embeddings.var(0, correction=0, keepdim=True)
            + share * (1 - share) * shift.square()
        )
        self.unet.clip_mean.add_(share * shift)
        self.unet.clip_std.copy_(variance.sqrt())
        self.seen += more

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        if self.config.weights:
            keep_description(self.unet, PART, folder)


def causal(mask: Tensor) -> Tensor:
    """Return which token attends to which: to itself, and to those before it that count.

    Args:
        mask: Which tokens count, bool (B, N).

    Returns:
        Bool (B, N, N).
    """
    n = mask.shape[1]
    own = torch.eye(n, dtype=torch.bool, device=mask.device)
    before = torch.ones(n, n, dtype=torch.bool, device=mask.device).tril()
    return before & (mask[:, None] | own)


def _fresh(config: PriorPart, text: TextShape) -> PriorTransformer:
    """Build a new network: weights as small as in GPT-2, positions and query drawn at random."""
    network: Any = PriorTransformer(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        num_layers=config.layers,
        embedding_dim=text.sentence,
        num_embeddings=config.length,
        additional_embeddings=EXTRA,
    )
    nn.init.normal_(network.positional_embedding, std=0.02)
    nn.init.normal_(network.prd_embedding, std=0.02)
    nn.init.ones_(network.clip_std)
    built: PriorTransformer = network
    return built


def _check(network: Any, config: PriorPart, text: TextShape) -> None:
    """Raise UserError if a pretrained network is not as the paper's, or misfits the text."""
    where = f"prior.weights = {config.weights}"
    if network.embedding_dim != text.sentence:
        raise UserError(
            f"{where}: its embeddings have {network.embedding_dim} values, those of the text "
            f"encoder {text.sentence}: use the text half of the same CLIP"
        )
    for key, wanted in (
        ("additional_embeddings", EXTRA),
        ("embedding_proj_norm_type", None),
        ("encoder_hid_proj_type", "linear"),
        ("added_emb_type", "prd"),
    ):
        if network[key] != wanted:
            raise UserError(f"{where}: {key} = {network[key]}: only {wanted} is read")


def closest(drawn: Tensor, sentences: Tensor) -> Tensor:
    """Choose of several embeddings the one with the largest product with the text's, z_i . z_t.

    Args:
        drawn: Embeddings of images, (B, draws, D).
        sentences: Embeddings of texts, (B, D).

    Returns:
        The chosen ones, (B, D).
    """
    best = torch.einsum("bnd,bd->bn", drawn, sentences).argmax(1)
    return drawn[torch.arange(len(drawn), device=drawn.device), best]
