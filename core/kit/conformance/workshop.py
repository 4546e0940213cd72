"""What checks are given: one subject for all checks of one thing. Light: a subject's own module loads with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t2i.core.kit.conformance.catalogue import PLUGIN, Check
from t2i.core.registry.specs import import_object

SUBJECTS = {
    PLUGIN: "imports:PluginSubject",
    "models": "subject:ModelSubject",
    "families": "subject:Part",
    "samplers": "samplers:SamplerPart",
    "encoders": "encoders:EncoderPart",
    "datasets": "datasets:DataPart",
    "features": "subject:Part",
    "metrics": "scores:MetricPart",
    "benchmarks": "subject:Part",
    "downloads": "subject:Part",
}
"""Kind of thing -> the class of what its checks are given."""


class Workshop:
    """The subjects of a session of checks, each made once. folder: where they may write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._subjects: dict[tuple[str, str], Any] = {}

    def subject(self, check: Check) -> Any:
        key = (check.kind, check.name)
        if key not in self._subjects:
            self._subjects[key] = self._made(check)
        return self._subjects[key]

    def _made(self, check: Check) -> Any:
        subject = import_object(f"{__package__}.{SUBJECTS[check.kind]}")
        if check.kind == PLUGIN:
            return subject(check.name)
        if check.kind == "models":
            return subject(check.name, self._folder / check.name)
        return subject(check.kind, check.name)
