"""Collect what of a run is published, without the paths of this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.fetch.hub import TEXT, HubName
from t2i.core.io.files import read_file
from t2i.core.io.json_files import read_object
from t2i.core.io.sealed import MANIFEST, settle, verify
from t2i.core.models.locating import located_run
from t2i.core.runs.folder import Run
from t2i.core.runs.listing import is_training, run_document
from t2i.core.sharing.private import names_in, refuse_traces, without_paths
from t2i.core.sharing.scores import SharedResults, results_of

CARD = "README.md"
SCANNED = (*TEXT, "*.md", "*.yaml")
"""Files whose content is searched for paths of this machine."""


@dataclass
class Parcel:
    """What is published of a run.

    Args:
        run: The run.
        name: The repository, OWNER/NAME.
        files: A file, or its bytes, by name in the repository.
        removed: Where paths of this machine were taken out, such as "config.json: run.data.dir".
        results: Scores of the run.
        remarks: What else should be known before it is published, one line each.
    """

    run: Run
    name: str
    files: dict[str, Path | bytes] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    results: Sequence[SharedResults] = ()
    remarks: list[str] = field(default_factory=list)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the files.

        Returns:
            Bytes by name, in the order of the names.
        """
        return {
            name: len(one) if isinstance(one, bytes) else one.stat().st_size
            for name, one in sorted(self.files.items())
        }

    def document(self, name: str) -> dict[str, Any]:
        """Read a JSON object of the parcel.

        Args:
            name: Its name in the repository.

        Returns:
            The object; empty if the parcel lacks it.
        """
        found = self.files.get(name)
        return dict(json.loads(found)) if isinstance(found, bytes) else {}

    def add_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Add a JSON object without its absolute paths.

        Args:
            name: Its name in the repository.
            document: The object.
        """
        plain, removed = without_paths(document)
        self.files[name] = (json.dumps(plain, indent=2) + "\n").encode()
        self.removed += [f"{name}: {where}" for where in removed]


def pack(
    run: str | Path,
    repo: str,
    *,
    metrics: bool = True,
    checkpoints: bool = False,
    results: Sequence[str | Path] = (),
) -> Parcel:
    """Collect what of a run is published: model, configuration, log, samples and scores.

    Args:
        run: The run's folder, or its name under runs/.
        repo: The repository, OWNER/NAME.
        metrics: Whether the log is among it.
        checkpoints: Whether the newest checkpoint is.
        results: Folders of benchmarks that scored the run, besides the one that trained it.

    Returns:
        The parcel, without a model card.

    Raises:
        UserError: The run is incomplete, in training or damaged; the name is none; or a text holds
            a path of this machine that cannot be taken out.
    """
    hub = HubName.parse(repo)
    if hub is None or hub.revision:
        raise UserError(f"'{repo}' is no name of a repository: write it as OWNER/NAME")
    source = _whole(located_run(run))
    config, document = run_document(source)
    shared = results_of(source, str(config["model"]), [Path(place) for place in results])
    parcel = Parcel(source, hub.name, results=shared)
    parcel.add_json("config.json", document)
    parcel.add_json("summary.json", source.summary())
    start = (document.get("base") or {}).get("from")
    if start and Path(start).is_absolute():
        parcel.remarks.append(
            f"the model holds adapters only, and others lack their base, {Path(start).name}: the "
            "card says so; 't2i train --from OWNER/NAME --lora' takes a base from the hub"
        )
    _add_sealed(parcel, source.model)
    if checkpoints and source.steps_saved():
        _add_sealed(parcel, source.checkpoints / f"step-{source.steps_saved()[-1]}")
    if metrics and source.metrics_file.is_file():
        parcel.files["metrics.jsonl"] = source.metrics_file
    for path in (*source.samples.glob("step-*.png"), source.samples / "captions.json"):
        if path.is_file() and not path.is_symlink():
            parcel.files[f"samples/{path.name}"] = path
    for number, one in enumerate(shared):
        more = f"-{number + 1}" if number else ""
        parcel.add_json(f"results{more}.json", one.document)
    return parcel


def check_traces(parcel: Parcel) -> None:
    """Check that no text of a parcel holds a path of this machine, and note names of its user.

    Args:
        parcel: The parcel, complete.

    Raises:
        UserError: One does.
    """
    for name, one in parcel.files.items():
        if isinstance(one, bytes) or any(Path(name).match(pattern) for pattern in SCANNED):
            data = one if isinstance(one, bytes) else read_file(one, name)
            refuse_traces(name, data, parcel.run.path)
            if isinstance(one, bytes):
                parcel.remarks += [
                    f"{name} holds '{word}', {kind}" for word, kind in names_in(data)
                ]


def _whole(run: Run) -> Run:
    """Check that a run is complete and sound."""
    if is_training(run):
        raise UserError(f"{run.path} is being trained: push it when it is complete")
    settle(run.model)
    if not run.complete:
        raise UserError(
            f"{run.path} is not complete: 't2i train --resume {run.path}' goes on with it"
        )
    verify(run.model, f"run {run.path}")
    return run


def _add_sealed(parcel: Parcel, folder: Path) -> None:
    """Add a folder with a manifest, which is made to fit the texts that had paths."""
    within = folder.relative_to(parcel.run.path).as_posix()
    manifest = read_object(folder / MANIFEST, f"run {parcel.run.path}")
    for name in manifest["files"]:
        inside = f"{within}/{name}"
        parcel.files[inside] = folder / name
        if not name.endswith("config.json"):
            continue
        document = read_object(folder / name, f"run {parcel.run.path}")
        plain, removed = without_paths(document)
        if removed:
            data = (json.dumps(plain, indent=2) + "\n").encode()
            parcel.files[inside] = data
            digest = hashlib.sha256(data).hexdigest()
            manifest["files"][name] = {"size": len(data), "sha256": digest}
            parcel.removed += [f"{inside}: {where}" for where in removed]
    data = (json.dumps(manifest, indent=2) + "\n").encode()
    parcel.files[f"{within}/{MANIFEST}"] = data
