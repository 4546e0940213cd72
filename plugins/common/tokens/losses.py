"""Losses of autoencoders on images: reconstruction, perceptual and adversarial terms.

Sources: Esser et al. 2021 (adaptive weight); Ramesh et al. 2021, appendix A.3 (logit-Laplace).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.interfaces.trainer import Engine, Losses
from t2i.plugins.common.tokens.patches import PatchDiscriminator
from t2i.plugins.common.tokens.perceptual import Perceptual, load_perceptual
from t2i.plugins.common.tokens.tokenizer_config import AdversarialConfig, LossesConfig

DELTA = 1e-4
"""Number that is added to the norm of the adversarial gradient."""
LARGEST = 1e4
"""Largest adaptive weight."""


def logit_laplace(x: Tensor, mu: Tensor, log_b: Tensor) -> Tensor:
    """Compute -log f(x) = log(2 b x (1 - x)) + |logit(x) - mu| / b, averaged over all values.

    Args:
        x: Images in (0, 1).
        mu: Location of their logits.
        log_b: Logarithm of the scale b.

    Returns:
        The loss, a scalar.
    """
    density = log_b + (x * (1 - x)).log() + math.log(2)
    return (density + (x.logit() - mu).abs() * (-log_b).exp()).mean()


def reconstruction_error(
    raw: Tensor, images: Tensor, config: LossesConfig, shrunk: Tensor | None = None
) -> Tensor:
    """Compute the error of a reconstruction.

    Args:
        raw: What the decoder returns, (B, 3, H, W), or (B, 6, H, W) for "logit_laplace".
        images: Images (B, 3, H, W) in [-1, 1].
        config: The settings `reconstruction` and `variance`.
        shrunk: Images in (0, 1), for "logit_laplace".

    Returns:
        The error, a scalar.
    """
    if config.reconstruction == "l1":
        return (raw - images).abs().mean()
    if config.reconstruction == "l2":
        return (raw - images).square().mean() / (config.variance or 1)
    assert shrunk is not None
    mu, log_b = raw.chunk(2, 1)
    return logit_laplace(shrunk, mu, log_b)


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Compute the discriminator's loss, the mean of that of real and of reconstructed images.

    Args:
        real: Scores of images.
        fake: Scores of reconstructions.
        kind: "hinge" or "bce".

    Returns:
        The loss, a scalar.
    """
    if kind == "bce":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    return 0.5 * ((1 - real).relu().mean() + (1 + fake).relu().mean())


def adaptive_weight(nll: Tensor, adversarial: Tensor) -> Tensor:
    """Compute the weight with which the adversarial gradient is as large as that of the error.

    Args:
        nll: Gradient of reconstruction and perceptual term at the decoder's last layer.
        adversarial: Gradient of the adversarial term there.

    Returns:
        The ratio of their norms, at most 1e4, without gradients.
    """
    ratio: Tensor = torch.linalg.vector_norm(nll) / (torch.linalg.vector_norm(adversarial) + DELTA)
    return ratio.clamp(0, LARGEST).detach()


class ImageLosses:
    """The perceptual and adversarial terms of a trainer, with the discriminator.

    Args:
        config: Their settings.
        lr: Learning rate of the autoencoder, which the discriminator's is by default.
        betas: Adam's decay rates.

    Attributes:
        config: Their settings.
        modules: The discriminator, if there is one.
        optimizers: Its optimizer, if there is one.
    """

    def __init__(self, config: AdversarialConfig, lr: float, betas: tuple[float, float]) -> None:
        self.config = config
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Adam] = {}
        self._perceptual: Perceptual | None = load_perceptual() if config.perceptual else None
        if config.adversarial:
            discriminator = PatchDiscriminator(config.discriminator)
            self.modules["discriminator"] = discriminator
            self.optimizers["discriminator"] = Adam(
                discriminator.parameters(), config.discriminator.lr or lr, betas=betas, fused=True
            )

    def started(self, progress: float) -> bool:
        """Return whether the discriminator is on.

        Args:
            progress: Progress of the stage, 0 to 1.

        Returns:
            Whether there is one, and its share of the stage has begun.
        """
        return bool(self.modules) and progress >= self.config.adversarial_start

    def total(
        self,
        error: Tensor,
        raw: Tensor,
        shown: Tensor,
        images: Tensor,
        last_layer: nn.Parameter,
        progress: float,
    ) -> tuple[Tensor, Losses]:
        """Add the perceptual and the adversarial term to the error of a reconstruction.

        Args:
            error: The error, a scalar.
            raw: What the decoder returns, which `error` and `shown` are computed from.
            shown: The reconstructions, (B, 3, H, W).
            images: The images, (B, 3, H, W).
            last_layer: Weights of the decoder's last layer, for the adaptive weight.
            progress: Progress of the stage, 0 to 1.

        Returns:
            The loss for the autoencoder, and what the log shows.
        """
        log: Losses = {}
        nll = error
        if self._perceptual is not None:
            self._perceptual.to(images.device)
            perceptual = self._perceptual(images, shown).mean()
            log["perceptual"] = perceptual
            nll = nll + self.config.perceptual * perceptual
        if not self.started(progress):
            return nll, log
        g = -self.modules["discriminator"](shown).mean()
        log["adversarial"] = g
        if not self.config.adaptive:
            return nll + self.config.adversarial * g, log
        loss, weight = balanced(nll, g, raw, last_layer, self.config.adversarial)
        return loss, {**log, "adaptive": weight}

    def discriminate(self, shown: Tensor, images: Tensor, engine: Engine) -> Losses:
        """Train the discriminator, if it is on.

        Args:
            shown: The reconstructions, (B, 3, H, W).
            images: The images, (B, 3, H, W).
            engine: The engine.

        Returns:
            What the log shows.
        """
        if not self.started(engine.progress):
            return {}
        discriminator = self.modules["discriminator"]
        real, fake = discriminator(images), discriminator(shown.detach())
        loss = discriminator_loss(real, fake, self.config.adversarial_loss)
        engine.update("discriminator", loss)
        return {"discriminator": loss, "real": real.mean(), "fake": fake.mean()}


def balanced(
    nll: Tensor, g: Tensor, raw: Tensor, last_layer: nn.Parameter, weight: float
) -> tuple[Tensor, Tensor]:
    """Compute nll + lambda g with the adaptive weight lambda.

    The gradient of each term is taken once, at the decoder's output. The backward pass of the loss
    that is returned begins there.

    Args:
        nll: Reconstruction and perceptual term, a scalar.
        g: Adversarial term, a scalar.
        raw: The decoder's output, which both are computed from.
        last_layer: Weights of the decoder's last layer.
        weight: Number that the adaptive weight is multiplied by.

    Returns:
        The loss, with its value and its gradients, and lambda.
    """
    with torch.autocast(raw.device.type, enabled=False):
        # What precedes `raw` is not reached, and `shown` may be shared by both.
        (of_nll,) = torch.autograd.grad(nll, raw, retain_graph=True)
        (of_g,) = torch.autograd.grad(g, raw)
        at_layer: Mapping[str, Tensor] = {
            name: torch.autograd.grad(raw, last_layer, gradient, retain_graph=True)[0]
            for name, gradient in (("nll", of_nll), ("g", of_g))
        }
    factor = weight * adaptive_weight(at_layer["nll"], at_layer["g"])
    value = (nll + factor * g).detach()
    gradient = of_nll + factor.to(of_g) * of_g
    return value + ((raw - raw.detach()) * gradient).sum(), factor
