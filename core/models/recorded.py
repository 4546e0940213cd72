"""What a run's files say of it, with checked types: somebody else may have written them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from t2i.core.io.documents import checked
from t2i.core.io.json_files import read_object
from t2i.core.runs.folder import Run

REMEDY = "restore the file from where it is from"


class _Stage(BaseModel, extra="allow"):
    name: str
    steps: int


class _Summary(BaseModel):
    """Entries of summary.json that are shown."""

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    parameters: dict[str, int] = {}
    stages: list[_Stage] = []
    skipped: int = 0
    device: str = ""
    precision: str = ""
    imported: Any = None


class _Record(BaseModel):
    """Entries of config.json, beside the settings, that are shown."""

    data_fingerprint: str | None = None
    command: str | None = None
    created: str = ""
    versions: dict[str, str] = {}


class _Split(BaseModel):
    found: list[str] = []
    passed_over: dict[str, int] = {}


def summary_of(run: Run) -> dict[str, Any] | None:
    """Read what is shown of a run's summary.

    Args:
        run: The run.

    Returns:
        Entries by name, those of the value zero or nothing left out. None if there is no summary.

    Raises:
        UserError: The file cannot be read, or an entry has another type.
    """
    if not run.summary_file.is_file():
        return None
    return _checked(_Summary, run.summary(), run.summary_file)


def record_of(run: Run, document: Mapping[str, Any]) -> dict[str, Any]:
    """Check what is shown of a run's config.json beside the settings.

    Args:
        run: The run.
        document: The content of its config.json.

    Returns:
        Entries by name.

    Raises:
        UserError: An entry has another type.
    """
    return _checked(_Record, document, run.config_file)


def contents_of(run: Run) -> dict[str, Any]:
    """Read what a run found in its data set's folder.

    Args:
        run: The run.

    Returns:
        For each split, what was found and what was passed over. Empty if it is not recorded.

    Raises:
        UserError: The file cannot be read, or an entry has another type.
    """
    if not run.data_file.is_file():
        return {}
    document = read_object(run.data_file, f"run {run.path}", finite=True)
    return _checked(dict[str, _Split], document, run.data_file)


def _checked(kind: Any, document: Any, file: Path) -> dict[str, Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    found = adapter.dump_python(checked(adapter, document, str(file), REMEDY))
    return {name: value for name, value in found.items() if value}
