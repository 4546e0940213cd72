"""What `t2i info RUN` says: what a run was trained on, how, how far, and the commands to go on."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.fetch.hub import INDEX
from t2i.core.io.files import read_lines
from t2i.core.io.json_files import json_object, read_json
from t2i.core.models.identify import identify, shapes_of
from t2i.core.models.locating import Located, located, located_run, run_around
from t2i.core.models.recorded import contents_of, record_of, summary_of
from t2i.core.registry.tables import registry
from t2i.core.runs.folder import RUNS, Run, is_run
from t2i.core.runs.listing import ListedRun, describe, run_document

CAPTIONS = 3
"""How many example captions are shown."""
RECORDED = ("command", "created", "versions")
"""Entries of config.json that are shown as they are."""


def about(text: str) -> dict[str, Any]:
    """Say what a run, or another project's folder or file, is. No weights are read.

    Args:
        text: What `--run` takes.

    Returns:
        The facts by name, as JSON. Facts that are unknown are left out.

    Raises:
        UserError: There is no such thing, or it is neither a run nor weights.
    """
    path = Path(text).expanduser()
    here = path if path.exists() or path.is_absolute() else RUNS / path
    if text.strip() and here.exists():
        owner = run_around(here) or located_run(here)
        if is_run(owner.path):
            return about_run(owner)
    place = located(text, weights=False)
    if place.run is not None:
        return about_run(place.run, place.name)
    return _about_model(place) if place.kind == "model" else _about_foreign(place)


def about_run(run: Run, name: str | None = None) -> dict[str, Any]:
    """Say what a run is.

    Args:
        run: The run.
        name: How the user names it. None: by its path.

    Returns:
        The facts by name, as JSON.
    """
    listed = describe(run)
    name = name or str(run.path)
    facts: dict[str, Any] = {"run": name, "state": listed.progress}
    try:
        config, document = run_document(run)
    except UserError:
        return facts
    record = record_of(run, document)
    facts |= _settings(config)
    facts["data"] |= _data(run, record)
    facts |= {"captions": run.captions()[:CAPTIONS]} if run.captions() else {}
    facts |= _cost(run, listed.step, listed.seconds)
    facts |= {"losses": dict(listed.losses)} if listed.losses else {}
    facts |= {"score": dict([listed.score])} if listed.score else {}
    facts |= _checkpoints(run)
    facts |= {key: record[key] for key in RECORDED if key in record}
    return facts | {"next": _next(run, name, listed)}


# --- the parts of a run ---------------------------------------------------------------------------


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is known from the settings alone."""
    encoder = _section(config, "encoder")
    words = [value for value in encoder.values() if _is_words(value)]
    return {
        "model": config["model"],
        "preset": config.get("preset", "?"),
        "changed": _changed(config),
        "data": {key: value for key, value in _section(config, "data").items() if value is not None
                 and key in ("name", "dir")},
        "encoder": {"name": encoder.get("name", "?")}
        | ({"known words": len(words[0])} if words else {}),
        "sampler": _section(config, "sampler").get("name", "?"),
    }  # fmt: skip


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _is_words(value: object) -> bool:
    """Whether a setting of a text encoder is its vocabulary."""
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not the preset's, by name; none if the preset is not known here."""
    from t2i.core.runs.configure import SECTIONS, resolve_config

    # Settings are compared with the defaults of the data set, encoder and sampler that were chosen.
    chosen = {name: {"name": _section(config, name).get("name")} for name in SECTIONS}
    try:
        preset, same = (
            resolve_config(
                config["model"],
                preset=str(config.get("preset")),
                overrides=overrides,
                data_needed=False,
            ).dump()
            for overrides in ({}, chosen)
        )
    except UserError:
        return {}
    usual = _flat(same) | {f"{name}.name": preset[name]["name"] for name in SECTIONS}
    return {
        name: value
        for name, value in _flat(config).items()
        if value != usual.get(name)
        and name not in ("data.name", "data.dir")
        and not (name.startswith("encoder.") and _is_words(value))
    }


def _flat(document: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by full name, such as encoder.width."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= (
            _flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
        )
    return found


def _data(run: Run, record: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of the data: hash, what was found and what was passed over."""
    found: dict[str, Any] = {}
    if "data_fingerprint" in record:
        found["fingerprint"] = record["data_fingerprint"]
    splits = contents_of(run)
    found |= {"splits": splits} if splits else {}
    broken = _count_lines(run.broken_file)
    return found | ({"broken": broken} if broken else {})


def _count_lines(path: Path) -> int:
    try:
        return sum(1 for _ in read_lines(path, ""))
    except (OSError, UserError):
        return 0


def _cost(run: Run, step: int, seconds: float) -> dict[str, Any]:
    """Steps, time, parameters and machine, as far as the run has come."""
    summary = summary_of(run)
    return {"steps": step, "seconds": seconds} if summary is None else summary


def _checkpoints(run: Run) -> dict[str, Any]:
    """The steps that are saved, and the best one."""
    steps = run.steps_saved()
    if not steps:
        return {}
    facts: dict[str, Any] = {"checkpoints": steps}
    try:
        best = read_json(run.checkpoints / f"step-{steps[-1]}" / "state.json", "").get("best")
        if best and run.best.is_dir():
            facts["best"] = {"step": int(best[0]), "value": float(best[1]), "path": str(run.best)}
    except (UserError, AttributeError, TypeError, ValueError, OverflowError, LookupError):
        pass  # a damaged checkpoint has no best
    return facts


def _next(run: Run, name: str, listed: ListedRun) -> dict[str, str]:
    """The commands to go on with."""
    found = {}
    if run.model.is_dir() or run.steps_saved():
        found["sample"] = ["t2i", "sample", "--run", name, "-p", run.example()]
        if listed.data in registry().benchmarks:
            found["score"] = ["t2i", "bench", listed.data, "--run", f"{listed.model}={name}"]
    if listed.state in ("interrupted", "not begun"):
        found["resume"] = ["t2i", "train", "--resume", name]
    return {what: shlex.join(words) for what, words in found.items()}


# --- models without a run, and other projects' ----------------------------------------------------


def _about_model(place: Located) -> dict[str, Any]:
    """What the folder of a saved model says, where its run is not there."""
    facts: dict[str, Any] = {"model folder": place.name}
    config, _ = run_document(Run(place.path))
    return facts | _settings(config) | {"next": {"sample": _sample(place)}}


def _about_foreign(place: Located) -> dict[str, Any]:
    """What names and headers say of another project's folder or file."""
    folder = place.path
    facts: dict[str, Any] = {"folder" if folder.is_dir() else "file": place.name}
    index = json_object(folder / INDEX)
    facts["what"] = identify(folder).what
    parts = {
        name: str(value[1])
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] is not None
    }
    facts |= {"parts": parts} if parts else {}
    weights = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else [folder]
    counts = {
        path.relative_to(folder).as_posix() if folder.is_dir() else path.name: count
        for path in weights
        if (count := _parameters_in(path)) is not None
    }
    facts |= {"weights": counts} if counts else {}
    return facts | {"next": {"sample": _sample(place)}}


def _sample(place: Located) -> str:
    return shlex.join(["t2i", "sample", "--run", place.name, "-p", "a red bird"])


def _parameters_in(path: Path) -> int | None:
    """Count the numbers in a safetensors file by its header; None if it is no whole one."""
    shapes = shapes_of(path)
    return None if shapes is None else sum(math.prod(shape) for shape in shapes.values())
