"""Training of tokenizers: the stage that comes before a model of tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam

from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.tokens.losses import ImageLosses, reconstruction_error
from t2i.plugins.common.tokens.quantizers import kl_share, observe, perplexity, temperature_at
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, gumbel, shrunk
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig


class TokenizerTrainer(Trainer):
    """Trainer of a tokenizer.

    The loss is the error of the reconstruction, the perceptual and the adversarial term, and the
    quantizer's loss.

    Args:
        config: Settings of the tokenizer and its training.
        tokenizer: The tokenizer to train.
    """

    previews = "Left a real image, right its reconstruction. Captions play no part yet."

    def __init__(self, config: TokenizerConfig, tokenizer: ImageTokenizer) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.losses = ImageLosses(config.losses, config.lr, config.betas)
        self.modules: dict[str, nn.Module] = {"tokenizer": tokenizer, **self.losses.modules}
        trained = [p for p in tokenizer.parameters() if p.requires_grad]
        self.optimizers = {
            "tokenizer": Adam(trained, config.lr, betas=config.betas, fused=True),
            **self.losses.optimizers,
        }

    def step(self, batch: Batch, engine: Engine) -> Losses:
        images, tokenizer = batch.images, self.tokenizer
        z = tokenizer.features(images)
        temperature = temperature_at(self.config.quantizer, engine.progress)
        quantised = tokenizer.quantise(z, temperature, self._noise(batch, z))
        raw = tokenizer.decoded(quantised.vectors)
        shown = tokenizer.shown(raw)
        error = reconstruction_error(raw, images, self.config.losses, shrunk(images))
        loss, log = self.losses.total(
            error, raw, shown, images, tokenizer.decoder.last_layer, engine.progress
        )
        share = kl_share(self.config.quantizer, engine.progress)
        engine.update("tokenizer", loss + share * quantised.loss)
        observe(tokenizer.quantizer, z.detach(), quantised.tokens, batch, engine)
        log |= self.losses.discriminate(shown, images, engine)
        used = perplexity(quantised.tokens, tokenizer.vocabulary)
        return {"reconstruction": error, "quantizer": quantised.loss, "perplexity": used, **log}

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        """Compute the error of the reconstruction. Codebook and discriminator stay as they are."""
        images, tokenizer = batch.images, self.tokenizer
        raw = tokenizer.decoded(tokenizer.vectors(tokenizer.encode(images)))
        error = reconstruction_error(raw, images, self.config.losses, shrunk(images))
        return {"reconstruction": error}

    def _noise(self, batch: Batch, z: Tensor) -> Tensor | None:
        """Draw the Gumbel numbers of a step, if the quantizer needs them."""
        if self.config.quantizer.kind != "gumbel":
            return None
        shape = (self.tokenizer.vocabulary, *z.shape[2:])
        return gumbel(batch.noise.uniform("gumbel", 0, shape))

    @torch.no_grad()
    def preview(self, batch: Batch) -> Tensor:
        """Pair each image with its reconstruction.

        Args:
            batch: A batch of B images.

        Returns:
            Images (2 B, 3, H, W): image 0, its reconstruction, image 1, and so on.
        """
        reconstructions = self.tokenizer.decode(self.tokenizer.encode(batch.images))
        return torch.stack([batch.images, reconstructions], 1).flatten(0, 1)


def of_generator(networks: Networks) -> ImageTokenizer:
    """Return the tokenizer of a model: its generator's attribute `tokenizer`.

    Args:
        networks: The model's networks.

    Returns:
        The tokenizer.
    """
    tokenizer = networks.generator.get_submodule("tokenizer")
    assert isinstance(tokenizer, ImageTokenizer)
    return tokenizer


def tokenizer_stage(
    config: TokenizerConfig,
    batch_size: int,
    of: Callable[[Networks], ImageTokenizer] = of_generator,
) -> list[Stage]:
    """Return the stage that trains a tokenizer.

    Args:
        config: Settings of the tokenizer and its training.
        batch_size: The model's batch size, for settings without one.
        of: Function that returns the tokenizer of a model's networks.

    Returns:
        The stage "tokenizer". Empty if the tokenizer is pretrained.
    """

    def trainer(networks: Networks) -> Trainer:
        return TokenizerTrainer(config, of(networks))

    own = {"batch_size": config.batch_size or batch_size}
    return [] if config.weights else [Stage("tokenizer", config.share, trainer, own)]
