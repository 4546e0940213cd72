"""Fetch a run from the Hugging Face hub into a folder, checked by its manifest."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from t2i.core.errors import UserError
from t2i.core.fetch.hub import OWN, PROBE_SECONDS, HubName, refusal
from t2i.core.io.folders import arrive_numbered, arriving, filling
from t2i.core.io.sealed import MANIFEST, verify
from t2i.core.io.terminal import printable
from t2i.core.runs.folder import RUNS, Run

WANTED = ("*.safetensors", "*.json", "*.jsonl", "*.txt", "*.model", "*.png", "*.md", "*.yaml")
"""Files of a run that are fetched: no pickles, no programs."""


def pull(repo: str, out: str | Path | None = None) -> Run:
    """Fetch a run that `push` published. The folder is complete or absent.

    Args:
        repo: The repository, OWNER/NAME or OWNER/NAME@REVISION.
        out: New folder. None: runs/NAME, or runs/NAME-2 and so on if that is taken.

    Returns:
        The run.

    Raises:
        UserError: The hub has no such run or cannot be reached, the folder is taken, or a file is
            missing or damaged.
    """
    hub = HubName.parse(repo)
    if hub is None:
        raise UserError(f"'{repo}' is no name of a repository: write it as OWNER/NAME")
    if out is not None:
        with arriving(Path(out)) as temporary:
            _fill(hub, temporary)
        return Run(Path(out))
    base = RUNS / hub.name.split("/")[1]
    with filling(base) as temporary:
        _fill(hub, temporary)
        return Run(arrive_numbered(temporary, base))


def _fill(hub: HubName, folder: Path) -> None:
    """Copy the files of a run from the hub's cache, and check them."""
    source, names = _fetched(hub)
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
    for manifest in folder.rglob(MANIFEST):
        verify(manifest.parent, f"{hub}")


def _fetched(hub: HubName) -> tuple[Path, list[str]]:
    """Fetch the files of the newest commit into the hub's cache."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        info = HfApi().model_info(hub.name, revision=hub.revision, timeout=PROBE_SECONDS)
        files = [str(file.rfilename) for file in info.siblings or []]
        if OWN[0] not in files:
            raise UserError(
                f"{hub}: the hub's model is no run of t2i: 't2i sample --run {hub}' opens "
                "pipelines of diffusers"
            )
        names = [name for name in files if any(fnmatch(name, pattern) for pattern in WANTED)]
        if outside := [name for name in names if not _is_inside(name)]:
            raise UserError(
                f"{hub}: its file {printable(outside[0])} would lie outside of the run's folder: "
                "nothing was fetched; do not trust this repository"
            )
        folder = Path(snapshot_download(hub.name, revision=info.sha, allow_patterns=names))
    except UserError:
        raise
    except Exception as error:  # whatever the hub's library and its HTTP client raise
        raise refusal(hub, error) from None
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{hub}: {missing[0]} did not come; the same command tries again")
    return folder, names


def _is_inside(name: str) -> bool:
    """Whether a file of a repository lies in its folder, on any system."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name)
