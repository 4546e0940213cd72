"""Training of variational autoencoders: one optimizer climbs one bound."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.likelihood import LEVELS
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import (
    Batch,
    Engine,
    Losses,
    Networks,
    Optimization,
    Stage,
    Trainer,
)
from t2i.plugins.common.text.along import train_along
from t2i.plugins.common.variational.bound import kl_by_map, kl_weight, with_free_bits
from t2i.plugins.common.variational.clipping import SkippingAdamW
from t2i.plugins.models.vae.config import VAEConfig
from t2i.plugins.models.vae.networks import VAEGenerator
from t2i.plugins.models.vae.outputs import Scaled


class VAETrainer(Trainer):
    """Minimises -log p(x | z, t) + beta KL, in nats per dimension of x.

    Both terms are sums over dimensions; their sum is divided by D, the number of values of x, so
    that learning rates and clipping mean the same for every size.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: VAEConfig, networks: Networks) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, VAEGenerator)
        self.config, self.generator = config, generator
        self.modules: dict[str, nn.Module] = {
            "network": generator.network,
            "output": generator.output,
        }
        self.encode = None if generator.autoencoder is None else generator.encode
        scales = [generator.output.log_sigma] if isinstance(generator.output, Scaled) else []
        rest = [
            p for module in self.modules.values() for p in module.parameters()
            if not any(p is scale for scale in scales)
        ]  # fmt: skip
        groups: list[dict[str, Any]] = [{"params": rest}]
        if scales:
            groups.append(
                {"params": scales, "lr": config.sigma_pace * config.lr, "weight_decay": 0.0}
            )
        train_along(text_encoder, config.lr_text, self.modules, groups)
        optimizer = SkippingAdamW(
            groups, config.clip, config.skip, lr=config.lr, betas=config.betas,
            weight_decay=config.weight_decay, fused=True,
        )  # fmt: skip
        own = config.clip or config.skip  # else the engine's grad_clip applies
        self.optimizers = {"vae": Optimization(optimizer, clip=0.0 if own else None)}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        x = self.clean(batch)
        text = self.generator.condition(batch.text)
        seen = self.generator.infer(x, text, batch.noise)
        maps = kl_by_map(seen.latents)
        dims = x[0].numel()
        reconstruction, kl = -seen.log_prob.mean() / dims, maps.sum(1).mean() / dims
        counted = kl
        if self.config.free_bits:
            counted = with_free_bits(engine.gathered(maps), self.config.free_bits) / dims
        loss = reconstruction + kl_weight(self.config, engine.progress) * counted
        losses: Losses = {"reconstruction": reconstruction, "kl": kl}
        losses["bound"] = reconstruction + kl
        if self.generator.autoencoder is None:
            # A density of x in [-1, 1] is turned into a probability of 8-bit images.
            volume = 0.0 if self.generator.output.discrete else math.log(LEVELS / 2)
            losses["bits_per_dim"] = (losses["bound"].detach() + volume) / math.log(2)
        if isinstance(self.generator.output, Scaled):
            losses["log_sigma"] = self.generator.output.scale().mean().detach()
        network = self.generator.network
        if network.outline_weight:
            guess = network.outline(text)
            losses["outline"] = F.mse_loss(guess, F.adaptive_avg_pool2d(x, guess.shape[-1]))
            loss = loss + network.outline_weight * losses["outline"]
        engine.update("vae", loss)
        return losses

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        losses = self.step(batch, engine)  # it changes nothing but through `engine.update`
        return {name: losses[name] for name in ("bound", "reconstruction", "kl")}

    @torch.no_grad()
    def clean(self, batch: Batch) -> Tensor:
        """Return x of a batch: latents, levels of 8-bit pixels, or dequantised pixels.

        Args:
            batch: Training examples.

        Returns:
            x, float (B, C, h, h).
        """
        if batch.encoded is not None:
            return batch.encoded
        if self.generator.autoencoder is not None:
            return self.generator.encode(batch.images)
        levels = ((batch.images + 1) * 127.5).round()
        if self.generator.output.discrete:
            return levels / 127.5 - 1
        u = batch.noise.uniform("dequantise", 0, levels.shape[1:])
        return (levels + u) / (LEVELS / 2) - 1


def stages(config: VAEConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the one stage, which trains a trainable text encoder too.

    Args:
        config: The model's settings.
        text_encoder: Not used here.

    Returns:
        The stage `vae`.
    """
    return [Stage("vae", 1.0, partial(VAETrainer, config))]
