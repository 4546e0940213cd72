"""Settings of the sampler `maskgit`."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.tokens.config import TokenSamplerConfig


class MaskGITConfig(TokenSamplerConfig):
    """Settings of MaskGIT's sampler."""

    randomness: float = Field(4.5, ge=0)
    """Weight of the Gumbel noise that is added to the confidence in each token.

    At least 0; 0 turns the noise off. The weight falls linearly to 0 over the chain.
    """
