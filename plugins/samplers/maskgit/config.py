"""Settings of the `maskgit` sampler."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.tokens.config import TokenSamplerConfig


class MaskGITConfig(TokenSamplerConfig):
    """randomness: weight of the Gumbel noise in a token's confidence, which falls to 0 over the chain (0: none)."""

    randomness: float = Field(4.5, ge=0)
