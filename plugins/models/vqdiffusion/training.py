"""Training of VQ-Diffusion: the tokenizer, then discrete diffusion on its tokens.

Source: Gu et al. 2022, section 3.2; the auxiliary loss and importance sampling as in the released
code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.strata import middles
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.text.along import train_along
from t2i.plugins.common.tokens.training import tokenizer_stage
from t2i.plugins.models.vqdiffusion.config import VQDiffusionConfig
from t2i.plugins.models.vqdiffusion.networks import VQDiffusionGenerator

VISITS = 10
"""Timesteps are drawn uniformly until each was seen more often than this."""


class Timesteps(nn.Module):
    """Draws timesteps in proportion to the root of their mean squared loss.

    The state is in buffers, so that a resumed run draws the same timesteps.

    Source: Nichol & Dhariwal 2021, section 3.3, in the form of VQ-Diffusion's released code:
    running means, of which the first timestep has that of the second.

    Args:
        timesteps: Number T of timesteps.
        importance: Whether they are drawn so. False: uniformly.

    Attributes:
        history: Running mean of the squared loss of each timestep, (T,).
        visits: How often each timestep was seen, (T,).
    """

    history: Tensor
    visits: Tensor

    def __init__(self, timesteps: int, importance: bool) -> None:
        super().__init__()
        self.importance = importance
        self.register_buffer("history", torch.zeros(timesteps))
        self.register_buffer("visits", torch.zeros(timesteps))

    def probabilities(self) -> Tensor:
        """Compute the probability with which each timestep is drawn.

        Returns:
            Probabilities, float64 (T,).
        """
        weights = (self.history.double() + 1e-10).sqrt() + 1e-4
        weights = torch.cat([weights[1:2], weights[1:]])
        ready = (self.visits > VISITS).all() & self.importance
        weights = torch.where(ready, weights, 1.0)
        return weights / weights.sum()

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Draw a timestep for each image.

        Args:
            noise: Source of random numbers for B images.

        Returns:
            Timesteps, int64 (B,), from 1 to T, and their probabilities, float64 (B,).
        """
        p = self.probabilities()
        index = noise.categorical("t", 0, p.log().expand(len(noise), -1))
        return index + 1, p[index]

    def observe(self, t: Tensor, loss: Tensor, engine: Engine) -> None:
        """Update the running means. All processes see the losses of all images.

        Images of one timestep count as one observation, their mean.

        Args:
            t: Timestep of each image, int64 (B,), from 1.
            loss: Loss of each image, (B,).
            engine: The engine.
        """
        t, loss = engine.gathered(torch.stack([t.double(), loss.detach().double()], 1)).unbind(1)
        mine = t[:, None] == torch.arange(1, len(self.history) + 1, device=t.device)
        count = mine.sum(0)
        mean = (mine * loss[:, None] ** 2).sum(0) / count.clamp_min(1)
        fresh = 0.9 * self.history.double() + 0.1 * mean
        self.history.copy_(torch.where(count > 0, fresh, self.history.double()))
        self.visits.add_(count)


class VQDiffusionTrainer(Trainer):
    """Trains the transformer by the variational bound and an auxiliary loss, or as MaskGIT.

    A text encoder that can be trained is trained with it.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: VQDiffusionConfig, networks: Networks) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, VQDiffusionGenerator)
        self.config, self.generator = config, generator
        self.encode = generator.encode
        generator.tokenizer.requires_grad_(False).eval()
        self.times = Timesteps(config.timesteps, config.importance).to(generator.device)
        self.modules: dict[str, nn.Module] = {
            "transformer": generator.transformer, "timesteps": self.times,
        }  # fmt: skip
        groups: list[dict[str, Any]] = [{"params": list(generator.transformer.parameters())}]
        train_along(text_encoder, config.lr_text, self.modules, groups)
        decay = config.weight_decay
        self.optimizers = {
            "transformer": AdamW(
                groups, config.lr, betas=config.betas, weight_decay=decay, fused=True
            )
        }

    def step(self, batch: Batch, engine: Engine) -> Losses:
        with torch.no_grad():
            x_0 = self.generator.encode(batch.images) if batch.encoded is None else batch.encoded
        text = self.generator.condition(batch.dropped(self.config.caption_dropout)[0])
        t, p_t = self.times.draw(batch.noise)
        loss, losses, terms = self.errors(x_0, t, p_t, text, batch.noise)
        if terms is not None:
            self.times.observe(t, terms, engine)
        if self.config.text.text_map and self.config.text.outline:
            losses["outline"] = self.outline(x_0, text)
            loss = loss + self.config.text.outline * losses["outline"]
        engine.update("transformer", loss)
        return losses

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        """Compute the losses at the middles of strata of the timesteps, each as likely."""
        x_0, timesteps = self.generator.encode(batch.images), self.config.timesteps
        text = self.generator.condition(batch.dropped(self.config.caption_dropout)[0])
        t = (middles(len(x_0), x_0.device) * timesteps).long() + 1
        p_t = torch.full(t.shape, 1 / timesteps, dtype=torch.float64, device=x_0.device)
        return self.errors(x_0, t, p_t, text, batch.noise)[1]

    def errors(
        self, x_0: Tensor, t: Tensor, p_t: Tensor, text: TextFeatures, noise: Noise
    ) -> tuple[Tensor, Losses, Tensor | None]:
        """Compute the losses of the transformer.

        Args:
            x_0: Clean tokens, int64 (B, L).
            t: Timesteps, int64 (B,), from 1.
            p_t: Probability of each of them, float64 (B,).
            text: Their captions, conditioned.
            noise: Source of the noise on the tokens.

        Returns:
            The loss, its parts for the log, and the terms of the bound, (B,), as
            `Timesteps.observe` takes them (None: MaskGIT's loss).
        """
        x_t = self.generator.schedule.add_noise(x_0, t, noise)
        logits = self.generator(x_t, t, text)
        if self.config.objective == "masked":
            return *self.masked(logits, x_0, x_t), None
        return self.bound(logits, x_0, x_t, t, p_t)

    def bound(
        self, logits: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, p_t: Tensor
    ) -> tuple[Tensor, Losses, Tensor]:
        """Compute the variational bound and the auxiliary loss.

        Each timestep's terms are divided by its probability p_t, so that the mean over timesteps as
        they are drawn is the sum over all of them. Both are means over images and tokens.

        Source: Gu et al. 2022, eq. 9, 10 and 12.

        Args:
            logits: Logits of x_0, (B, L, K).
            x_0: Clean tokens, int64 (B, L).
            x_t: Noisy tokens, int64 (B, L).
            t: Timesteps, int64 (B,), from 1.
            p_t: Probability of each of them, float64 (B,).

        Returns:
            The loss, its parts for the log, and the terms of each image, (B,).
        """
        config, schedule = self.config, self.generator.schedule
        kl = schedule.divergence(x_t, x_0, logits, t - 1, t)
        nll = F.cross_entropy(logits.float().flatten(0, 1), x_0.flatten(), reduction="none")
        nll = nll.view_as(x_0).double()
        masked, seen = config.token_weights
        weight = torch.where(x_t == schedule.mask, masked, seen).double()
        weight = torch.where(t[:, None] == 1, 1.0, weight)  # -log p(x_0 | x_1) has no weights
        terms = (weight * kl).sum(1)
        scale = 2 - (t - 1) / config.timesteps if config.adaptive else torch.ones_like(p_t)
        auxiliary = config.auxiliary * scale * (weight * nll).sum(1)
        tokens = x_0.shape[1]
        parts = {
            "bound": (terms / p_t).mean() / tokens, "auxiliary": (auxiliary / p_t).mean() / tokens,
        }  # fmt: skip
        return parts["bound"] + parts["auxiliary"], parts, terms

    def masked(self, logits: Tensor, x_0: Tensor, x_t: Tensor) -> tuple[Tensor, Losses]:
        """Compute MaskGIT's loss: the mean cross-entropy of the masked tokens.

        Source: Chang et al. 2022, eq. 1.

        Args:
            logits: Logits of x_0, (B, L, K).
            x_0: Clean tokens, int64 (B, L).
            x_t: Noisy tokens, int64 (B, L).

        Returns:
            The loss, twice.
        """
        nll = F.cross_entropy(
            logits.float().flatten(0, 1), x_0.flatten(), reduction="none",
            label_smoothing=self.config.label_smoothing,
        )  # fmt: skip
        hidden = (x_t == self.generator.schedule.mask).flatten().to(nll)
        loss = (nll * hidden).sum() / hidden.sum().clamp_min(1)
        return loss, {"masked": loss}

    def outline(self, x_0: Tensor, text: TextFeatures) -> Tensor:
        """Compute the cross-entropy of tokens that are predicted from the text map alone.

        Args:
            x_0: Clean tokens, int64 (B, L).
            text: Their captions, conditioned.

        Returns:
            The loss, a scalar.
        """
        logits = self.generator.transformer.outline(text).flatten(2)
        return F.cross_entropy(logits.float(), x_0)


def stages(config: VQDiffusionConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the stages: `tokenizer`, which is left out if it has weights, then `diffusion`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. Stage `diffusion` trains it if it is trainable.

    Returns:
        The stages in order.
    """
    first = tokenizer_stage(config.tokenizer, config.batch_size)
    rest = 1 - sum(stage.share for stage in first)
    return [*first, Stage("diffusion", rest, partial(VQDiffusionTrainer, config))]
