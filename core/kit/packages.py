"""Installing and removing plugin packages in the running environment, by its own pip, without harm
to the host.

`plan` asks pip what it would do; `Plan.harm` says what of ours that would break; `install` does it
and says what came.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from t2i.core.errors import UserError, nearest
from t2i.core.io.terminal import printable
from t2i.core.registry.hooks import GROUP
from t2i.core.registry.tables import HOST


@dataclass(frozen=True)
class Change:
    """One package that pip would install. before: the version that is there now."""

    name: str
    before: str | None
    after: str

    def __str__(self) -> str:
        return (
            f"{self.name} {self.before} -> {self.after}"
            if self.before
            else f"{self.name} {self.after} (new)"
        )


@dataclass(frozen=True)
class Plan:
    """What installing would do. target: as it was asked for. wanted: the package itself. harm: why
    not to, in words: of the host's own packages, what would no longer have what it needs."""

    target: str
    wanted: str
    changes: Sequence[Change]
    harm: Sequence[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        changes = [{"name": c.name, "before": c.before, "after": c.after} for c in self.changes]
        return {"package": self.wanted, "changes": changes, "harm": list(self.harm)}


def plan(target: str) -> Plan:
    """What pip would do to install a package by name, a folder or a wheel. Nothing is changed.

    Raises UserError with pip's reason if it cannot.
    """
    document = json.loads(
        _pip(["install", "--dry-run", "--quiet", "--report", "-", "--", target], target)
    )
    versions = installed()
    changes: list[Change] = []
    requirements: dict[str, Sequence[str]] = {}
    wanted = None
    for entry in document["install"]:
        metadata = entry["metadata"]
        name = canonicalize_name(metadata["name"])
        changes.append(Change(name, versions.get(name), metadata["version"]))
        requirements[name] = metadata.get("requires_dist", [])
        wanted = name if entry.get("requested") else wanted
    return Plan(target, wanted or _name_of(target), changes, harm(changes, requirements))


def _name_of(target: str) -> str:
    """The name of a package that is there already, so that pip would do nothing."""
    if target.endswith(".whl"):
        return str(parse_wheel_filename(Path(target).name)[0])
    return str(canonicalize_name(Requirement(target).name))


def harm(changes: Sequence[Change], requirements: Mapping[str, Sequence[str]]) -> list[str]:
    """What of the host and of the packages it needs, directly or not, the changes would break.

    requirements: of the packages that are to be installed, by name. What is broken already is no
    harm of theirs.
    """
    before, found = installed(), []
    after = before | {change.name: change.after for change in changes}
    for name in host_packages():
        if name == HOST and before.get(name) != after.get(name):
            found.append(f"{HOST} itself would change from {before.get(name)} to {after[name]}")
        for need in _applicable(requirements[name] if name in requirements else _requires(name)):
            key = canonicalize_name(need.name)
            unchanged = before.get(key) == after.get(key) and name not in requirements
            if not unchanged and not _meets(after.get(key), need):
                found.append(f"{name} needs {key}{need.specifier}, and would have {after.get(key)}")
    return found


def installed() -> dict[str, str]:
    """Names and versions of all installed packages."""
    found: dict[str, str] = {}
    for one in distributions():
        if one.metadata["Name"]:
            found.setdefault(canonicalize_name(one.metadata["Name"]), one.version)
    return found


def host_packages() -> list[str]:
    """The host and, among what is installed, all that it needs, directly or not."""
    found, waiting = {HOST: None}, [HOST]
    while waiting:
        for need in _applicable(_requires(waiting.pop())):
            name = canonicalize_name(need.name)
            if name not in found and _distribution(name):
                found[name] = None
                waiting.append(name)
    return list(found)


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _requires(name: str) -> list[str]:
    found = _distribution(name)
    return list(found.requires or []) if found else []


def _applicable(requirements: Sequence[str]) -> list[Requirement]:
    """Those that hold here without any extra. What cannot be read asks for nothing."""
    found = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(requirement)
    return found


def _meets(version: str | None, requirement: Requirement) -> bool:
    if version is None:
        return False
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


@dataclass(frozen=True)
class Installed:
    """A package that was installed, and the plugins it brought: as `t2i plugins --json` says it."""

    name: str
    version: str
    plugins: Sequence[Mapping[str, Any]]

    @property
    def broken(self) -> list[str]:
        return [
            f"plugin '{plugin['name']}': {plugin['error']}"
            for plugin in self.plugins
            if plugin["error"]
        ]


def install(chosen: Plan, *, force: bool = False) -> Installed:
    """Does what the plan says. UserError, naming the harm, if it would break the host and is not
    forced to."""
    if chosen.harm and not force:
        more = f"; and {len(chosen.harm) - 3} more" if len(chosen.harm) > 3 else ""
        raise UserError(
            f"installing {chosen.wanted} would break t2i: {'; '.join(chosen.harm[:3])}{more}; choose another version, "
            "or another environment (--force installs it nevertheless)"
        )
    _pip(["install", "--quiet", "--", chosen.target], chosen.target)
    return brought(chosen.wanted)


def brought(name: str) -> Installed:
    """An installed package with its plugins, as a fresh process sees them: this one has imported
    the old ones."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("T2I_PLUGINS", "T2I_STRICT")
    }
    code = [sys.executable, "-m", f"{__package__}.listing"]
    done = subprocess.run(code, env=kept, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise UserError(
            f"{name} is installed, but t2i no longer starts: {_last(done.stderr)}; uninstall it with pip"
        )
    key = canonicalize_name(name)
    plugins = [p for p in json.loads(done.stdout) if canonicalize_name(p["distribution"]) == key]
    version = next((str(p["version"]) for p in plugins), None) or installed_version(name)
    return Installed(name, version, plugins)


def installed_version(name: str) -> str:
    found = _distribution(name)
    return found.version if found else "?"


def uninstall(name: str) -> str:
    """Removes a plugin package, and returns its name and version. UserError if it is none, or the
    host itself."""
    key = canonicalize_name(name)
    if key == HOST:
        raise UserError(f"{HOST} is the host itself: 'pip uninstall {HOST}' removes it")
    found, known = _distribution(key), plugin_packages()
    if found is None:
        raise UserError(f"no package is named '{name}'{nearest(key, known)}")
    if key not in known:
        raise UserError(
            f"{key} is no plugin of t2i: 'pip uninstall {key}' removes it{nearest(key, known)}"
        )
    version = found.version
    _pip(["uninstall", "--yes", "--quiet", "--", key], key)
    if _distribution(key) is not None:
        raise UserError(
            f"pip could not remove {key} {version}: it is outside of this environment ({sys.prefix})"
        )
    return f"{key} {version}"


def plugin_packages() -> list[str]:
    """Packages, other than the host, that have an entry point of ours."""
    names = {
        canonicalize_name(one.metadata["Name"])
        for one in distributions()
        if one.metadata["Name"] and one.entry_points.select(group=GROUP)
    }
    return sorted(names - {HOST})


def _pip(arguments: Sequence[str], target: str) -> str:
    """What pip says on stdout. UserError with its reason if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else _last(done.stderr)
        raise UserError(f"pip cannot {arguments[0]} '{target}': {printable(reason)[:300]}")
    return done.stdout


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
