"""The registry: it finds plugins by their entry points and keeps their specifications.

No network is imported here: specifications hold import paths, which are imported when the thing is
used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
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
"""The hook and the class of the specifications of each kind of thing."""

HOST = "t2i-zoo"
"""Name of this project's distribution, whose registered names no other one can take over."""

FAMILIES = "families"
"""Name of the core's own plugin. It is always loaded, because every model extends a class of it."""

SINGULAR = {"families": "family"}
"""Singulars that are not formed by dropping an "s"."""


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
    """Where a plugin came from.

    Args:
        plugin: Name of the plugin.
        distribution: Name of its distribution. "?": unknown, or the running program registered the
            plugin.
        version: Version of the distribution. "?": as for `distribution`.
    """

    plugin: str
    distribution: str = "?"
    version: str = "?"

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' of {self.distribution} {self.version}"


@dataclass
class Loaded:
    """A plugin that was loaded, or that failed to load.

    Args:
        origin: Where it came from.
        names: Names that it registered, by kind.
        error: Why the plugin, or a part of it, is missing. None: it was loaded completely.
    """

    origin: Origin
    names: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None


@dataclass
class Table(Generic[S]):
    """All specifications of one kind.

    Args:
        kind: The kind, in the plural, such as "models".
        entries: Specification and origin, by name.
        clashes: The two plugins that claim a name which neither of them gets, by name.
    """

    kind: str
    entries: dict[str, tuple[S, Origin]] = field(default_factory=dict)
    clashes: dict[str, tuple[Origin, Origin]] = field(default_factory=dict)

    @property
    def singular(self) -> str:
        """The kind in the singular, such as "model"."""
        return singular(self.kind)

    def __getitem__(self, name: str) -> S:
        """Return a specification by name.

        Args:
            name: Registry name.

        Raises:
            UserError: The name is unknown, or two plugins claim it.
        """
        if name in self.clashes:
            first, second = self.clashes[name]
            raise UserError(
                f"two plugins register the {self.singular} '{name}': {first} and {second}; "
                "uninstall one"
            )
        if name not in self.entries:
            raise UserError(f"no {self.singular} is named '{name}'{nearest(name, self.entries)}")
        return self.entries[name][0]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def default(self, fits: Callable[[S], bool] = lambda spec: True) -> S:
        """Return the default specification. Built-in ones come before those of third parties.

        Args:
            fits: Function that tells whether a specification is a candidate. By default all are.

        Returns:
            A specification that is marked as the default.

        Raises:
            UserError: No candidate is marked as the default.
        """
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
        """Build the thing that was chosen.

        Args:
            choice: Its name and settings.
            *arguments: Further arguments of the specification's `build`, after the settings.

        Returns:
            What `build` returns.

        Raises:
            UserError: The name is unknown.
        """
        return specs.import_object(cast(Any, self[choice.name]).build)(choice.config, *arguments)

    def choose(
        self,
        name: str,
        settings: Mapping[str, Any],
        kind: str = "",
        beneath: Mapping[str, Any] | None = None,
    ) -> Choice[Any]:
        """Choose a thing by name and check its settings.

        Args:
            name: Registry name.
            settings: Settings by name.
            kind: Word for the thing in error messages. "": the table's word.
            beneath: Settings for the keys that `settings` lacks. None: the defaults.

        Returns:
            The choice.

        Raises:
            UserError: The name is unknown or a setting is wrong. The message is one line.
        """
        spec = self[name]
        config = specs.import_object(cast(specs.Spec, spec).config)
        return Choice(spec.name, config.of(settings, f"{kind or self.singular} '{name}'", beneath))

    def __iter__(self) -> Iterator[S]:
        """Iterate over the specifications, sorted by name."""
        return (self.entries[name][0] for name in sorted(self.entries))

    def origin(self, name: str) -> Origin:
        """Return where a specification came from.

        Args:
            name: Registry name.

        Returns:
            Its origin.

        Raises:
            UserError: The name is unknown, or two plugins claim it.
        """
        self[name]
        return self.entries[name][1]

    def add(self, spec: S, origin: Origin) -> Origin | None:
        """Add a specification, unless its name is taken.

        Built-in names win. A name that two third parties claim is disabled, and using it raises an
        error that names both.

        Args:
            spec: The specification.
            origin: Where it came from.

        Returns:
            The other owner of the name. None: the specification was added.
        """
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
    """Everything that plugins declare: a table for each kind.

    Plugins that fail are skipped. `plugins` lists all plugins, failed ones with their error.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hooks.GROUP)
        self._manager.add_hookspecs(hooks)
        self._packages: set[str] = set()
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
        """Return a table by its kind.

        Args:
            kind: A key of `HOOKS`.

        Returns:
            The table.
        """
        return cast("Table[Any]", getattr(self, kind))

    def load(self, points: Iterable[EntryPoint]) -> None:
        """Load plugins from entry points. A broken plugin is recorded and skipped.

        Args:
            points: Entry points of the group `t2i`.

        Raises:
            T2IError: A plugin is broken, and the environment variable T2I_STRICT is 1.
        """
        for point in points:
            self._packages.add(point.module.partition(".")[0])
            self._guarded(origin_of(point), point.load)

    def register(self, plugin: ModuleType | object, name: str) -> None:
        """Register a plugin of the running program, in a test or a notebook for example.

        Args:
            plugin: A module or object with hooks.
            name: Name for messages.

        Raises:
            T2IError: The plugin is broken, and the environment variable T2I_STRICT is 1.
        """
        self._guarded(Origin(name), lambda: plugin)

    def _guarded(self, origin: Origin, load: Callable[[], object]) -> None:
        """Load a plugin and record the error if it fails."""
        loaded, cause = Loaded(origin), None
        self.plugins.append(loaded)
        try:
            plugin = load()
            self._admit(plugin, origin)
            self._collect(plugin, loaded)
        except KeyboardInterrupt:
            raise
        # Including SystemExit, because a plugin must not end the program.
        except BaseException as error:
            loaded.error, cause = f"{type(error).__name__}: {_first_line(error)}", error
        if loaded.error and os.environ.get("T2I_STRICT") == "1":
            raise T2IError(f"{origin}: {loaded.error}") from cause

    def _admit(self, plugin: object, origin: Origin) -> None:
        """Register a plugin's hooks. Raises TypeError if there are none or an invalid one."""
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
        """Call a plugin's hooks and add their specifications, but none unless all are valid."""
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
        """Tell whether models of a family sample images.

        Args:
            family: Name of a family.

        Returns:
            `FamilySpec.draws`. True for a family that is not registered.
        """
        return family not in self.families or self.families[family].draws

    def shipped(self, name: str) -> Path | None:
        """Find pretrained weights that a data set's package ships.

        Args:
            name: Name of the weights (`DatasetSpec.shipped`).

        Returns:
            Their folder. None: no data set ships weights of that name.
        """
        for weights in (one for spec in self.datasets for one in spec.shipped):
            if weights.name == name:
                package, _, folder = weights.folder.partition(":")
                return Path(str(resources.files(package))) / folder
        return None

    def packages(self) -> frozenset[str]:
        """List the packages of the plugins that others wrote.

        Returns:
            The names of their outermost packages.
        """
        modules = [plugin for plugin in self._manager.get_plugins() if hasattr(plugin, "__name__")]
        registered = {module.__name__.partition(".")[0] for module in modules}
        return frozenset(self._packages | registered) - {"t2i"}

    def broken(self) -> list[Loaded]:
        """List the plugins that failed, completely or in part.

        Returns:
            Those whose `error` is not None.
        """
        return [plugin for plugin in self.plugins if plugin.error]


def origin_of(point: EntryPoint) -> Origin:
    """Find the origin of an entry point.

    Args:
        point: The entry point.

    Returns:
        Its origin, with "?" for a missing name or version of the distribution.
    """
    return Origin(point.name, *_told_by(point.dist))


@cache
def _told_by(distribution: Distribution | None) -> tuple[str, str]:
    """Return name and version of a distribution. Each look reads its file anew: one is enough."""
    if distribution is None:
        return "?", "?"
    return distribution.name or "?", distribution.version or "?"


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut to 300 characters."""
    return (str(error).splitlines() or [""])[0][:300]


def _checked(returned: object, spec_class: type[specs.Named], hook: str) -> list[specs.Named]:
    """Check that a hook returned valid specifications of the right class."""
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
    """Tell whether a specification's field has its annotated type; rare types are not checked."""
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
    """Tell whether a text can be a registry name."""
    return (
        bool(text)
        and text[0].isalnum()
        and all(c in "-_." or (c.isascii() and c.isalnum()) for c in text)
        and (text == text.lower())
    )


def installed_points() -> list[EntryPoint]:
    """Find the entry points of all installed plugins.

    A distribution with unreadable metadata is ignored, because it may be unrelated to this project.

    Returns:
        The entry points, this project's first, then sorted by name.
    """
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            # If a distribution is found twice on the path, Python imports the first.
            found.setdefault(
                distribution.name.lower(), list(distribution.entry_points.select(group=hooks.GROUP))
            )
        except Exception:
            continue
    points = [point for points in found.values() for point in points]
    return sorted(points, key=lambda point: (origin_of(point).distribution != HOST, point.name))


@cache
def registry() -> Registry:
    """Return the registry of the installed plugins. It is built at the first call.

    The environment variable T2I_PLUGINS=a,b restricts it to these plugins and the families.

    Returns:
        The registry, the same object at each call.

    Raises:
        UserError: T2I_PLUGINS names a plugin that is not installed.
        T2IError: A plugin is broken, and the environment variable T2I_STRICT is 1.
    """
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
