"""The registry: finds plugins through entry points and keeps what they declare, with where it came from.

Nothing here imports a network: plugins hand in light specifications, which are resolved when they are chosen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import EntryPoint, distributions
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

import pluggy

from t2i.core.errors import T2IError, UserError, nearest
from t2i.core.registry import hooks, specs
from t2i.core.registry.choice import Choice

HOOKS: dict[str, tuple[str, type[specs.Named]]] = {
    "models": ("t2i_models", specs.ModelSpec),
    "families": ("t2i_families", specs.FamilySpec),
    "samplers": ("t2i_samplers", specs.SamplerSpec),
    "encoders": ("t2i_text_encoders", specs.TextEncoderSpec),
    "datasets": ("t2i_datasets", specs.DatasetSpec),
    "features": ("t2i_features", specs.FeatureSpec),
    "metrics": ("t2i_metrics", specs.MetricSpec),
    "benchmarks": ("t2i_benchmarks", specs.BenchmarkSpec),
    "downloads": ("t2i_downloads", specs.DownloadSpec),
}
"""Kind of thing -> (the hook that declares it, the class of its specifications)."""

HOST = "t2i-zoo"
"""The distribution that we are: no other one can take its names away."""

FAMILIES = "families"
"""The core's own plugin: models of any plugin extend its classes, so it is always loaded."""

SINGULAR = {"families": "family"}


def singular(kind: str) -> str:
    """Name one thing of a kind.

    Args:
        kind: A plural, such as "models" or "families".

    Returns:
        The singular.
    """
    return SINGULAR.get(kind, kind.removesuffix("s"))


S = TypeVar("S", bound=specs.Named)


@dataclass(frozen=True)
class Origin:
    """Where a plugin came from. distribution and version are "?" for plugins registered in a running program."""

    plugin: str
    distribution: str = "?"
    version: str = "?"

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' of {self.distribution} {self.version}"


@dataclass
class Loaded:
    """One plugin: its origin, the names it registered by kind, and why it is not (wholly) there, if so."""

    origin: Origin
    names: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None


@dataclass
class Table(Generic[S]):
    """All specifications of one kind, by name."""

    kind: str
    entries: dict[str, tuple[S, Origin]] = field(default_factory=dict)
    clashes: dict[str, tuple[Origin, Origin]] = field(default_factory=dict)

    @property
    def singular(self) -> str:
        """The word for one thing of this kind."""
        return singular(self.kind)

    def __getitem__(self, name: str) -> S:
        """The specification of that name. UserError names the nearest one, or both owners of a disputed name."""
        if name in self.clashes:
            first, second = self.clashes[name]
            raise UserError(
                f"two plugins register the {self.singular} '{name}': {first} and {second}; uninstall one"
            )
        if name not in self.entries:
            raise UserError(f"no {self.singular} is named '{name}'{nearest(name, self.entries)}")
        return self.entries[name][0]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def default(self, fits: Callable[[S], bool] = lambda spec: True) -> S:
        """The specification that is marked as the default, of those that fit; our own before others'. UserError if
        there is none."""
        marked = [
            spec
            for spec, _ in self.entries.values()
            if getattr(spec, "default", False) and fits(spec)
        ]
        if not marked:
            raise UserError(f"no default among the {self.kind}: name one")
        return next(
            (spec for spec in marked if self.origin(spec.name).distribution == HOST), marked[0]
        )

    def build(self, choice: Choice[Any], *arguments: Any) -> Any:
        """The chosen thing, built: its specification's `build`, called with its settings and the arguments."""
        return specs.import_object(cast(Any, self[choice.name]).build)(choice.config, *arguments)

    def choose(
        self,
        name: str,
        settings: Mapping[str, Any],
        kind: str = "",
        beneath: Mapping[str, Any] | None = None,
    ) -> Choice[Any]:
        """A thing by name with these settings, checked. UserError, one line, for an unknown name or wrong setting.

        kind: what errors call it (default: the table's word). beneath: settings that these are laid over.
        """
        spec = self[name]
        config = specs.import_object(cast(specs.Spec, spec).config)
        return Choice(spec.name, config.of(settings, f"{kind or self.singular} '{name}'", beneath))

    def __iter__(self) -> Iterator[S]:
        return (self.entries[name][0] for name in sorted(self.entries))

    def origin(self, name: str) -> Origin:
        self[name]
        return self.entries[name][1]

    def add(self, spec: S, origin: Origin) -> Origin | None:
        """Takes a specification. If its name is taken, returns by whom: our own names stay ours, and one that two
        others claim belongs to nobody (asking for it names both)."""
        if spec.name in self.clashes:
            return self.clashes[spec.name][0]
        if spec.name not in self.entries:
            self.entries[spec.name] = (spec, origin)
            return None
        first = self.entries[spec.name][1]
        if first.distribution != HOST:
            del self.entries[spec.name]
            self.clashes[spec.name] = (first, origin)
        return first


class Registry:
    """What all plugins declare, by kind. Plugins that fail are kept in `plugins` with their reason, and skipped."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hooks.GROUP)
        self._manager.add_hookspecs(hooks)
        self.plugins: list[Loaded] = []
        self.families: Table[specs.FamilySpec] = Table("families")
        self.models: Table[specs.ModelSpec] = Table("models")
        self.samplers: Table[specs.SamplerSpec] = Table("samplers")
        self.encoders: Table[specs.TextEncoderSpec] = Table("encoders")
        self.datasets: Table[specs.DatasetSpec] = Table("datasets")
        self.features: Table[specs.FeatureSpec] = Table("features")
        self.metrics: Table[specs.MetricSpec] = Table("metrics")
        self.benchmarks: Table[specs.BenchmarkSpec] = Table("benchmarks")
        self.downloads: Table[specs.DownloadSpec] = Table("downloads")

    def table(self, kind: str) -> Table[Any]:
        return cast("Table[Any]", getattr(self, kind))

    def load(self, points: Iterable[EntryPoint]) -> None:
        """Loads plugins from entry points, each one guarded: a broken plugin is noted and skipped."""
        for point in points:
            self._guarded(origin_of(point), point.load)

    def register(self, plugin: ModuleType | object, name: str) -> None:
        """Registers a plugin object of the running program (tests, notebooks)."""
        self._guarded(Origin(name), lambda: plugin)

    def _guarded(self, origin: Origin, load: Callable[[], object]) -> None:
        loaded, cause = Loaded(origin), None
        self.plugins.append(loaded)
        try:
            plugin = load()
            self._admit(plugin, origin)
            self._collect(plugin, loaded)
        except KeyboardInterrupt:
            raise
        except (
            BaseException
        ) as error:  # SystemExit too: a plugin must not be able to end the program
            loaded.error, cause = f"{type(error).__name__}: {_first_line(error)}", error
        if loaded.error and os.environ.get("T2I_STRICT") == "1":
            raise T2IError(f"{origin}: {loaded.error}") from cause

    def _admit(self, plugin: object, origin: Origin) -> None:
        """Makes the plugin's hooks known. TypeError if it has none, or one that we would not call, or not so."""
        try:
            if (
                self._manager.register(plugin, name=f"{origin.distribution}:{origin.plugin}")
                is None
            ):
                raise ValueError("it is blocked")
        except pluggy.PluginValidationError as error:
            raise TypeError(" ".join(str(error).splitlines()[1:]) or str(error)) from None
        own = [
            implementation
            for caller in self._manager.get_hookcallers(plugin) or ()
            for implementation in caller.get_hookimpls()
            if implementation.plugin is plugin
        ]
        known = {hook for hook, _ in HOOKS.values()}
        for implementation in own:
            name = implementation.function.__name__
            if name not in known and not implementation.optionalhook:
                raise TypeError(f"{name} is no hook of t2i{nearest(name, known)}")
        if not own:
            raise TypeError(
                "it has no hook: mark the functions that return specifications with @t2i.hookimpl"
            )

    def _collect(self, plugin: object, loaded: Loaded) -> None:
        """Calls the plugin's hooks and files what they return; nothing is filed unless all of it is sound."""
        found: list[tuple[str, specs.Named]] = []
        for kind, (hook, spec_class) in HOOKS.items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin is plugin:
                    found += [
                        (kind, spec)
                        for spec in _checked(implementation.function(), spec_class, hook)
                    ]
        for kind, spec in found:
            taken = self.table(kind).add(spec, loaded.origin)
            if taken is None:
                loaded.names.setdefault(kind, []).append(spec.name)
            else:
                loaded.error = f"its {singular(kind)} '{spec.name}' is also registered by {taken}"

    def draws(self, family: str) -> bool:
        """Whether models of a family draw images; those of one that nobody registered are taken to."""
        return family not in self.families or self.families[family].draws

    def broken(self) -> list[Loaded]:
        """The plugins that failed, wholly or in part."""
        return [plugin for plugin in self.plugins if plugin.error]


def origin_of(point: EntryPoint) -> Origin:
    """Where an entry point comes from. A distribution may lack a name or a version."""
    distribution = point.dist
    name, version = (distribution.name, distribution.version) if distribution else (None, None)
    return Origin(point.name, name or "?", version or "?")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def _checked(returned: object, spec_class: type[specs.Named], hook: str) -> list[specs.Named]:
    """What a hook returned, if it is a sequence of sound specifications of the right class."""
    if not isinstance(returned, (list, tuple)):
        raise TypeError(
            f"{hook} returned {type(returned).__name__}, not a list of {spec_class.__name__}"
        )
    for spec in returned:
        if not isinstance(spec, spec_class):
            raise TypeError(
                f"{hook} returned a {type(spec).__name__} in its list, not a {spec_class.__name__}"
            )
        if not isinstance(spec.name, str) or not _is_name(spec.name):
            raise ValueError(
                f"{hook}: {spec.name!r} is no name (lower-case letters, digits, '-', '_' and '.')"
            )
        for field_ in fields(spec):
            value, kind = getattr(spec, field_.name), str(field_.type)
            if not _is_a(value, kind):
                raise TypeError(
                    f"{hook}: {field_.name} of '{spec.name}' is {value!r:.80}, not {kind}"
                )
    return list(returned)


def _is_a(value: object, kind: str) -> bool:
    """Whether a specification's field holds what it is annotated with: the few kinds that specifications have."""
    if kind == "tuple[str, ...]":
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if kind in ("tuple[DownloadFile, ...]", "tuple[HubFiles, ...]"):
        part_class = specs.DownloadFile if "DownloadFile" in kind else specs.HubFiles
        return isinstance(value, tuple) and all(isinstance(part, part_class) for part in value)
    kinds: dict[str, type | tuple[type, ...]] = {
        "str": str,
        "bool": bool,
        "str | None": (str, type(None)),
    }
    return isinstance(value, kinds.get(kind, object))


def _is_name(text: str) -> bool:
    return (
        bool(text)
        and text[0].isalnum()
        and all(c in "-_." or (c.isascii() and c.isalnum()) for c in text)
        and (text == text.lower())
    )


def installed_points() -> list[EntryPoint]:
    """The entry points of all installed plugins, ours first, then by name. A distribution whose metadata cannot be
    read has none: it may be anybody's, and is nobody's reason to fail."""
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            # Of one that is found twice on the path, the first is the one that is imported.
            found.setdefault(
                distribution.name.lower(), list(distribution.entry_points.select(group=hooks.GROUP))
            )
        except Exception:
            continue
    points = [point for points in found.values() for point in points]
    return sorted(points, key=lambda point: (origin_of(point).distribution != HOST, point.name))


@cache
def registry() -> Registry:
    """The registry of the installed plugins, built at first use. T2I_PLUGINS=a,b loads only those."""
    only = [name.strip() for name in os.environ.get("T2I_PLUGINS", "").split(",") if name.strip()]
    points = installed_points()
    if only:
        for name in only:
            if name not in {point.name for point in points}:
                hint = nearest(name, {point.name for point in points})
                raise UserError(
                    f"T2I_PLUGINS names '{name}', but no such plugin is installed{hint}"
                )
        points = [point for point in points if point.name in (*only, FAMILIES)]
    loaded = Registry()
    loaded.load(points)
    return loaded
