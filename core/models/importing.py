"""Making runs from weights that others trained, such as the files that a paper's authors released.

Each model has its own function that reads these files (`ModelSpec.weights`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import check_regular
from t2i.core.io.folders import arrive_numbered, arriving, check_free, filling
from t2i.core.io.json_files import write_json
from t2i.core.models.foreign import reading
from t2i.core.models.model import Model
from t2i.core.registry.specs import ModelSpec, import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import RUNS, Run
from t2i.core.runs.record import write_config


def importable(model: str) -> ModelSpec:
    """Look up a model that can import official weights.

    Args:
        model: Name of the model.

    Returns:
        Its specification.

    Raises:
        UserError: The model is unknown, or cannot import weights. The message lists those that can.
    """
    spec = registry().models[model]
    if spec.weights is None:
        able = [other.name for other in registry().models if other.weights]
        raise UserError(
            f"model '{model}' cannot import weights; those that can: "
            f"{', '.join(able) or 'none is installed'}"
        )
    return spec


def default_preset(spec: ModelSpec) -> str:
    """Return the preset for imported weights, if the user names none.

    Args:
        spec: The model's specification.

    Returns:
        Its first preset other than "tiny", for which no official weights exist.
    """
    return next((name for name in spec.presets if name != "tiny"), spec.presets[0])


def import_weights(
    model: str, files: Sequence[Path], out: Path | None, *, preset: str | None = None,
    sets: Sequence[str] = (),
    command: str = "",
) -> Run:  # fmt: skip
    """Make a complete run, ready for sampling, from official weights.

    Args:
        model: Name of the model.
        files: The files or folders of weights, as the model's importer expects them.
        out: Folder of the run. It must not exist, or be empty. After an error nothing is left
            there. None: runs/MODEL-PRESET-imported, with a number if that is taken.
        preset: Name of the preset that fits the weights; None for `default_preset`.
        sets: Settings of the form "a.b=value". Later ones win.
        command: The command line, for the record in the run.

    Returns:
        The run.

    Raises:
        UserError: The model cannot import weights, a setting is wrong, `out` is taken, or the files
            are not what the model's importer expects.
    """
    spec = importable(model)
    config = resolve_config(
        model, preset=preset or default_preset(spec), sets=sets, data_needed=False
    )
    if out is not None:
        check_free(Path(out))
    sources = [_source(Path(path)) for path in files]
    with reading(Path(files[0] if files else model), model):
        imported: Model = import_object(str(spec.weights))(config, [Path(path) for path in files])
    if out is None:
        base = RUNS / f"{model}-{config.preset}-imported"
        with filling(base) as folder:
            _write(imported, Run(folder), sources, command)
            return Run(arrive_numbered(folder, base))
    with arriving(Path(out)) as folder:
        _write(imported, Run(folder), sources, command)
    return Run(Path(out))


def _write(imported: Model, run: Run, sources: Sequence[dict[str, Any]], command: str) -> None:
    write_config(run, imported.config, None, command)
    imported.save(run.model)
    write_json(run.summary_file, _summary(imported, sources))


def _source(path: Path) -> dict[str, Any]:
    """Describe an imported file or folder for `summary.json`."""
    if path.is_dir():
        inside = [each for each in path.rglob("*") if each.is_file()]
        return {
            "folder": path.name,
            "files": len(inside),
            "size": sum(each.stat().st_size for each in inside),
        }
    check_regular(path, "")
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the files of weights themselves") from None
    return {"file": path.name, "size": path.stat().st_size, "sha256": digest}


def _summary(model: Model, sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make the content of `summary.json`; imported runs have no steps and no seconds."""
    generator = sum(p.numel() for p in model.generator.parameters())
    encoder = sum(p.numel() for p in model.text_encoder.parameters())
    return {
        "imported": list(sources),
        "parameters": {"all": generator + encoder, "generator": generator},
    }
