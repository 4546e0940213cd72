"""What has to be got from elsewhere (`t2i fetch`): where it is kept, whether it is there, and getting it.

Files by URL go to `cache_dir()/fetched/NAME`, with a record of what came (.fetched.json). Repositories of the Hugging
Face hub go to the hub's own cache, where the libraries look for them.
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
from t2i.core.fetch.paths import cache_dir
from t2i.core.fetch.transfer import Digests, Progress, Remote, locked, need_space, part_of, transfer
from t2i.core.io.files import read_json, write_json
from t2i.core.registry.specs import DownloadFile, DownloadSpec, HubFiles
from t2i.core.registry.tables import registry

RECORD = ".fetched.json"
WEIGHTS = "*.safetensors"
CONVERTER = "SFconvertbot"  # the hub's user that offers conversions of pickles
REVISIONS = ".revisions.json"


class DownloadWatcher:
    """Is told how a fetch goes on. This one tells nobody."""

    def say(self, text: str) -> None: ...

    def begin(self, name: str) -> Progress:
        """A file begins; returns what is to be called as its bytes come."""
        return lambda done, total: None


@dataclass(frozen=True)
class Arrived:
    """A file that is there. checked: whether somebody's published checksum agrees. new: whether it came just now."""

    path: Path
    size: int
    sha256: str
    checked: bool
    new: bool


@dataclass(frozen=True)
class DownloadStatus:
    """How much of a download is there. folder: where (None: nothing of it is). size: bytes of its files there.
    missing: its files and repositories that are not."""

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
    """Gets the download `name`: (its files, the folders of its hub repositories). What is there already stays.

    parts: of the files, by name (none: the default ones). out: another folder. mirror: a base URL for the files
    (default: the setting T2I_MIRROR). unpacked: unpack zip archives beside themselves. Raises UserError.
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
    """Where `t2i fetch NAME` has put a file (without `file`: the folder of them all). UserError if it is not there."""
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
    """The command that gets a download, or the part of it that holds `file`."""
    part = next((one.part for one in spec.files if one.place == file), "")
    chosen_anyway = not part or not spec.default or part in spec.default
    return f"t2i fetch {spec.name}" + ("" if chosen_anyway else f" --parts {part}")


def status(spec: DownloadSpec) -> DownloadStatus:
    """What is there of a download, by the names of the files; nothing is read or asked."""
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
    """The folder of the files of a download."""
    return cache_dir() / "fetched" / name


def chosen(spec: DownloadSpec, parts: Sequence[str]) -> list[DownloadFile]:
    """The files of these parts; those of the default parts, and of no part, where none are named."""
    for part in parts:
        if part not in spec.parts:
            raise UserError(
                f"download '{spec.name}' has no part '{part}'{nearest(part, spec.parts)}"
            )
    names = set(parts or spec.default or spec.parts) | (set() if parts else {""})
    return [file for file in spec.files if file.part in names]


def default_mirror() -> str | None:
    """The setting T2I_MIRROR."""
    return os.environ.get("T2I_MIRROR") or None


def mirrored(url: str, mirror: str | None) -> str:
    """Where a mirror keeps what is at `url`: MIRROR/HOST[:PORT]/PATH, with the same query if there is one."""
    if mirror is None:
        return url
    if urlsplit(mirror).scheme not in ("http", "https", "file"):
        raise UserError(
            f"mirror {mirror}: no http, https or file URL; it looks like https://mirror.example/t2i"
        )
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{mirror.rstrip('/')}/{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


# --- files -----------------------------------------------------------------------------------------------------------


def _got(file: DownloadFile, folder: Path, mirror: str | None, watcher: DownloadWatcher) -> Arrived:
    """One file, from where it is or from elsewhere."""
    path = folder / file.place
    known = _recorded(folder, file)
    if known is not None:
        return Arrived(path, known.size, known.sha256, file.checksum is not None, new=False)
    new, remote = not path.exists(), Remote(mirrored(file.url, mirror), file.size, file.checksum)
    digests = transfer(remote, path, progress=watcher.begin(file.place), say=watcher.say)
    _record(folder, file, digests)
    return Arrived(path, digests.size, digests.sha256, file.checksum is not None, new=new)


def _lacking(file: DownloadFile, path: Path) -> int:
    """How many bytes of a file, of known size, are to come."""
    part = part_of(path)
    here = part.stat().st_size if part.exists() else 0
    return 0 if path.exists() else max(0, (file.size or 0) - here)


def _recorded(folder: Path, file: DownloadFile) -> Digests | None:
    """What the record says of a file that is there, and unchanged in size since."""
    entry, path = _records(folder).get(file.place), folder / file.place
    if not (
        isinstance(entry, dict) and path.is_file() and path.stat().st_size == entry.get("size")
    ):
        return None
    if entry.get("url") != file.url or entry.get("checksum") != file.checksum:
        return None
    return Digests(int(entry["size"]), str(entry.get("sha256")), None)


def _record(folder: Path, file: DownloadFile, digests: Digests) -> None:
    """Notes what came: it need not be read again, and there is a checksum where nobody published one."""
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
    except UserError:  # not there, or damaged: the files themselves are read again
        return {}
    return found if isinstance(found, dict) else {}


# --- the hub ---------------------------------------------------------------------------------------------------------


def snapshot(hub: HubFiles) -> Path | None:
    """The folder in the hub's cache that holds these files with weights; None if it is not there."""
    from huggingface_hub import snapshot_download

    noted = _noted_revisions().get(hub.repository)
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
        except Exception:  # not there, or nothing that could be read
            continue
        if _has_weights(folder):
            return folder
    return None


def hub_folder(repository: str) -> Path | None:
    """The folder in the hub's cache where `t2i fetch` has put this repository, by whatever download declares it."""
    declared = [
        hub for spec in registry().downloads for hub in spec.hub if hub.repository == repository
    ]
    return next(filter(None, map(snapshot, declared)), None)


def hub_download(repository: str) -> str | None:
    """The name of a download that declares this repository."""
    declared = (
        spec for spec in registry().downloads for hub in spec.hub if hub.repository == repository
    )
    return next((spec.name for spec in declared), None)


def _snapshot_got(hub: HubFiles, out: Path | None, watcher: DownloadWatcher) -> Path:
    """The folder of a repository's files; where its main revision holds pickles only, those of the conversion of it
    that the hub's own bot has offered, as transformers does."""
    folder = _revision_got(hub, hub.revision, out, watcher)
    if _has_weights(folder):
        return folder
    converted = _conversion(hub.repository) if hub.revision == "main" else None
    if converted:
        folder = _revision_got(hub, converted, out, watcher)
        if _has_weights(folder):
            _note_revision(hub.repository, converted)
            return folder
    raise UserError(
        f"{hub.repository} has no safetensors at revision {hub.revision}: pickles (pytorch_model.bin) are not fetched; "
        "convert it, and name the folder where it is wanted"
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
            f"{hub.repository}: not to be had from the hub ({type(error).__name__}: {first}); check the network "
            "(HF_HUB_OFFLINE, HF_ENDPOINT)"
        ) from None


def _conversion(repository: str) -> str | None:
    """The revision in which the hub's bot offers a repository's weights as safetensors."""
    from huggingface_hub import get_repo_discussions

    try:
        found = get_repo_discussions(repository, author=CONVERTER, discussion_type="pull_request")
        offers = [one for one in found if one.is_pull_request and one.author == CONVERTER]
    except Exception:  # whatever the hub's library and its HTTP client raise: then there is none
        return None
    return f"refs/pr/{offers[0].num}" if offers else None


def _noted_revisions() -> dict[str, str]:
    """Repository -> the revision of its conversion, for those that were got from there."""
    try:
        noted = read_json(place(REVISIONS), "revisions")
    except UserError:
        return {}
    return (
        {str(name): str(revision) for name, revision in noted.items()}
        if isinstance(noted, dict)
        else {}
    )


def _note_revision(repository: str, revision: str) -> None:
    place(REVISIONS).parent.mkdir(parents=True, exist_ok=True)
    with locked(place(REVISIONS)):
        write_json(place(REVISIONS), _noted_revisions() | {repository: revision})


def _has_weights(folder: Path) -> bool:
    return any(folder.rglob(WEIGHTS))


def _landmarks(spec: DownloadSpec) -> list[str]:
    """Files one of which shows that a folder is that of the download."""
    return [file.place for file in spec.files] or ["config.json", "model.safetensors"]
