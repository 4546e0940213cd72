"""Generators of a tokenizer and a transformer over its tokens, and their training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from t2i.core.families.autoregressive import AutoregressiveGenerator, State
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Trainer
from t2i.plugins.common.causal.prior_config import TokenModelConfig
from t2i.plugins.common.causal.transformer import TokenTransformer
from t2i.plugins.common.text.along import train_along
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, keep_tokenizer


class TokenNetwork(Protocol):
    """A network that predicts the tokens of an image, all at once or one after the other."""

    def condition(self, text: TextFeatures, /) -> TextFeatures:
        """Compute what depends on the captions alone.

        Args:
            text: Features of B captions, as the text encoder returned them.

        Returns:
            The features for the other methods.
        """

    def begin(self, text: TextFeatures, /) -> tuple[Tensor, State]:
        """Predict the first token.

        Args:
            text: Features of B captions, from `condition`.

        Returns:
            Logits, (B, K), and the state.
        """

    def next(self, tokens: Tensor, state: State, /) -> tuple[Tensor, State]:
        """Process the tokens that were just drawn and predict the next ones.

        Args:
            tokens: One token for each image, int64 (B,).
            state: The state.

        Returns:
            Logits, (B, K), and the new state.
        """

    def __call__(self, tokens: Tensor, text: TextFeatures, /) -> Tensor:
        """Predict each token from those before it.

        Args:
            tokens: Tokens, int64 (B, N).
            text: Features of B captions, from `condition`.

        Returns:
            Logits, (B, N, K).
        """


class TokenGenerator(AutoregressiveGenerator):
    """A generator that predicts the tokens of an image one after the other.

    Args:
        tokenizer: Turns images into tokens and back.
        network: Predicts tokens.

    Attributes:
        tokenizer: Turns images into tokens and back.
        network: Predicts tokens.
    """

    def __init__(self, tokenizer: ImageTokenizer, network: TokenNetwork) -> None:
        super().__init__()
        self.tokenizer, self.network = tokenizer, network
        self.image_size = tokenizer.image_size
        self.length, self.vocabulary = tokenizer.length, tokenizer.vocabulary

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.network.condition(text)

    def begin(self, text: TextFeatures) -> tuple[Tensor, State]:
        return self.network.begin(text)

    def next(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        return self.network.next(tokens, state)

    def forward(self, tokens: Tensor, text: TextFeatures) -> Tensor:
        return self.network(tokens, text)

    def encode(self, images: Tensor) -> Tensor:
        return self.tokenizer.encode(images)

    def decode(self, tokens: Tensor) -> Tensor:
        return self.tokenizer.decode(tokens).clamp(-1, 1)

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        keep_tokenizer(self.tokenizer, folder)


class TokenTrainer(Trainer):
    """Minimises the cross-entropy of each token given those before it, by AdamW.

    A text encoder that can be trained is trained too.

    Args:
        config: Settings of the model.
        networks: The model's networks. The generator is a `TokenGenerator` of a `TokenTransformer`.
        keep: Probability with which a token that is read is kept; others are replaced by random
            ones.
    """

    def __init__(self, config: TokenModelConfig, networks: Networks, keep: float = 1.0) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, TokenGenerator)
        assert isinstance(generator.network, TokenTransformer)
        self.config, self.generator, self.keep = config, generator, keep
        self.network = generator.network
        self.encode = generator.encode
        self.modules: dict[str, nn.Module] = {"network": self.network}
        groups = decayed(self.network, config.weight_decay)
        train_along(text_encoder, config.lr_text, self.modules, groups, weight_decay=0.0)
        self.optimizers = {"network": AdamW(groups, config.lr, betas=config.betas, fused=True)}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        tokens = self.tokens(batch)
        text, kept = batch.dropped(self.config.caption_dropout)
        text = self.generator.condition(text)
        loss, losses = self.errors(tokens, self.read(tokens, batch), kept, text)
        if (outline := self.network.outline(text)) is not None and self.network.text_map:
            losses["outline"] = cross_entropy(outline, tokens)
            loss = loss + self.network.text_map.outline_weight * losses["outline"]
        engine.update("network", loss)
        return losses

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        return self.step(batch, engine)  # it changes nothing but through `engine.update`

    def errors(
        self, tokens: Tensor, read: Tensor, kept: Tensor | None, text: TextFeatures
    ) -> tuple[Tensor, Losses]:
        """Compute the losses of the transformer.

        Args:
            tokens: Tokens of the images, int64 (B, N).
            read: The tokens as the transformer reads them, int64 (B, N).
            kept: Which captions were not dropped, bool (B,). None: all.
            text: Features of the captions, from `condition`.

        Returns:
            The loss, and the losses for the log.
        """
        loss = cross_entropy(self.network(read, text), tokens)
        return loss, {"tokens": loss}

    def tokens(self, batch: Batch) -> Tensor:
        """Return the tokens of a batch's images.

        Args:
            batch: A batch of B examples.

        Returns:
            Tokens, int64 (B, N).
        """
        if batch.encoded is not None:
            return batch.encoded
        with torch.no_grad():
            return self.generator.encode(batch.images)

    def read(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Replace some tokens by random ones.

        Args:
            tokens: Tokens, int64 (B, N).
            batch: The batch, which draws them.

        Returns:
            Tokens, int64 (B, N).
        """
        if self.keep == 1:
            return tokens
        others = batch.noise.integers("others", 0, self.generator.vocabulary, tokens.shape[1:])
        keep = batch.noise.uniform("keep", 0, tokens.shape[1:]) < self.keep
        return torch.where(keep, tokens, others)


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Compute the mean of -log p of tokens.

    Args:
        logits: Logits, (B, N, K).
        tokens: Tokens, int64 (B, N).

    Returns:
        The mean over all tokens, a scalar, in nats.
    """
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def decayed(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Divide parameters into those that weight decay acts on, and the rest.

    Args:
        network: The network.
        decay: Weight decay of the weights of linear layers.

    Returns:
        Two parameter groups, as torch's optimizers take them.
    """
    linear = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) in linear], "weight_decay": decay},
        {"params": [p for p in parameters if id(p) not in linear], "weight_decay": 0.0},
    ]
