"""The list of checks for each kind of plugin.

This module is quick to import: the file of a check is imported only when the check runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from t2i.core.errors import UserError, nearest
from t2i.core.registry.tables import HOOKS, Registry, registry

PLUGIN = "plugins"
"""Kind of the checks of a plugin as a whole."""

CHECKS: dict[str, dict[str, str]] = {
    PLUGIN: {
        "registers": "imports:registers",
        "light-import": "imports:light",
        "import-time": "imports:quick",
        "paths": "imports:paths",
    },
    "models": {
        "builds": "building:presets_build",
        "samplers": "building:samplers_fit",
        "trains": "training:trains",
        "gradients": "training:gradients",
        "learns": "training:learns",
        "validates": "training:validates",
        "resumes": "resuming:resumes",
        "images": "drawing:images",
        "same-seed": "drawing:same_seed",
        "batch-size": "drawing:batch_size",
        "saves": "drawing:saves",
    },
    "families": {"class": "families:sound", "samplers": "families:drawn"},
    "samplers": {
        "images": "samplers:images",
        "same-seed": "samplers:same_seed",
        "batch-size": "samplers:batch_size",
        "inverts": "samplers:inverts",
    },
    "encoders": {
        "features": "encoders:features",
        "any-text": "encoders:any_text",
        "repeats": "encoders:repeats",
        "company": "encoders:company",
        "null": "encoders:null",
        "saves": "encoders:saves",
    },
    "datasets": {
        "examples": "datasets:examples",
        "repeats": "datasets:repeats",
        "travels": "datasets:travels",
    },
    "features": {"vectors": "scores:vectors"},
    "metrics": {"scores": "scores:scores", "batches": "scores:batches"},
    "benchmarks": {"complete": "scores:complete"},
    "downloads": {"declared": "downloads:declared"},
}
"""The checks of each kind, in running order: "file:function" in this package, by name."""


@dataclass(frozen=True)
class Check:
    """One check of one registered plugin.

    Args:
        kind: Kind of the plugin: a key of CHECKS.
        name: Its name.
        check: Name of the check.
        sets: Settings of a model that differ from its preset `tiny`, as "KEY=VALUE".
    """

    kind: str
    name: str
    check: str
    sets: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Import path of the function that performs it."""
        return f"{__package__}.{CHECKS[self.kind][self.check]}"

    def __str__(self) -> str:
        kind = "plugin" if self.kind == PLUGIN else registry().table(self.kind).singular
        return f"{kind}-{self.name}-{self.check}"


def find(name: str, only: Iterable[str] = (), tables: Registry | None = None) -> list[Check]:
    """List the checks of everything that has a name.

    These are the checks of the models, samplers and so on of that name, and of everything that the
    plugin or the distribution of that name registers. The checks of the plugins that registered
    them are included.

    Args:
        name: Name of a model, a sampler, ..., a plugin or a distribution.
        only: Names of the checks to keep; empty for all.
        tables: The registry to search; None for the registry of this process.

    Returns:
        The checks, in running order.

    Raises:
        UserError: Nothing has that name, or it has no check named in `only`.
    """
    tables = tables or registry()
    parts: dict[tuple[str, str], None] = {}
    for plugin in tables.plugins:
        own = [(kind, thing) for kind, names in plugin.names.items() for thing in names]
        if name not in (plugin.origin.plugin, plugin.origin.distribution):
            own = [part for part in own if part[1] == name]
            if not own:
                continue
        parts |= dict.fromkeys([(PLUGIN, plugin.origin.plugin), *own])
    if not parts:
        raise UserError(
            f"nothing that is installed is called '{name}'{nearest(name, _all_names(tables))}"
        )
    return _chosen(
        [Check(kind, thing, check) for kind, thing in parts for check in CHECKS[kind]], list(only)
    )


def of_kind(kind: str, name: str, only: Iterable[str] = ()) -> list[Check]:
    """List the checks of one registered model, sampler and so on, without those of its plugin.

    Args:
        kind: Its kind: a key of CHECKS.
        name: Its name.
        only: Names of the checks to keep; empty for all.

    Returns:
        The checks, in running order.

    Raises:
        UserError: It is not registered, or has no check named in `only`.
    """
    if kind != PLUGIN:
        registry().table(kind)[name]
    return _chosen([Check(kind, name, check) for check in CHECKS[kind]], list(only))


def _chosen(checks: list[Check], only: list[str]) -> list[Check]:
    """Keep the checks named in `only`; all if it is empty. An unknown name raises UserError."""
    known = {check.check for check in checks}
    for name in only:
        if name not in known:
            raise UserError(f"no check of it is named '{name}'{nearest(name, known)}")
    return [check for check in checks if not only or check.check in only]


def _all_names(tables: Registry) -> set[str]:
    things = {spec.name for kind in HOOKS for spec in tables.table(kind)}
    return things | {plugin.origin.plugin for plugin in tables.plugins}
