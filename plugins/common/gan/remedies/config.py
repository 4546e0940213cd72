"""Settings of the remedies for mode collapse, which every GAN has.

This module does not import torch, so that settings can be listed quickly.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import ModelConfig

Policy = Literal["color", "translation", "cutout"]
"""A part of DiffAugment."""


class RemediesConfig(ModelConfig):
    """Settings of the remedies. With the defaults a model trains as its paper says."""

    loss: Literal["own", "wasserstein", "relativistic"] = "own"
    """Adversarial loss: that of the model's paper, Wasserstein's, or R3GAN's relativistic one.

    It replaces the adversarial terms alone. The model's other terms keep their weights."""

    lipschitz: Literal["penalty", "clip"] = "penalty"
    """What bounds a Wasserstein critic: WGAN-GP's gradient penalty, or clipped weights. Only used
    with loss "wasserstein"."""

    lipschitz_weight: float = Field(10.0, ge=0)
    """Weight of the Wasserstein critic's gradient penalty E[(|grad D| - 1)^2]."""

    clip_weights: float = Field(0.01, gt=0)
    """Largest absolute value of a Wasserstein critic's weights. Only used with lipschitz "clip"."""

    r1_r2: float = Field(0.1, ge=0)
    """Weight gamma of the relativistic loss's penalties, gamma/2 (R1 + R2), in every step. 0: they
    are left out."""

    critic_steps: int = Field(1, ge=1)
    """Steps of the discriminators for each step of the generator, each on a batch of its own. The
    generator is updated in every `critic_steps`-th step of the run."""

    critic_norm: Literal["own", "layer"] = "own"
    """Normalisation in the discriminators: the model's own, or "layer": each batch norm becomes a
    layer norm over channels, height and width."""

    pack: int = Field(1, ge=1, le=16)
    """Number m of images that a discriminator scores together (PacGAN). 1: each image alone."""

    unroll: int = Field(0, ge=0, le=100)
    """Number K of discriminator updates that the generator's loss looks ahead and differentiates
    through. 0: none."""

    unroll_lr: float = Field(0.01, gt=0)
    """Learning rate of these updates, which are plain gradient descent. 10 to 100 times `lr_d` is
    usual."""

    augment_images: Literal["none", "diffaugment", "ada"] = "none"
    """Augmentation of the real and generated images that a discriminator sees, against overfitting
    to a small data set: none, DiffAugment, or ADA with its adaptive probability."""

    diffaugment: tuple[Policy, ...] = ("color", "translation", "cutout")
    """Parts of DiffAugment. Captions that name colours may do better without "color"."""

    ada_target: float = Field(0.6, ge=-1, le=1)
    """ADA's target of r_t, the mean sign of the scores of real images."""

    ada_images: int = Field(500_000, ge=1)
    """Number of images over which ADA's probability can rise from 0 to 1."""

    @property
    def twice(self) -> str | None:
        """The setting that differentiates twice through a discriminator; None if there is none."""
        if self.unroll:
            return f"unroll={self.unroll}"
        if self.loss == "wasserstein" and self.lipschitz == "penalty":
            return "loss=wasserstein with lipschitz=penalty"
        if self.loss == "relativistic" and self.r1_r2:
            return "loss=relativistic with r1_r2"
        return None

    @model_validator(mode="after")
    def _remedies_fit(self) -> Self:
        if self.twice and self.compile:
            raise ValueError(
                f"{self.twice} differentiates twice through the discriminator, which a compiled "
                "network does not support: use compile=false"
            )
        if self.twice and self.precision == "fp16":
            raise ValueError(
                f"{self.twice} takes gradients that fp16's loss scale does not protect: use "
                "precision=bf16 or no"
            )
        if self.unroll and self.loss == "wasserstein":
            raise ValueError(
                "unroll: the updates that it looks ahead have no Lipschitz bound, which "
                "loss=wasserstein needs: use critic_steps instead, or loss=own"
            )
        if self.augment_images == "ada" and self.loss == "wasserstein":
            raise ValueError(
                "augment_images=ada measures overfitting by the sign of scores, which means "
                "nothing with loss=wasserstein: use augment_images=diffaugment"
            )
        if self.augment_images == "diffaugment" and not self.diffaugment:
            raise ValueError(
                "augment_images=diffaugment with no part: name some of diffaugment="
                "[color,translation,cutout], or use augment_images=none"
            )
        rows = self.batch_size // self.accumulate
        if self.pack > 1 and (rows % self.pack or rows < 2 * self.pack):
            raise ValueError(
                f"pack={self.pack}: a batch (each of its `accumulate` parts) has {rows} images, "
                f"and must have a multiple of {self.pack}, two packs at least: use another "
                "batch_size"
            )
        return self
