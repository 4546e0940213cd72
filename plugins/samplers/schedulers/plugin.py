"""The samplers that use diffusers' schedulers."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec

CONFIGS = {"pndm": "PNDMConfig", "diffusers": "NativeConfig"}
"""Classes of settings in `config.py`, where they are not `SchedulerConfig`."""

MODULES = {"diffusers": "native"}
"""Modules of builders that are not in `sampler.py`."""

SAMPLERS = {
    "euler": ("euler", "Euler steps of the probability flow: DDIM, in another form"),
    "euler-a": ("euler_ancestral", "Euler steps with fresh noise after each"),
    "heun": ("heun", "Second order, two network calls a step"),
    "lms": ("lms", "Linear multistep of order 4"),
    "pndm": ("pndm", "Pseudo linear multistep (Liu et al. 2022)"),
    "dpmpp-2m": ("dpm_solver_2m", "DPM-Solver++, second order, multistep (Lu et al. 2022)"),
    "dpmpp-2m-sde": ("dpm_solver_2m_sde", "DPM-Solver++ of the stochastic equation, second order"),
    "unipc": ("unipc", "Predictor and corrector, second order (Zhao et al. 2023)"),
    "diffusers": ("native", "Any scheduler of diffusers as it is, with its own timesteps"),
}
"""Builder and one-line summary of each sampler, by its registry name."""


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the samplers that run on diffusers' schedulers.

    Returns:
        One specification for each entry of `SAMPLERS`.
    """
    return [
        SamplerSpec(
            name=name,
            summary=summary,
            config=f"t2i.plugins.samplers.schedulers.config:{CONFIGS.get(name, 'SchedulerConfig')}",
            build=f"t2i.plugins.samplers.schedulers.{MODULES.get(name, 'sampler')}:{attribute}",
            families=("diffusion",),
        )
        for name, (attribute, summary) in SAMPLERS.items()
    ]
