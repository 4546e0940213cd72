"""The subjects of checks: one object for all checks of one model, sampler and so on.

This module is quick to import: the module of a subject is imported only when the subject is needed.
"""

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
"""The class of the subject of each kind's checks: "file:class" in this package."""


class Workshop:
    """The subjects of a session of checks. Each is made once.

    Args:
        folder: Where they may write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._subjects: dict[tuple[str, str, tuple[str, ...]], Any] = {}

    def subject(self, check: Check) -> Any:
        """Return the subject of a check, made by the first check that needs it.

        Args:
            check: The check.

        Returns:
            The subject: an object of the class in SUBJECTS.
        """
        key = (check.kind, check.name, check.sets)
        if key not in self._subjects:
            self._subjects[key] = self._made(check)
        return self._subjects[key]

    def _made(self, check: Check) -> Any:
        subject = import_object(f"{__package__}.{SUBJECTS[check.kind]}")
        if check.kind == PLUGIN:
            return subject(check.name)
        if check.kind == "models":
            own = self._folder / f"{check.name}-{len(self._subjects)}"
            return subject(check.name, own, check.sets)
        return subject(check.kind, check.name)
