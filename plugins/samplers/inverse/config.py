"""Settings of the sampler `inverse`."""

from __future__ import annotations

from pydantic import Field

from t2i.core.interfaces.sampler import SamplerConfig


class InverseConfig(SamplerConfig):
    """Settings of the sampler of flows. `steps` is ignored."""

    temperature: float = Field(1.0, gt=0, le=10)
    """Factor of the noise, above 0. Below 1: less variety, and images that the flow finds more
    probable. Glow samples at 0.7."""

    anneal: bool = False
    """Whether guidance grows linearly from 0 at the first token of a sequence to `guidance` at the
    last one."""

    parallel: bool = False
    """Whether a flow of one token after the other computes all of them at once instead, again and
    again until nothing changes (Jacobi's iteration). The image is the same up to rounding. Other
    flows ignore it."""

    tolerance: float = Field(1e-5, ge=0)
    """Largest change of a token's value at which these sweeps end, in each block of the flow. 0:
    they end once nothing changes, after as many sweeps as there are tokens at most."""

    denoise: bool = True
    """Whether to remove the noise of training (`noise_std`) from the sample, by one step of the
    score that the flow gives. Flows that were trained without such noise ignore it."""
