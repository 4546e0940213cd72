"""Quantizers: each place of a grid of features becomes one of K vectors.

Sources: van den Oord et al. 2017 (codebook; appendix A.1 for moving averages); Esser et al. 2021;
Yu et al. 2022 (vectors of length 1); Jang et al. 2017 (Gumbel-softmax); Dhariwal et al. 2020
(restart of vectors that are not used).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.trainer import Batch, Engine
from t2i.plugins.common.tokens.tokenizer_config import QuantizerConfig


class Quantised(NamedTuple):
    """A grid of features after quantising.

    Attributes:
        vectors: Vectors (B, D, h, w). Their gradients go into the features.
        tokens: Tokens, int64 (B, h w), row by row.
        loss: Loss of the quantizer, a scalar.
    """

    vectors: Tensor
    tokens: Tensor
    loss: Tensor


class AveragedEmbedding(nn.Module):
    """The vectors of a codebook that no optimizer trains: a buffer.

    Args:
        vocabulary: Number K of vectors.
        width: Their length D.

    Attributes:
        weight: The vectors, (K, D).
    """

    weight: Tensor

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(vocabulary, width))


class Codebook(nn.Module):
    """Nearest vectors, learned by gradients or as moving averages.

    With gradients, the loss is ||sg z - e||^2 + beta ||z - sg e||^2, or with `legacy`
    beta ||sg z - e||^2 + ||z - sg e||^2. With moving averages it is beta ||z - sg e||^2. Norms are
    means over all values, sg stops gradients.

    Args:
        config: Settings of the quantizer.
        vocabulary: Number K of vectors.
        width: Their length D.

    Attributes:
        embedding: The vectors, (K, D).
        steps: Number of training steps that were observed.
        counts: Moving average of each token's share of all tokens, times K, before it is divided by
            1 - decay^steps, (K,).
        observes: Whether training steps must be observed.
        sums: The same of the features that became the token, (K, D). Only for "ema".
    """

    def __init__(self, config: QuantizerConfig, vocabulary: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.averaged = config.kind == "ema"
        self.observes = self.averaged or config.restart > 0
        kind = AveragedEmbedding if self.averaged else nn.Embedding
        self.embedding = kind(vocabulary, width)
        if config.normalised:
            nn.init.normal_(self.embedding.weight)
        else:
            nn.init.uniform_(self.embedding.weight, -1 / vocabulary, 1 / vocabulary)
        self.steps: Tensor
        self.counts: Tensor
        self.sums: Tensor
        if self.averaged or config.restart:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
            self.register_buffer("counts", torch.zeros(vocabulary))
        if self.averaged:
            self.register_buffer("sums", torch.zeros(vocabulary, width))

    @property
    def codes(self) -> Tensor:
        """The vectors that tokens stand for, (K, D)."""
        weight = self.embedding.weight
        return F.normalize(weight, dim=1) if self.config.normalised else weight

    def features(self, z: Tensor) -> Tensor:
        """Scale features to length 1 if the vectors are.

        Args:
            z: Features (B, D, h, w).

        Returns:
            Features (B, D, h, w).
        """
        return F.normalize(z, dim=1) if self.config.normalised else z

    def tokens(self, z: Tensor) -> Tensor:
        """Find the nearest vectors.

        Args:
            z: Features (B, D, h, w).

        Returns:
            Tokens, int64 (B, h w).
        """
        rows = self.features(_precise(z)).detach().movedim(1, -1).flatten(1, 2)
        codes = self.codes.detach()
        with torch.autocast(z.device.type, enabled=False):  # near ties need all digits
            # ||z - e||^2 without ||z||^2, which is the same for all e.
            return (codes.square().sum(1) - 2 * rows @ codes.T).argmin(-1)

    def vectors(self, tokens: Tensor, side: int) -> Tensor:
        """Look up the vectors of tokens.

        Args:
            tokens: Tokens, int64 (B, h w).
            side: Height of the grid.

        Returns:
            Vectors (B, D, h, w).
        """
        return rearrange(F.embedding(tokens, self.codes), "b (h w) d -> b d h w", h=side)

    def forward(
        self, z: Tensor, temperature: float = 1.0, noise: Tensor | None = None
    ) -> Quantised:
        """Quantise features.

        Args:
            z: Features (B, D, h, w).
            temperature: Not used.
            noise: Not used.

        Returns:
            The vectors, z + sg(e - z) for z of any length, the tokens and the loss.
        """
        # Straight through to z itself, as in ViT-VQGAN's public code, not to z of length 1.
        tokens, raw = self.tokens(z), _precise(z)
        z, e = self.features(raw), self.vectors(tokens, z.shape[2])
        commitment = (z - e.detach()).square().mean()
        beta = self.config.beta
        if self.averaged:
            loss = beta * commitment
        else:
            codebook = (z.detach() - e).square().mean()
            loss = (
                beta * codebook + commitment if self.config.legacy else codebook + beta * commitment
            )
        return Quantised(raw + (e - raw).detach(), tokens, self.config.weight * loss)

    @torch.no_grad()
    def observe(self, z: Tensor, tokens: Tensor, random: Tensor) -> None:
        """Move the averages, and restart vectors that are hardly used; once a training step.

        Args:
            z: Features of all images of the step, (B, D, h, w).
            tokens: Their tokens, (B, h w).
            random: Uniform numbers, of which the first K choose the features of restarted vectors,
                (at least K,).
        """
        if not self.observes:
            return
        K, decay = len(self.counts), self.config.decay
        rows = self.features(_precise(z)).movedim(1, -1).flatten(0, 2)
        chosen = tokens.flatten()
        scale = K / len(rows)
        count = torch.bincount(chosen, minlength=K) * scale
        self.counts.lerp_(count.to(self.counts), 1 - decay)
        if self.averaged:
            total = torch.zeros_like(self.sums).index_add_(0, chosen, rows.to(self.sums))
            self.sums.lerp_(total * scale, 1 - decay)
        first = self.steps == 0
        self.steps += 1
        # The averages begin at 0: dividing by this makes them those of the steps so far.
        debias = (1 - decay ** self.steps.double()).to(self.counts)
        if self.averaged:
            self._average(debias, scale)
        if self.config.restart:
            dead = (self.counts < self.config.restart * debias) | first
            picks = rows[(random[:K] * len(rows)).long()].to(self.embedding.weight)
            self.embedding.weight.data.copy_(
                torch.where(dead[:, None], picks, self.embedding.weight)
            )
            # As many uses as if all were used alike, so that they have time to find some.
            self.counts.copy_(torch.where(dead, debias, self.counts))
            if self.averaged:
                self.sums.copy_(torch.where(dead[:, None], debias * picks, self.sums))

    def _average(self, debias: Tensor, scale: float) -> None:
        """Set each vector to the average of the features that became it (with smoothed counts)."""
        n = self.counts / debias / scale
        total, epsilon = n.sum(), self.config.epsilon
        smooth = (n + epsilon) / (total + len(n) * epsilon) * total
        self.embedding.weight.data.copy_(self.sums / debias / scale / smooth[:, None])


class Gumbel(nn.Module):
    """One of K vectors, drawn by the Gumbel-softmax relaxation in training.

    The loss is the KL divergence of the tokens' probabilities from equal ones. Otherwise the
    likeliest token is taken.

    Args:
        config: Settings of the quantizer.
        vocabulary: Number K of vectors.
        width: Their length D, and the number of channels of the features.
        proj: Layer that turns features into logits (B, K, h, w). None: a 1x1 convolution.

    Attributes:
        observes: Whether training steps must be observed: never.
    """

    observes = False

    def __init__(
        self, config: QuantizerConfig, vocabulary: int, width: int, proj: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.proj = nn.Conv2d(width, vocabulary, 1) if proj is None else proj
        self.embed = nn.Embedding(vocabulary, width)

    @property
    def codes(self) -> Tensor:
        """The vectors that tokens stand for, (K, D)."""
        return self.embed.weight

    def tokens(self, z: Tensor) -> Tensor:
        """Find the likeliest tokens.

        Args:
            z: Features (B, D, h, w).

        Returns:
            Tokens, int64 (B, h w).
        """
        logits: Tensor = self.proj(z)
        return logits.argmax(1).flatten(1)

    def vectors(self, tokens: Tensor, side: int) -> Tensor:
        """Look up the vectors of tokens.

        Args:
            tokens: Tokens, int64 (B, h w).
            side: Height of the grid.

        Returns:
            Vectors (B, D, h, w).
        """
        vectors: Tensor = rearrange(self.embed(tokens), "b (h w) d -> b d h w", h=side)
        return vectors

    def forward(
        self, z: Tensor, temperature: float = 1.0, noise: Tensor | None = None
    ) -> Quantised:
        """Quantise features.

        Args:
            z: Features (B, D, h, w).
            temperature: Temperature tau of the relaxation.
            noise: Standard Gumbel numbers (B, K, h, w). None: nothing is drawn, and the likeliest
                tokens are taken.

        Returns:
            The vectors, the tokens that are largest in them, and the loss.
        """
        logits = _precise(self.proj(z))
        K = logits.shape[1]
        log_q = logits.log_softmax(1)
        kl = (log_q.exp() * (log_q + math.log(K))).sum(1).mean()
        loss = self.config.weight * self.config.kl_weight * kl
        if noise is None:
            tokens = logits.argmax(1).flatten(1)
            return Quantised(self.vectors(tokens, z.shape[2]), tokens, loss)
        soft = ((logits + noise) / temperature).softmax(1)
        tokens = soft.argmax(1)
        weights = soft
        if self.config.hard:
            weights = F.one_hot(tokens, K).movedim(-1, 1) - soft.detach() + soft
        vectors = torch.einsum("bkhw,kd->bdhw", weights.to(self.codes), self.codes)
        return Quantised(vectors, tokens.flatten(1), loss)

    def observe(self, z: Tensor, tokens: Tensor, random: Tensor) -> None:
        """Do nothing: there are no averages.

        Args:
            z: Features (B, D, h, w).
            tokens: Their tokens.
            random: Uniform numbers.
        """


def _precise(x: Tensor) -> Tensor:
    """Return a tensor in float32, or in float64 if it is."""
    return x if x.dtype == torch.float64 else x.float()


Quantizer = Codebook | Gumbel


def quantizer_of(config: QuantizerConfig, vocabulary: int, width: int) -> Quantizer:
    """Build a quantizer.

    Args:
        config: Its settings.
        vocabulary: Number K of vectors.
        width: Their length D.

    Returns:
        The quantizer.
    """
    kind = Gumbel if config.kind == "gumbel" else Codebook
    return kind(config, vocabulary, width)


def temperature_at(config: QuantizerConfig, progress: float) -> float:
    """Return the temperature of the Gumbel-softmax at a moment of the training.

    Args:
        config: The settings `temperature`, `last_temperature` and `cooled`.
        progress: Progress of the stage, 0 to 1.

    Returns:
        The temperature, on half a cosine between the two.
    """
    share = min(1.0, progress / config.cooled)
    first, last = config.temperature, config.last_temperature
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def kl_share(config: QuantizerConfig, progress: float) -> float:
    """Return the share of its weight that the quantizer's loss has at a moment of the training.

    Args:
        config: The settings `kind` and `kl_warmup`.
        progress: Progress of the stage, 0 to 1.

    Returns:
        For "gumbel" a number that rises from 0 to 1 on half a cosine, else 1.
    """
    if config.kind != "gumbel" or progress >= config.kl_warmup:
        return 1.0
    return (1 - math.cos(math.pi * progress / config.kl_warmup)) / 2


def perplexity(tokens: Tensor, vocabulary: int) -> Tensor:
    """Compute how many tokens are in use: exp of the entropy of their shares.

    Args:
        tokens: Tokens, int64 (...).
        vocabulary: Number K of different tokens.

    Returns:
        A scalar from 1 to K.
    """
    p = torch.bincount(tokens.flatten(), minlength=vocabulary).double() / tokens.numel()
    entropy: Tensor = torch.special.entr(p).sum()
    return entropy.exp().float()


def observe(quantizer: Quantizer, z: Tensor, tokens: Tensor, batch: Batch, engine: Engine) -> None:
    """Let a quantizer count the tokens of a training step, those of all processes.

    Args:
        quantizer: The quantizer. One without moving averages ignores it.
        z: Features of this process's images, (B, D, h, w).
        tokens: Their tokens, (B, h w).
        batch: The batch, whose noise chooses the features of restarted vectors.
        engine: The engine.
    """
    if not quantizer.observes:
        return
    z, tokens = engine.gathered(z), engine.gathered(tokens)
    each = -(-len(quantizer.codes) // len(z))
    random = engine.gathered(batch.noise.uniform("restart", 0, (each,)))
    quantizer.observe(z, tokens, random.flatten())
