"""Checks of a plugin as a whole.

It must be quick to load, because every command loads all plugins.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any

from t2i.core.kit.conformance.outcome import Failed, Skipped, need
from t2i.core.kit.pip_process import PYTHON
from t2i.core.registry import hooks
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import Loaded, installed_points, origin_of, registry, singular

LIMIT = 0.2
"""Processor time that importing a plugin and calling its hooks may take, in seconds."""

WORDS = (
    "name",
    "summary",
    "reading",
    "family",
    "paper",
    "opens",
    "licence",
    "licence_url",
    "judge",
)
"""Text fields of specifications that are not import paths."""

TRIALS = 2
"""How often a plugin that took longer than LIMIT is tried again."""


class PluginSubject:
    """A plugin.

    Args:
        name: Name of its entry point.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def loaded(self) -> list[Loaded]:
        """The plugins of that name in the registry."""
        return [plugin for plugin in registry().plugins if plugin.origin.plugin == self.name]

    @cached_property
    def points(self) -> list[EntryPoint]:
        """Its entry points: one, unless two distributions have a plugin of that name."""
        origins = {plugin.origin for plugin in self.loaded}
        points = [point for point in installed_points() if origin_of(point) in origins]
        if not points:
            raise Skipped("it was registered by this program, not by an entry point")
        return points

    @cached_property
    def probes(self) -> list[dict[str, Any]]:
        """For each entry point, the document that `probe` prints in a fresh process."""
        return [_probe(point) for point in self.points]


def _probe(point: EntryPoint) -> dict[str, Any]:
    """Load a plugin in a fresh process, and return the document that `probe` prints."""
    done = subprocess.run(
        [*PYTHON, "-m", f"{__package__}.probe", point.name, point.value],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "T2I_STRICT": "0",
        },
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    if done.returncode:
        raise Failed(
            f"importing it ends the program with {done.returncode}: "
            f"{(done.stderr.splitlines() or [''])[-1]}"
        )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def registers(subject: PluginSubject) -> None:
    """It imports, its hooks return valid specifications, and their names are not taken.

    Args:
        subject: The plugin.

    Raises:
        Failed: The promise is broken.
    """
    for plugin in subject.loaded:
        need(not plugin.error, f"{plugin.origin}: {plugin.error}")
        need(bool(plugin.names), f"{plugin.origin} registers nothing")


def light(subject: PluginSubject) -> None:
    """Importing it and calling its hooks imports no heavy package.

    Hooks name import paths, so they need not import anything.

    Args:
        subject: The plugin.

    Raises:
        Failed: The promise is broken.
        Skipped: It has no entry point.
    """
    heavy = sorted({module for probe in subject.probes for module in probe["heavy"]})
    need(
        not heavy,
        f"importing it pulls in {', '.join(heavy)}: move these imports out of the module of "
        f"'{hooks.GROUP}'",
    )


def quick(subject: PluginSubject) -> None:
    """Importing it and calling its hooks takes at most 0.2 seconds of processor time.

    Args:
        subject: The plugin.

    Raises:
        Failed: The promise is broken.
        Skipped: It has no entry point.
    """
    seconds = max(probe["seconds"] for probe in subject.probes)
    for _ in range(TRIALS):  # the first time files may be read from a slow disk
        if seconds > LIMIT:
            seconds = max(_probe(point)["seconds"] for point in subject.points)
    need(
        seconds <= LIMIT,
        f"importing it takes {seconds:.2f} s of processor time, more than {LIMIT} s",
    )


def paths(subject: PluginSubject) -> None:
    """Every import path in its specifications can be imported.

    Args:
        subject: The plugin.

    Raises:
        Failed: The promise is broken.
    """
    named = [
        (kind, name)
        for plugin in subject.loaded
        for kind, names in plugin.names.items()
        for name in names
    ]
    for kind, name in named:
        spec = registry().table(kind)[name]
        for field in fields(spec):
            path = getattr(spec, field.name)
            if field.name not in WORDS and isinstance(path, str):
                try:
                    import_object(path)
                except (ImportError, AttributeError, ValueError) as error:
                    raise Failed(f"{field.name} of {singular(kind)} '{name}': {error}") from None
