"""Installing and removing plugin packages with the environment's own pip, without breaking t2i.

`plan` finds out what pip would do, `Plan.harm` lists what that would break, and `install` does it
and returns the new plugins. The host is t2i's own distribution.
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
    """One package that pip would install.

    Args:
        name: Canonical name of the package.
        before: The version that is installed now; None if there is none.
        after: The version that pip would install.
    """

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
    """What installing a package would do.

    Args:
        target: What the user named: a package, a folder or a wheel.
        wanted: Name of the package itself.
        changes: All packages that pip would install.
        harm: One sentence for each of the host's packages that would no longer have what it needs.
            Empty if nothing would break.
    """

    target: str
    wanted: str
    changes: Sequence[Change]
    harm: Sequence[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Convert the plan to a JSON document.

        Returns:
            The package, its changes and its harm.
        """
        changes = [{"name": c.name, "before": c.before, "after": c.after} for c in self.changes]
        return {"package": self.wanted, "changes": changes, "harm": list(self.harm)}


def plan(target: str) -> Plan:
    """Find out what pip would do to install a package. Nothing is changed.

    Args:
        target: A requirement (a package's name), a folder or a wheel.

    Returns:
        The plan.

    Raises:
        UserError: Pip cannot install it. The message gives pip's reason.
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
    """Return the name of a package that is installed already, for which pip reports nothing."""
    if target.endswith(".whl"):
        return str(parse_wheel_filename(Path(target).name)[0])
    return str(canonicalize_name(Requirement(target).name))


def harm(changes: Sequence[Change], requirements: Mapping[str, Sequence[str]]) -> list[str]:
    """Find out which requirements of the host and its dependencies changes would break.

    Indirect dependencies count, too. Requirements that are not met already are not reported.

    Args:
        changes: The packages that would be installed.
        requirements: Their requirements, by package name.

    Returns:
        One sentence for each requirement that would break.
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
    """List all installed packages.

    Returns:
        Their versions by canonical name.
    """
    found: dict[str, str] = {}
    for one in distributions():
        if one.metadata["Name"]:
            found.setdefault(canonicalize_name(one.metadata["Name"]), one.version)
    return found


def host_packages() -> list[str]:
    """List the host and its installed dependencies, direct and indirect.

    Returns:
        Their canonical names, the host first.
    """
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
    """Return the requirements of an installed package; empty if it is not installed."""
    found = _distribution(name)
    return list(found.requires or []) if found else []


def _applicable(requirements: Sequence[str]) -> list[Requirement]:
    """Parse requirements, and keep those that apply here without any extra.

    Requirements that cannot be parsed are ignored.
    """
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
    """Return whether a version meets a requirement; True if the version cannot be parsed."""
    if version is None:
        return False
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


@dataclass(frozen=True)
class Installed:
    """A package that was installed.

    Args:
        name: Name of the package.
        version: Its version.
        plugins: Its plugins, as `t2i plugins --json` lists them.
    """

    name: str
    version: str
    plugins: Sequence[Mapping[str, Any]]

    @property
    def broken(self) -> list[str]:
        """One line for each of its plugins that has an error."""
        return [
            f"plugin '{plugin['name']}': {plugin['error']}"
            for plugin in self.plugins
            if plugin["error"]
        ]


def install(chosen: Plan, *, force: bool = False) -> Installed:
    """Install a package as planned.

    Args:
        chosen: The plan.
        force: Whether to install it even if that breaks the host.

    Returns:
        The package, with its plugins.

    Raises:
        UserError: It would break the host (the message names the harm), pip fails, or t2i no longer
            starts.
    """
    if chosen.harm and not force:
        more = f"; and {len(chosen.harm) - 3} more" if len(chosen.harm) > 3 else ""
        raise UserError(
            f"installing {chosen.wanted} would break t2i: {'; '.join(chosen.harm[:3])}{more}; "
            "choose another version, or another environment (--force installs it nevertheless)"
        )
    _pip(["install", "--quiet", "--", chosen.target], chosen.target)
    return brought(chosen.wanted)


def brought(name: str) -> Installed:
    """Describe an installed package and its plugins.

    The plugins are listed in a fresh process, because this one has loaded the old ones.

    Args:
        name: Name of the package.

    Returns:
        The package.

    Raises:
        UserError: t2i no longer starts.
    """
    kept = {
        key: value for key, value in os.environ.items() if key not in ("T2I_PLUGINS", "T2I_STRICT")
    }
    code = [sys.executable, "-m", f"{__package__}.listing"]
    done = subprocess.run(code, env=kept, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise UserError(
            f"{name} is installed, but t2i no longer starts: {_last(done.stderr)}; uninstall it "
            f"with pip"
        )
    key = canonicalize_name(name)
    plugins = [p for p in json.loads(done.stdout) if canonicalize_name(p["distribution"]) == key]
    version = next((str(p["version"]) for p in plugins), None) or installed_version(name)
    return Installed(name, version, plugins)


def installed_version(name: str) -> str:
    """Return the version of a package.

    Args:
        name: Name of the package.

    Returns:
        The version; "?" if it is not installed.
    """
    found = _distribution(name)
    return found.version if found else "?"


def uninstall(name: str) -> str:
    """Remove a plugin package.

    Args:
        name: Name of the package.

    Returns:
        Its canonical name and its version, separated by a space.

    Raises:
        UserError: It is the host, is not installed, is not a plugin package, or pip cannot remove
            it.
    """
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
            f"pip could not remove {key} {version}: it is outside of this environment "
            f"({sys.prefix})"
        )
    return f"{key} {version}"


def plugin_packages() -> list[str]:
    """List the installed packages with plugins, other than the host.

    Returns:
        The canonical names of packages with an entry point in t2i's group, sorted.
    """
    names = {
        canonicalize_name(one.metadata["Name"])
        for one in distributions()
        if one.metadata["Name"] and one.entry_points.select(group=GROUP)
    }
    return sorted(names - {HOST})


def _pip(arguments: Sequence[str], target: str) -> str:
    """Run pip and return its output. A failure raises UserError with pip's reason."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else _last(done.stderr)
        raise UserError(f"pip cannot {arguments[0]} '{target}': {printable(reason)[:300]}")
    return done.stdout


def _last(text: str) -> str:
    """Return the last line of a text."""
    return (text.strip().splitlines() or ["no reason given"])[-1]
