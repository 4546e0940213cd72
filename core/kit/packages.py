"""Installing and removing plugin packages with the environment's own pip, without breaking t2i.

`plan` finds out what pip would do. `fetched` gets the wheels and finds out what they would break.
`try_out` lists the plugins with the wheels in a folder of their own. Only `install` changes the
environment: it installs exactly the wheels that were looked at.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from t2i.core.errors import UserError, nearest
from t2i.core.io.terminal import printable
from t2i.core.kit.changes import Change, Origin, distribution_of, harm, installed
from t2i.core.kit.overwriting import entry_points_of, overwritten
from t2i.core.kit.pip_process import PYTHON, run_pip, variables_of_python
from t2i.core.kit.targets import WHEEL, Target
from t2i.core.kit.workplace import noted
from t2i.core.registry.hooks import GROUP
from t2i.core.registry.tables import HOST, registry


class SourceOnly(UserError):
    """A package has no wheel that fits. Pip would have to build it, which runs its code."""


@dataclass(frozen=True)
class Plan:
    """What installing a package would do.

    Args:
        target: What the user named.
        wanted: Name of the package itself.
        changes: All packages that pip would install.
        harm: One sentence for each thing of the host or of other packages that would break. Empty
            if nothing would.
        builds: Whether source packages are built, where there is no wheel.
        wheels: Folder of the wheels. None: they are not there yet.
    """

    target: Target
    wanted: str
    changes: Sequence[Change]
    harm: Sequence[str] = field(default_factory=list)
    builds: bool = False
    wheels: Path | None = None

    @property
    def foreign(self) -> list[Change]:
        """The packages that come from elsewhere than the folder or file that the user named."""
        return [one for one in self.changes if one.origin is None or not one.origin.local]

    def document(self) -> dict[str, Any]:
        """Convert the plan to a JSON document.

        Returns:
            The package, its changes and its harm.
        """
        changes = [change.document() for change in self.changes]
        return {"package": self.wanted, "changes": changes, "harm": list(self.harm)}

    def check(self, *, force: bool = False) -> None:
        """Refuse a plan that does harm.

        Args:
            force: Whether to accept it nevertheless.

        Raises:
            UserError: It does harm. The message names it.
        """
        if self.harm and not force:
            more = f"; and {len(self.harm) - 3} more" if len(self.harm) > 3 else ""
            raise UserError(
                f"installing {self.wanted} would break what is installed: "
                f"{'; '.join(self.harm[:3])}{more}; "
                "choose another version, or another environment (--force installs it nevertheless)"
            )


def plan(target: Target, *, build: bool = False) -> Plan:
    """Find out what pip would do to install a package. Nothing is changed.

    A target that `builds` runs its code.

    Args:
        target: What to install.
        build: Whether pip may build source packages of others, which runs their code. It takes
            wheels otherwise, also older ones.

    Returns:
        The plan. Its harm does not yet cover what is in the wheels.

    Raises:
        SourceOnly: A package has no wheel that fits, and `build` is False.
        UserError: Pip cannot install it. The message gives pip's reason.
    """
    entries = _report(target, build)
    known = not any(entry.get("requested") for entry in entries)  # pip has this version of it
    if target.local and known:
        entries += _report(target, build, "--force-reinstall", "--no-deps")
    versions = installed()
    changes: list[Change] = []
    requirements: dict[str, Sequence[str]] = {}
    wanted = None
    for entry in entries:
        metadata, requested = entry["metadata"], bool(entry.get("requested"))
        name = canonicalize_name(metadata["name"])
        origin = Origin.of(entry, target.local and requested)
        changes.append(Change(name, versions.get(name), metadata["version"], origin))
        requirements[name] = metadata.get("requires_dist", [])
        wanted = name if requested else wanted
    wanted = wanted or canonicalize_name(Requirement(target.text).name)
    if not changes and wanted not in versions:
        raise UserError(
            f"'{target.text}' is not for this Python or platform: there is nothing to do"
        )
    return Plan(target, wanted, changes, harm(changes, requirements), build)


def _report(target: Target, build: bool, *options: str) -> list[dict[str, Any]]:
    """Return pip's report of what it would install."""
    arguments = ["install", "--dry-run", "--report", "-", *options, *_only_wheels(build)]
    try:
        document = json.loads(run_pip([*arguments, "--", target.text], target.text))
    except UserError as error:
        if not build and (name := _without_wheel(str(error))):
            raise SourceOnly(
                f"{name} has no wheel that fits, only source packages: pip would build them, which "
                f"runs their code"
            ) from None
        raise
    found: list[dict[str, Any]] = document["install"]
    return found


def _only_wheels(build: bool) -> list[str]:
    return [] if build else ["--only-binary", ":all:"]


def _without_wheel(reason: str) -> str | None:
    """Return the requirement that only a source package meets, by pip's reason; else None."""
    found = re.search(r"No matching distribution found for ([\w.-]+)([^\s(;]*)", reason)
    if found is None:
        return None
    query = ["index", "versions", "--verbose", "--no-binary", ":all:", "--", found[1]]
    try:
        versions = re.search(r"^Available versions: (.+)$", run_pip(query, found[1]), re.MULTILINE)
        fitting = SpecifierSet(found[2]).filter(versions[1].split(", ") if versions else [])
        return found[1] if any(True for _ in fitting) else None
    except (UserError, InvalidSpecifier):
        return None


@contextmanager
def fetched(chosen: Plan) -> Iterator[Plan]:
    """Get the wheels of a plan into a temporary folder, and look into them.

    Args:
        chosen: The plan.

    Yields:
        The plan, with the harm of the wheels' files and with the folder. The folder is removed at
        the end.

    Raises:
        UserError: Pip cannot get or build them, or the package is no plugin of t2i.
    """
    with tempfile.TemporaryDirectory(prefix="t2i-install-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        wheels = _wheels(chosen, folder)
        if chosen.wanted in wheels and not _registers(wheels[chosen.wanted]):
            raise UserError(
                f"{chosen.wanted} is no plugin of t2i (it has no entry point in the group "
                f"'{GROUP}'): nothing was installed"
            )
        yield replace(chosen, harm=[*chosen.harm, *overwritten(wheels)], wheels=folder)


def _wheels(chosen: Plan, folder: Path) -> dict[str, Path]:
    """Get the wheels of all changes, by name. Where pip gave a hash, the file must have it."""
    origins = [change.origin for change in chosen.changes if change.origin]
    hashed = [f"{of.line} --hash=sha256:{of.digest}" for of in origins if of.digest]
    plain = [of.line for of in origins if not of.digest]
    for lines in (hashed, plain):
        if lines:
            file = folder / "requirements.txt"
            file.write_text("\n".join(lines) + "\n", "utf-8")
            rest = ["--no-deps", "--wheel-dir", str(folder), "-r", str(file)]
            run_pip(["wheel", *_only_wheels(chosen.builds), *rest], chosen.target.text)
            file.unlink()
    found = _by_name(folder)
    for change in chosen.changes:
        if change.name not in found:
            raise UserError(f"pip did not get {change.name} {change.after}: nothing was installed")
    return found


def _by_name(folder: Path | None) -> dict[str, Path]:
    """Return the wheels in a folder by the names of their packages."""
    found = {}
    for wheel in folder.glob(f"*{WHEEL}") if folder else ():
        try:
            found[str(parse_wheel_filename(wheel.name)[0])] = wheel
        except InvalidWheelFilename as error:
            raise UserError(f"{printable(str(error))}: nothing was installed") from None
    return found


def _registers(wheel: Path) -> bool:
    """Return whether a wheel declares a plugin."""
    text = entry_points_of(wheel)
    return re.search(rf"^\[\s*{GROUP}\s*\]\s*$", text, re.MULTILINE) is not None


@dataclass(frozen=True)
class Installed:
    """A package that is installed, here or in a folder to try it.

    Args:
        name: Name of the package.
        version: Its version.
        plugins: Its plugins, as `t2i plugins --json` lists them.
        others: The plugins of other packages.
    """

    name: str
    version: str
    plugins: Sequence[Mapping[str, Any]]
    others: Sequence[Mapping[str, Any]] = ()

    @property
    def broken(self) -> list[str]:
        """One line for each of its plugins that has an error."""
        return [
            f"plugin '{plugin['name']}': {plugin['error']}"
            for plugin in self.plugins
            if plugin["error"]
        ]


def try_out(chosen: Plan) -> None:
    """List the plugins as they would be, with the wheels of a plan in a temporary folder.

    The environment is not changed. The plugins' code is run.

    Args:
        chosen: The plan, with its wheels.

    Raises:
        UserError: t2i would not start, or the package would register nothing, be broken, or break
            the plugin of another package.
    """
    with tempfile.TemporaryDirectory(prefix="t2i-try-", ignore_cleanup_errors=True) as folder:
        _install(chosen, ["--target", folder])
        try:
            found = brought(chosen.wanted, Path(folder))
        except UserError as error:
            raise UserError(f"{error}; nothing was installed (--force installs it)") from None
    if found.broken:
        raise UserError(
            f"{found.name} {found.version} is broken: {found.broken[0]}; nothing was installed "
            f"(--force installs it)"
        )
    if not any(plugin["registers"] for plugin in found.plugins):
        raise UserError(
            f"{found.name} {found.version} registers nothing: it is no plugin of t2i; nothing was "
            f"installed"
        )
    sound = {(p.origin.distribution, p.origin.plugin) for p in registry().plugins if not p.error}
    for plugin in found.others:
        if plugin["error"] and (plugin["distribution"], plugin["name"]) in sound:
            raise UserError(
                f"installing {found.name} would break plugin '{plugin['name']}' of "
                f"{plugin['distribution']}: {plugin['error']}; nothing was installed (--force "
                f"installs it)"
            )


def install(chosen: Plan, *, force: bool = False) -> Installed:
    """Install the wheels of a plan.

    Args:
        chosen: The plan, with its wheels.
        force: Whether to install what does harm, or is broken.

    Returns:
        The package, with its plugins.

    Raises:
        UserError: It does harm (the message names it), it is not what `try_out` accepts, pip fails,
            or t2i no longer starts.
    """
    chosen.check(force=force)
    if not chosen.changes:
        found = brought(chosen.wanted)
        if not found.plugins:
            raise UserError(
                f"{found.name} {found.version} is installed already, and is no plugin of t2i: "
                f"nothing was changed"
            )
        return found
    if not force:
        try_out(chosen)
    with noted(_by_name(chosen.wheels)):
        _install(chosen, [])
    return brought(chosen.wanted)


def _install(chosen: Plan, where: Sequence[str]) -> None:
    """Install exactly the wheels of a plan."""
    assert chosen.wheels is not None
    named = [parse_wheel_filename(one.name)[:2] for one in chosen.wheels.glob(f"*{WHEEL}")]
    exactly = ["--no-deps", "--no-index", "--force-reinstall", "--find-links", str(chosen.wheels)]
    wanted = [f"{name}=={version}" for name, version in sorted(named)]
    run_pip(["install", *exactly, *where, "--", *wanted], chosen.target.text, sources=False)


def brought(name: str, folder: Path | None = None) -> Installed:
    """Describe an installed package and its plugins.

    The plugins are listed in a fresh process, because this one has loaded the old ones.

    Args:
        name: Name of the package.
        folder: Folder of packages that win over those that are installed. None: there is none.

    Returns:
        The package.

    Raises:
        UserError: t2i no longer starts.
    """
    kept = variables_of_python(*([folder] if folder else []))
    kept = {key: value for key, value in kept.items() if key not in ("T2I_PLUGINS", "T2I_STRICT")}
    code = [*PYTHON, "-m", f"{__package__}.listing"]
    done = subprocess.run(
        code, env=kept, capture_output=True, stdin=subprocess.DEVNULL, encoding="utf-8",
        errors="replace",
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if folder:
            raise UserError(f"with {name} t2i would no longer start: {reason}")
        raise UserError(
            f"{name} is installed, but t2i no longer starts: {reason}; 'pip uninstall {name}' "
            f"removes it"
        )
    key, listed = canonicalize_name(name), json.loads(done.stdout)
    plugins = [p for p in listed if canonicalize_name(p["distribution"]) == key]
    others = [p for p in listed if p not in plugins]
    version = next((str(p["version"]) for p in plugins), None) or installed().get(key, "?")
    return Installed(key, version, plugins, others)


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
    found, known = distribution_of(key), plugin_packages()
    if found is None:
        raise UserError(f"no package is named '{name}'{nearest(key, known)}")
    if key not in known:
        raise UserError(
            f"{key} is no plugin of t2i: 'pip uninstall {key}' removes it{nearest(key, known)}"
        )
    version = found.version
    run_pip(["uninstall", "--yes", "--", key], key)
    if distribution_of(key) is not None:
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
