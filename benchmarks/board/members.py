"""The models that belong on the board."""

from __future__ import annotations

from t2i.benchmarks.run.plan import named_models
from t2i.core.registry.tables import registry


def wanted_models() -> list[str]:
    """List the models that belong on the board, in order of their names.

    Returns:
        The models that draw images of captions and have the preset `shapes`. Upsamplers, which
        enlarge those of others, are left out.
    """
    names = named_models("all", upsamplers=False)
    return [name for name in names if "shapes" in registry().models[name].presets]
