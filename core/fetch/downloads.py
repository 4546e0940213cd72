"""Fetch declared downloads (`t2i fetch`), and find those that are there.

Files with a URL go to `cache_dir()/fetched/NAME`, with a record of their sizes and checksums
(.fetched.json). Repositories of the Hugging Face hub go to the hub's own cache, where the libraries
look for them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from t2i.core.errors import UserError, nearest
from t2i.core.fetch.archives import unpack
from t2i.core.fetch.incomplete import Digests, Remote, part_of
from t2i.core.fetch.paths import cache_dir
from t2i.core.fetch.transfer import Progress, locked, need_space, transfer
from t2i.core.io.json_files import read_json, write_json
from t2i.core.registry.specs import DownloadFile, DownloadSpec, HubFiles
from t2i.core.registry.tables import registry

RECORD = ".fetched.json"
WEIGHTS = "*.safetensors"
CONVERTER = "SFconvertbot"  # the hub's bot that offers conversions of pickles to safetensors
REVISIONS = ".revisions.json"


class DownloadWatcher:
    """Receives the progress of a fetch. This base class ignores it; subclasses show it."""

    def say(self, text: str) -> None:
        """Report an event.

        Args:
            text: One line.
        """
        ...

    def begin(self, name: str) -> Progress:
        """Report the start of a file.

        Args:
            name: The file's path inside its download.

        Returns:
            A function to call as bytes of the file arrive.
        """
        return lambda done, total: None


@dataclass(frozen=True)
class Arrived:
    """A fetched file.

    Args:
        path: Where it is.
        size: Its size in bytes.
        sha256: Its SHA-256, in hexadecimal.
        checked: Whether a published checksum exists, which then agreed.
        new: Whether it was fetched just now. False: it was there already.
    """

    path: Path
    size: int
    sha256: str
    checked: bool
    new: bool


@dataclass(frozen=True)
class DownloadStatus:
    """How much of a download is there.

    Args:
        folder: Where its files are, or else its first repository. None: nothing of it is there.
        size: Bytes of its files that are there.
        missing: Files of the default parts and repositories that are not there.
    """

    folder: Path | None
    size: int
    missing: tuple[str, ...]


def fetch(
    name: str,
    *,
    parts: Sequence[str] = (),
    out: Path | None = None,
    mirror: str | None = None,
    unpacked: bool = False,
    watcher: DownloadWatcher | None = None,
) -> tuple[list[Arrived], list[Path]]:
    """Fetch a download. Files that are there already are kept.

    Args:
        name: Registry name of the download.
        parts: Names of the parts to fetch. Empty: the default parts. All repositories are fetched.
        out: Folder for its files and repositories. None: the cache.
        mirror: Base URL of a mirror for the files (`mirrored`). None: the environment variable
            T2I_MIRROR, if set.
        unpacked: Whether to unpack zip archives into the same folder.
        watcher: Receives the progress. None: it is not shown.

    Returns:
        The files, and the folders of the hub repositories.

    Raises:
        UserError: The download or a part is unknown, the disk is too full, a file cannot be fetched
            or is not the expected one, or a repository has no safetensors.
    """
    spec, watcher = registry().downloads[name], watcher or DownloadWatcher()
    folder = out or place(name)
    wanted = chosen(spec, parts)
    need_space(folder, sum(_lacking(file, folder / file.place) for file in wanted))
    mirror = mirror or default_mirror()
    arrived = [_got(file, folder, mirror, watcher) for file in wanted]
    for one in arrived:
        if unpacked and one.path.suffix == ".zip":
            watcher.say(f"unpacking {one.path.name}")
            with locked(one.path, watcher.say):
                unpack(one.path, folder)
    return arrived, [_snapshot_got(hub, out, watcher) for hub in spec.hub]


def fetched(name: str, file: str = "") -> Path:
    """Find what `t2i fetch NAME` has fetched.

    Args:
        name: Registry name of the download.
        file: Path of a file inside the download. "": the folder of all its files.

    Returns:
        The path of the file or folder: in the download's folder, else in a repository in the hub's
        cache.

    Raises:
        UserError: It is not there. The message names the command that fetches it.
    """
    spec = registry().downloads[name]
    for folder in (place(name), *filter(None, map(snapshot, spec.hub))):
        if (
            (folder / file).exists()
            if file
            else any((folder / one).exists() for one in _landmarks(spec))
        ):
            return folder / file
    raise UserError(
        f"{f'{file} ({name})' if file else name} is not here: '{command(spec, file)}' gets it"
    )


def command(spec: DownloadSpec, file: str = "") -> str:
    """Return the command that fetches a download, or the part that holds one of its files.

    Args:
        spec: The download.
        file: Path of a file inside the download. "": the command for the default parts.

    Returns:
        The command line.
    """
    part = next((one.part for one in spec.files if one.place == file), "")
    chosen_anyway = not part or not spec.default or part in spec.default
    return f"t2i fetch {spec.name}" + ("" if chosen_anyway else f" --parts {part}")


def status(spec: DownloadSpec) -> DownloadStatus:
    """Return how much of a download is there.

    Only names of files are looked up: no file is read and no server is contacted.

    Args:
        spec: The download.

    Returns:
        Where it is, how large, and what is missing.
    """
    folder, repositories = place(spec.name), [snapshot(hub) for hub in spec.hub]
    here = [folder / file.place for file in spec.files if (folder / file.place).is_file()]
    missing = [file.place for file in chosen(spec, ()) if not (folder / file.place).is_file()]
    missing += [
        hub.repository for hub, found in zip(spec.hub, repositories, strict=True) if found is None
    ]
    kept = [path for found in repositories if found for path in found.rglob("*") if path.is_file()]
    first = folder if here else next((found for found in repositories if found), None)
    return DownloadStatus(
        first, sum(path.stat().st_size for path in (*here, *kept)), tuple(missing)
    )


def place(name: str) -> Path:
    """Return the folder of a download's files in the cache.

    Args:
        name: Registry name of the download.

    Returns:
        The folder, which need not exist.
    """
    return cache_dir() / "fetched" / name


def chosen(spec: DownloadSpec, parts: Sequence[str]) -> list[DownloadFile]:
    """Return the files of some parts of a download.

    Args:
        spec: The download.
        parts: Names of the parts. Empty: the default parts, and the files that belong to no part.

    Returns:
        The files.

    Raises:
        UserError: The download has no part of that name.
    """
    for part in parts:
        if part not in spec.parts:
            raise UserError(
                f"download '{spec.name}' has no part '{part}'{nearest(part, spec.parts)}"
            )
    names = set(parts or spec.default or spec.parts) | (set() if parts else {""})
    return [file for file in spec.files if file.part in names]


def default_mirror() -> str | None:
    """Return the mirror that the environment variable T2I_MIRROR sets.

    Returns:
        Its base URL. None if the variable is not set or empty.
    """
    return os.environ.get("T2I_MIRROR") or None


def mirrored(url: str, mirror: str | None) -> str:
    """Return the address of a file on a mirror.

    Args:
        url: The file's own address.
        mirror: Base URL of the mirror: http, https or file. None: no mirror.

    Returns:
        MIRROR/HOST[:PORT]/PATH with the same query, or `url` without a mirror.

    Raises:
        UserError: The mirror is no URL of these kinds.
    """
    if mirror is None:
        return url
    if not _is_address(mirror):
        raise UserError(
            f"mirror {mirror}: no http, https or file URL; it looks like https://mirror.example/t2i"
        )
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{mirror.rstrip('/')}/{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def _is_address(url: str) -> bool:
    """Whether a text is an http, https or file URL."""
    try:
        return urlsplit(url).scheme in ("http", "https", "file")
    except ValueError:  # such as half a bracket
        return False


# --- files ----------------------------------------------------------------------------------------


def _got(file: DownloadFile, folder: Path, mirror: str | None, watcher: DownloadWatcher) -> Arrived:
    """Fetch one file, unless the record shows that it is there."""
    path = folder / file.place
    known = _recorded(folder, file)
    if known is not None:
        return Arrived(path, known.size, known.sha256, file.checksum is not None, new=False)
    new, remote = not path.exists(), Remote(mirrored(file.url, mirror), file.size, file.checksum)
    digests = transfer(remote, path, progress=watcher.begin(file.place), say=watcher.say)
    _record(folder, file, digests)
    return Arrived(path, digests.size, digests.sha256, file.checksum is not None, new=new)


def _lacking(file: DownloadFile, path: Path) -> int:
    """Return how many bytes of a file are still to be fetched; 0 if its size is not known."""
    part = part_of(path)
    here = part.stat().st_size if part.exists() else 0
    return 0 if path.exists() else max(0, (file.size or 0) - here)


def _recorded(folder: Path, file: DownloadFile) -> Digests | None:
    """Return the recorded digests of a file, or None if the record does not fit the file.

    It fits if file, URL and checksum are the same and the file still has the recorded size.
    """
    entry, path = _records(folder).get(file.place), folder / file.place
    if not (
        isinstance(entry, dict) and path.is_file() and path.stat().st_size == entry.get("size")
    ):
        return None
    if entry.get("url") != file.url or entry.get("checksum") != file.checksum:
        return None
    return Digests(int(entry["size"]), str(entry.get("sha256")), None)


def _record(folder: Path, file: DownloadFile, digests: Digests) -> None:
    """Record a fetched file, so that it need not be read again.

    The record also holds a SHA-256 where none has been published.
    """
    with locked(folder / RECORD):
        entry = {
            "url": file.url,
            "size": digests.size,
            "sha256": digests.sha256,
            "checksum": file.checksum,
        }
        write_json(folder / RECORD, _records(folder) | {file.place: entry})


def _records(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / RECORD, "record")
    except UserError:  # missing or damaged: the files themselves are read again
        return {}
    return found if isinstance(found, dict) else {}


# --- the hub --------------------------------------------------------------------------------------


def snapshot(hub: HubFiles) -> Path | None:
    """Find a repository in the hub's cache, without contacting the hub.

    Args:
        hub: The repository, its revision and files. A recorded revision of the hub's converted
            weights is tried too.

    Returns:
        The folder that holds its files. None if it is not there, or lacks the safetensors or, where
        none are wanted, another file.
    """
    from huggingface_hub import snapshot_download

    noted = noted_revisions().get(hub.repository)
    for revision in (hub.revision, *([noted] if noted else [])):
        try:
            folder = Path(
                snapshot_download(
                    hub.repository,
                    revision=revision,
                    allow_patterns=list(hub.patterns),
                    local_files_only=True,
                )
            )
        except Exception:  # missing or not readable
            continue
        if _whole(folder, hub):
            return folder
    return None


def hub_folder(repository: str) -> Path | None:
    """Find a repository that `t2i fetch` has put into the hub's cache.

    Args:
        repository: The repository, OWNER/NAME, as any download declares it.

    Returns:
        The folder. None if no download declares it or it is not there.
    """
    declared = [
        hub for spec in registry().downloads for hub in spec.hub if hub.repository == repository
    ]
    return next(filter(None, map(snapshot, declared)), None)


def hub_download(repository: str) -> str | None:
    """Find a download that declares a repository.

    Args:
        repository: The repository, OWNER/NAME.

    Returns:
        Registry name of the first such download. None if there is none.
    """
    declared = (
        spec for spec in registry().downloads for hub in spec.hub if hub.repository == repository
    )
    return next((spec.name for spec in declared), None)


def _snapshot_got(hub: HubFiles, out: Path | None, watcher: DownloadWatcher) -> Path:
    """Fetch a repository and return its folder.

    If its main revision holds only pickles, the conversion offered by the hub's own bot is fetched,
    as transformers does.
    """
    folder = _revision_got(hub, hub.revision, out, watcher)
    if _whole(folder, hub):
        return folder
    convertible = WEIGHTS in hub.patterns and hub.revision == "main"
    converted = conversion(hub.repository) if convertible else None
    if converted:
        folder = _revision_got(hub, converted, out, watcher)
        if _whole(folder, hub):
            note_revision(hub.repository, converted)
            return folder
    if WEIGHTS not in hub.patterns:
        raise UserError(
            f"{hub.repository} at revision {hub.revision} lacks one of {', '.join(hub.patterns)}; "
            "use the path of a folder that has them instead of its name"
        )
    raise UserError(
        f"{hub.repository} has no safetensors at revision {hub.revision}: "
        "pickles (pytorch_model.bin) are not fetched; "
        "convert it, and use the path of the converted folder instead of its name"
    )


def _revision_got(hub: HubFiles, revision: str, out: Path | None, watcher: DownloadWatcher) -> Path:
    from huggingface_hub import snapshot_download

    watcher.say(f"{hub.repository} at {revision}, from the Hugging Face hub")
    try:
        return Path(
            snapshot_download(
                hub.repository, revision=revision, allow_patterns=list(hub.patterns),
                local_dir=out / hub.repository.replace("/", "--") if out else None,
            )
        )  # fmt: skip
    except Exception as error:  # whatever the hub's library and its HTTP client raise
        first = str(error).partition("\n")[0][:200]
        raise UserError(
            f"{hub.repository}: cannot be fetched from the hub ({type(error).__name__}: {first}); "
            "check the network (HF_HUB_OFFLINE, HF_ENDPOINT)"
        ) from None


def conversion(repository: str) -> str | None:
    """Return the revision in which the hub's bot offers a repository's weights as safetensors.

    Args:
        repository: The repository, OWNER/NAME.

    Returns:
        The revision, such as "refs/pr/7". None if there is none or the hub cannot be reached.
    """
    from huggingface_hub import get_repo_discussions

    try:
        found = get_repo_discussions(repository, author=CONVERTER, discussion_type="pull_request")
        offers = [one for one in found if one.is_pull_request and one.author == CONVERTER]
    except Exception:  # whatever the hub's library and its HTTP client raise: treated as no offer
        return None
    return f"refs/pr/{offers[0].num}" if offers else None


def noted_revisions() -> dict[str, str]:
    """Read which repositories were fetched from a conversion.

    Returns:
        Repository -> the revision of its conversion.
    """
    try:
        noted = read_json(place(REVISIONS), "revisions")
    except UserError:
        return {}
    return (
        {str(name): str(revision) for name, revision in noted.items()}
        if isinstance(noted, dict)
        else {}
    )


def note_revision(repository: str, revision: str) -> None:
    """Record that a repository was fetched from a conversion.

    Args:
        repository: The repository, OWNER/NAME.
        revision: The revision of its conversion.
    """
    place(REVISIONS).parent.mkdir(parents=True, exist_ok=True)
    with locked(place(REVISIONS)):
        write_json(place(REVISIONS), noted_revisions() | {repository: revision})


def _whole(folder: Path, hub: HubFiles) -> bool:
    """Return whether a folder holds weights or, of a tokenizer without weights, all its files."""
    wanted = (WEIGHTS,) if WEIGHTS in hub.patterns else hub.patterns
    return all(any(folder.rglob(pattern)) for pattern in wanted)


def _landmarks(spec: DownloadSpec) -> list[str]:
    """Return files of which one in a folder shows that it holds the download."""
    return [file.place for file in spec.files] or ["config.json", "model.safetensors"]
