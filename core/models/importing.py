"""Runs made of weights that others trained: the files of a paper's authors, read by the model's own
importer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import arriving, check_free, write_json
from t2i.core.models.model import Model
from t2i.core.registry.specs import ModelSpec, import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run
from t2i.core.runs.record import write_config


def importable(model: str) -> ModelSpec:
    """The specification of a model that has official weights. UserError, naming those that have, if
    it has none."""
    spec = registry().models[model]
    if spec.weights is None:
        able = [other.name for other in registry().models if other.weights]
        raise UserError(
            f"model '{model}' imports no weights; those that do: "
            f"{', '.join(able) or 'none is installed'}"
        )
    return spec


def default_preset(spec: ModelSpec) -> str:
    """The preset that weights are taken for where none is named: the first but "tiny", of which
    nobody released any."""
    return next((name for name in spec.presets if name != "tiny"), spec.presets[0])


def import_weights(
    model: str, files: Sequence[Path], out: Path, *, preset: str | None = None,
    sets: Sequence[str] = (),
    command: str = "",
) -> Run:  # fmt: skip
    """A run, complete and ready to be drawn from, in the folder `out`, which must be new or empty.

    UserError if the model imports nothing, a setting is wrong, `out` is taken, or the files are not
    what the model's importer knows: then there is no run.
    """
    spec = importable(model)
    config = resolve_config(
        model, preset=preset or default_preset(spec), sets=sets, data_needed=False
    )
    check_free(Path(out))
    sources = [_source(Path(path)) for path in files]
    imported: Model = import_object(str(spec.weights))(config, [Path(path) for path in files])
    with arriving(Path(out)) as folder:
        place = Run(folder)
        write_config(place, imported.config, None, command)
        imported.save(place.model)
        write_json(place.summary_file, _summary(imported, sources))
    return Run(Path(out))


def _source(path: Path) -> dict[str, Any]:
    """What is recorded of a file that is imported, or of a folder."""
    if path.is_dir():
        inside = [each for each in path.rglob("*") if each.is_file()]
        return {
            "folder": path.name,
            "files": len(inside),
            "size": sum(each.stat().st_size for each in inside),
        }
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the files of weights themselves") from None
    return {"file": path.name, "size": path.stat().st_size, "sha256": digest}


def _summary(model: Model, sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `summary.json` says of a run that was not trained here: no steps, no seconds."""
    generator = sum(p.numel() for p in model.generator.parameters())
    encoder = sum(p.numel() for p in model.text_encoder.parameters())
    return {
        "imported": list(sources),
        "parameters": {"all": generator + encoder, "generator": generator},
    }
