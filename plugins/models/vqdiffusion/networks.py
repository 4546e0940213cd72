"""The network of VQ-Diffusion: a transformer that predicts all clean tokens of an image at once.

Source: Gu et al. 2022, section 3.3 and appendix.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.discrete import DiscreteDiffusionGenerator
from t2i.core.families.token_schedule import DiscreteTokenSchedule
from t2i.core.interfaces.recomputing import Recomputing
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MAP, MappedText, conditioned
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, keep_tokenizer, tokenizer_of
from t2i.plugins.models.vqdiffusion.config import VQDiffusionConfig


def build(
    config: VQDiffusionConfig, text: TextShape, assets: Path | None = None
) -> VQDiffusionGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the tokenizer. None: it is built or loaded as
            the settings say.

    Returns:
        The generator.
    """
    return VQDiffusionGenerator(config, text, assets)


def schedule_of(config: VQDiffusionConfig, vocabulary: int) -> DiscreteTokenSchedule:
    """Make the schedule that the settings name.

    Args:
        config: The model's settings.
        vocabulary: Number K of clean tokens.

    Returns:
        The schedule.
    """
    steps = config.timesteps
    if config.chain == "code":
        return DiscreteTokenSchedule.vq_diffusion(vocabulary, steps)
    if config.chain == "cosine":
        return DiscreteTokenSchedule.cosine(vocabulary, steps)
    return DiscreteTokenSchedule.linear(vocabulary, steps, 1.0 if config.chain == "mask" else 0.9)


class VQDiffusionGenerator(DiscreteDiffusionGenerator):
    """p(x_0 | x_t, text) by a transformer, and a tokenizer that makes images of tokens.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the tokenizer. None: it is built or loaded as
            the settings say.
        tokenizer: The tokenizer, if it exists already. None: it is built.

    Attributes:
        used: Index of each token among those that the tokenizer knows, int64 (K,), if only some of
            those are used (`codes`).
        index: The token of each index, int64; unused ones share token 0, as in the released code.
    """

    used: Tensor
    index: Tensor

    def __init__(
        self,
        config: VQDiffusionConfig,
        text: TextShape,
        assets: Path | None = None,
        tokenizer: ImageTokenizer | None = None,
    ) -> None:
        super().__init__()
        self.config, self.image_size = config, config.image_size
        self.tokenizer = tokenizer or tokenizer_of(config.tokenizer, config.image_size, assets)
        self.length = self.tokenizer.length
        vocabulary = config.codes or self.tokenizer.vocabulary
        if config.codes:
            every = torch.arange(self.tokenizer.vocabulary)
            self.register_buffer("used", every[:vocabulary].clone())
            self.register_buffer("index", torch.where(every < vocabulary, every, 0))
        self.schedule = schedule_of(config, vocabulary)
        self.transformer = Transformer(config, vocabulary, self.tokenizer.side, text)

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.transformer.condition(text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        logits: Tensor = self.transformer(x_t, t, text)
        return logits

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into clean tokens.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].

        Returns:
            Tokens, int64 (B, length), from 0 to K - 1.
        """
        tokens = self.tokenizer.encode(images)
        return self.index[tokens] if self.config.codes else tokens

    def decode(self, tokens: Tensor) -> Tensor:
        tokens = self.used[tokens] if self.config.codes else tokens
        return self.tokenizer.decode(tokens).clamp(-1, 1)

    def save_assets(self, folder: Path) -> None:
        keep_tokenizer(self.tokenizer, folder)


class Transformer(Recomputing, MappedText):
    """The transformer: blocks of self-attention, cross-attention to the words, and a perceptron.

    Args:
        config: The model's settings.
        vocabulary: Number K of clean tokens.
        side: Tokens in a row and in a column.
        text: Widths of the text features.
    """

    def __init__(
        self, config: VQDiffusionConfig, vocabulary: int, side: int, text: TextShape
    ) -> None:
        super().__init__(config.text, vocabulary, side, text)
        width = config.width
        self.unit_words = config.unit_words
        self.tokens = nn.Embedding(vocabulary + 1, width)
        self.rows, self.columns = nn.Embedding(side, width), nn.Embedding(side, width)
        self.blocks = nn.ModuleList(Block(config, text.words) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, vocabulary)
        self.mapped_in = nn.Linear(config.text.text_map, width) if self.has_map else None
        self.sentence = nn.Linear(text.sentence, width) if config.sentence else None
        for module in [self.tokens, self.rows, self.columns, self.logits, *self.blocks.modules()]:
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=config.init_std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        # Drawn last, so that it changes no other weight.
        self.empty: nn.Parameter | None = None
        if config.learned_null:
            self.empty = nn.Parameter(torch.randn(config.learned_null, text.words))

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Scale the words, put the learned words in place of empty captions, and add the text map.

        Args:
            text: Features of B captions. Which are empty is known by `captions`.

        Returns:
            The features.
        """
        if self.unit_words:
            text = replace(text, words=F.normalize(text.words, dim=-1))
        if self.empty is not None:
            text = self._with_learned(text, self.empty)
        return self.mapped(text)

    def _with_learned(self, text: TextFeatures, empty: Tensor) -> TextFeatures:
        """Put the learned words in place of those of empty captions."""
        keep = [bool(caption.strip()) for caption in text.captions]
        if all(keep):
            return text
        words = empty.to(text.words)[None].expand(len(text), -1, -1)
        learned = replace(text, words=words, mask=text.mask.new_ones(words.shape[:2]))
        return text.where(torch.tensor(keep, device=text.words.device), learned)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Predict the clean tokens.

        Args:
            x_t: Noisy tokens, int64 (B, L), from 0 to K.
            t: Timestep of each image, int64 (B,), from 1 to T.
            text: Features of B captions, as `condition` returned them.

        Returns:
            Logits of x_0, (B, L, K).
        """
        places = self.rows.weight[:, None] + self.columns.weight
        h = self.tokens(x_t) + places.flatten(0, 1)
        if self.mapped_in is not None:
            h = h + self.mapped_in(rearrange(conditioned(text, MAP), "b c y x -> b (y x) c"))
        if self.sentence is not None:
            h = h + self.sentence(text.sentence)[:, None]
        for block in self.blocks:
            h = self.through(block, h, t, text.words, text.mask[:, None, None])
        logits: Tensor = self.logits(self.norm(h))
        return logits


class Block(nn.Module):
    """A block: self-attention, cross-attention to the words, and a perceptron.

        x = x + self(AdaLN(x, t))
        x = x + cross(AdaLN(x, t), words)
        x = x + mlp(LN(x))

    Source: Gu et al. 2022, figure 2 and section 3.3 (thesis 2.34).

    Args:
        config: The model's settings.
        words: Width of a word.
    """

    def __init__(self, config: VQDiffusionConfig, words: int) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.norm_1, self.norm_2 = (AdaptiveNorm(width, config.timesteps) for _ in range(2))
        self.norm_3 = nn.LayerNorm(width)
        self.attention = Attention(width, width, heads)
        self.cross = Attention(width, words, heads)
        hidden = config.mlp_ratio * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), QuickGELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, t: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Tokens, float (B, L, D).
            t: Timestep of each image, int64 (B,), from 1.
            words: Words, float (B, W, Dw).
            mask: Which words count, bool (B, 1, 1, W).

        Returns:
            Tokens, float (B, L, D).
        """
        h = self.norm_1(x, t)
        x = x + self.attention(h, h)
        x = x + self.cross(self.norm_2(x, t), words, mask)
        out: Tensor = x + self.mlp(self.norm_3(x))
        return out


class AdaptiveNorm(nn.Module):
    """Layer normalisation whose scale and shift come from an embedding of the timestep (AdaLN).

        LN(x) (1 + scale_t) + shift_t

    Each has an embedding of its own. Source: Gu et al. 2022, section 3.3 (thesis 2.34).

    Args:
        width: Width of a token.
        timesteps: Number T of timesteps.
    """

    def __init__(self, width: int, timesteps: int) -> None:
        super().__init__()
        self.times = nn.Embedding(timesteps, width)
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Normalise tokens.

        Args:
            x: Tokens, float (B, L, D).
            t: Timestep of each image, int64 (B,), from 1.

        Returns:
            Tokens, float (B, L, D).
        """
        scale, shift = self.linear(F.silu(self.times(t - 1)))[:, None].chunk(2, -1)
        out: Tensor = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        return out


class Attention(nn.Module):
    """Multi-head attention of tokens to tokens or words.

    Args:
        width: Width of a token.
        source: Width of what is attended to.
        heads: Attention heads.
    """

    def __init__(self, width: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.query = nn.Linear(source, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(source, width), nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let tokens attend.

        Args:
            x: Tokens, float (B, L, D).
            source: What they attend to, float (B, S, Ds).
            mask: Which of it counts, bool (B, 1, 1, S). None: all.

        Returns:
            What each token gathered, float (B, L, D).
        """
        q, k, v = (
            rearrange(value, "b n (h d) -> b h n d", h=self.heads)
            for value in (self.query(x), self.key(source), self.value(source))
        )
        gathered = F.scaled_dot_product_attention(q, k, v, mask)
        out: Tensor = self.out(rearrange(gathered, "b h n d -> b n (h d)"))
        return out


class QuickGELU(nn.Module):
    """CLIP's approximation of GELU, x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function.

        Args:
            x: Any values.

        Returns:
            Values of the same shape.
        """
        return x * torch.sigmoid(1.702 * x)
