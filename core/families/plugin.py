"""The plugin of the built-in families. Other plugins can declare more families by the same hook."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import FamilySpec

FAMILIES = {
    "one-shot": ("one_shot:OneShotGenerator", "One pass from noise to images: GANs, VAEs"),
    "flow": ("flow:FlowGenerator", "An invertible map between noise and data, with its density"),
    "diffusion": (
        "diffusion:DiffusionGenerator",
        "A network called along a path from noise to images",
    ),
    "autoregressive": (
        "autoregressive:AutoregressiveGenerator",
        "Tokens, each given those before it",
    ),
    "discrete-diffusion": (
        "discrete:DiscreteDiffusionGenerator",
        "Tokens, all at once, unmasked step by step",
    ),
    "cascade": (
        "cascade:CascadeGenerator",
        "Generators in a row, each conditioned on the sample of the one before",
    ),
    "optimised": (
        "optimised:OptimisedGenerator",
        "An image that climbs a score of how well it fits the text",
    ),
    "guide": (
        "guide:GuideGenerator",
        "A classifier of noisy images that steers a diffusion model; samples no images",
    ),
}

UNDRAWN = ("guide",)
"""Families whose models sample no images."""


@hookimpl
def t2i_families() -> list[FamilySpec]:
    """Declare the built-in families.

    Returns:
        One specification for each.
    """
    return [
        FamilySpec(
            name=name,
            summary=summary,
            generator=f"t2i.core.families.{path}",
            draws=name not in UNDRAWN,
        )
        for name, (path, summary) in FAMILIES.items()
    ]
