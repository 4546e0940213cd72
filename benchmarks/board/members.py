"""The models that belong on the board."""

from __future__ import annotations

from t2i.core.families.cascade import Enlarging
from t2i.core.registry.specs import ModelSpec, import_object
from t2i.core.registry.tables import registry


def wanted_models() -> list[str]:
    """List the models that belong on the board, in order of their names.

    Returns:
        The models that draw images of captions and have the preset `shapes`. Upsamplers, which
        enlarge those of others, are left out.
    """
    table = registry().models
    fitting = [spec for spec in table if "shapes" in spec.presets and registry().draws(spec.family)]
    return [spec.name for spec in fitting if not _enlarges(spec)]


def _enlarges(spec: ModelSpec) -> bool:
    generator = import_object(spec.generator)
    return isinstance(generator, type) and issubclass(generator, Enlarging)
