"""What an installation changes, where it comes from, and what of it would break the host.

The host is t2i's own distribution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from t2i.core.registry.tables import HOST


@dataclass(frozen=True)
class Origin:
    """Where pip gets a package, and what the package says of itself.

    Args:
        url: Address of its file, folder or repository.
        line: The requirement that names exactly that, for pip.
        digest: SHA-256 of its file. None: pip gives none.
        local: Whether it is the folder or file of this machine that the user named.
        author: Who made it; "" if it does not say.
        page: Its page; "" if it names none.
        summary: What it is; "" if it does not say.
    """

    url: str
    line: str
    digest: str | None
    local: bool
    author: str = ""
    page: str = ""
    summary: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any], local: bool) -> Origin:
        """Read an entry of pip's report.

        Args:
            entry: The entry.
            local: Whether it is the folder or file of this machine that the user named.

        Returns:
            The origin.
        """
        metadata, download = entry["metadata"], entry["download_info"]
        named = [metadata.get(key) for key in ("author", "author_email", "maintainer")]
        pages = [page.partition(",")[2].strip() for page in metadata.get("project_url", [])]
        url = download["url"]
        if vcs := download.get("vcs_info"):
            url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        if within := download.get("subdirectory"):
            url += f"#subdirectory={within}"
        exactly = f" @ {url}" if entry.get("is_direct") else f"=={metadata['version']}"
        return cls(
            download["url"],
            f"{metadata['name']}{exactly}",
            download.get("archive_info", {}).get("hashes", {}).get("sha256"),
            local,
            next((name for name in named if name), ""),
            metadata.get("home_page") or next((page for page in pages if page), ""),
            metadata.get("summary") or "",
        )

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        folder = str(PurePosixPath(unquote(parts.path)).parent)
        return "; ".join(
            [
                f"from {f'{parts.scheme}://{parts.hostname}' if parts.hostname else folder}",
                self.summary or "it does not say what it is",
                f"by {self.author}" if self.author else "it does not say by whom",
                self.page or "it names no page",
            ]
        )


@dataclass(frozen=True)
class Change:
    """One package that pip would install.

    Args:
        name: Canonical name of the package.
        before: The version that is installed now; None if there is none.
        after: The version that pip would install.
        origin: Where pip gets it. None: not known.
    """

    name: str
    before: str | None
    after: str
    origin: Origin | None = None

    def __str__(self) -> str:
        return (
            f"{self.name} {self.before} -> {self.after}"
            if self.before
            else f"{self.name} {self.after} (new)"
        )

    def document(self) -> dict[str, Any]:
        """Convert the change to a JSON document.

        Returns:
            Its name and versions, and what is known of the origin.
        """
        found: dict[str, Any] = {"name": self.name, "before": self.before, "after": self.after}
        if (of := self.origin) is not None:
            found |= {"url": of.url, "author": of.author, "page": of.page, "summary": of.summary}
        return found


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
    changed = {change.name for change in changes}
    after = before | {change.name: change.after for change in changes}
    for name in host_packages():
        if name == HOST and before.get(name) != after.get(name):
            found.append(f"{HOST} itself would change from {before.get(name)} to {after[name]}")
        elif name in changed and before.get(name) == after[name]:
            found.append(f"{name} {after[name]} would be replaced by another of that version")
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
            if name not in found and distribution_of(name):
                found[name] = None
                waiting.append(name)
    return list(found)


def distribution_of(name: str) -> Distribution | None:
    """Look up an installed package.

    Args:
        name: Its canonical name.

    Returns:
        The package; None if it is not installed.
    """
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _requires(name: str) -> list[str]:
    """Return the requirements of an installed package; empty if it is not installed."""
    found = distribution_of(name)
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
