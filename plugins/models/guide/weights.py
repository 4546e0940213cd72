"""Import of the classifiers that ADM's authors released, such as 256x256_classifier.pt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.legacy import read_legacy, side, state_dict
from t2i.plugins.models.guide.config import GuideConfig
from t2i.plugins.models.guide.networks import NoisyClip


def load_weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a guide with the weights of one of ADM's classifiers (`t2i import`).

    A caption is then the name of a class: those of the setting `classes`, or the numbers 0, 1, ...

    Args:
        config: The run's configuration, whose `adm` is that of the classifier.
        files: The file, exactly one.

    Returns:
        The guide.

    Raises:
        UserError: There is not exactly one file, or it is no such classifier.
    """
    if len(files) != 1:
        raise UserError(f"guide: one file holds the whole classifier, {len(files)} are given")
    path, where, settings = files[0], str(files[0]), config.settings
    assert isinstance(settings, GuideConfig)
    state = state_dict(read_legacy(path), where)
    count = side(state, "out.2.c_proj.weight", where)
    named = settings.classes
    if named and len(named) != count:
        raise UserError(f"classes: {len(named)} are named, and {where} has {count}")
    document = {
        **config.dump(),
        "classes": named or tuple(str(i) for i in range(count)),
        "data": {"name": "none"},
        "encoder": {"name": "none"},
    }
    model = build(RunConfig.parse(document, where))
    generator = model.generator
    assert isinstance(generator, NoisyClip)
    load_state(generator.image, state, f"weights {where}")
    return model
