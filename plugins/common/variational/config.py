"""Settings that variational models share. This module does not import torch."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import ModelConfig


class BoundConfig(ModelConfig):
    """Settings of the bound that is minimised: -log p(x | z, t) + beta KL(q(z | x, t) || p(z | t)).

    Both terms are summed over dimensions and averaged over images. The loss is their sum divided by
    the number of values in x, which changes no weight between the two.
    """

    beta: float = Field(1.0, ge=0)
    """Weight of the KL term. 1 is the bound on the likelihood. The term is summed over the latent
    dimensions, the likelihood over the values of an image: neither is averaged."""

    kl_warmup: float = Field(0.0, ge=0, le=1)
    """Share of the stage over which the weight of the KL term rises linearly from 0 to `beta`. 0:
    it is `beta` from the first step on."""

    free_bits: float = Field(0.0, ge=0)
    """Least KL of a latent feature map in the loss, in nats: the KL is summed over its places,
    averaged over the batch, and counted as this much if it is less. 0: no such floor. The bound
    that is logged and measured never has it."""
