"""Getting pretrained weights from a folder, the hub's cache or the hub; what cannot be had is said in one line.

The loaders given read only safetensors and JSON, and never any code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi

from t2i.core.errors import UserError, in_one_line
from t2i.core.fetch.downloads import fetched, hub_download, hub_folder

T = TypeVar("T")
PROBE_SECONDS = 10.0


@dataclass(frozen=True)
class Wanted:
    """What is to be had, and how errors speak of it. what: whose it is ("text encoder 'clip'"). setting: the key that
    names it ("encoder.weights"). name, revision: a folder, or a name on the hub. folder: what a folder must hold.
    remedy: how else to get it (default: by that setting)."""

    what: str
    setting: str
    name: str
    revision: str
    folder: str
    remedy: str = ""

    @property
    def advice(self) -> str:
        return self.remedy or f"give --set {self.setting}=FOLDER, {self.folder}"


def obtained(wanted: Wanted, load: Callable[[str, bool], T]) -> T:
    """What `load(source, offline)` returns for a folder, for the hub's local cache, or else for the hub itself.

    Raises UserError if it cannot be had or is unsound, and what `load` raises as UserError.
    """
    folder = Path(wanted.name).expanduser()
    if folder.is_dir():
        return _sound(wanted, str(folder), load, offline=True)
    if folder.is_absolute() or wanted.name.startswith((".", "~")) or wanted.name.count("/") > 1:
        raise UserError(
            f"{wanted.what}: {wanted.setting} = {wanted.name}: no such folder; give a hub name or {wanted.folder}"
        )
    try:
        return load(wanted.name, True)
    except UserError:
        raise
    except (
        Exception
    ):  # not in the cache, or not all of it: the libraries raise whatever their HTTP client raises
        kept = hub_folder(wanted.name) if wanted.revision == "main" else None
        if kept:  # by `t2i fetch`, from the revision that has safetensors
            return _sound(wanted, str(kept), load, offline=True)
        _probe(wanted)
    return _sound(wanted, wanted.name, load, offline=False)


def refuse_foreign_code(kind: Any, source: Path | str, what: str, **where: Any) -> None:
    """UserError if the config.json of a network of transformers' names a kernel on the hub, which transformers would
    fetch and run. kind: the class of its configuration. where: revision, local_files_only."""
    document, _ = kind.get_config_dict(source, **where)
    for key, value in _entries(document):
        if "implementation" in key and "/" in str(value):
            raise UserError(
                f"{what}: config.json of {source} asks for the kernel {str(value)[:80]!r}, code that is not ours to "
                f"run: remove '{key}' from it"
            )


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values, those of mappings inside too."""
    for key, value in document.items():
        yield str(key), value
        if isinstance(value, Mapping):
            yield from _entries(value)


def _probe(wanted: Wanted) -> None:
    """Asks the hub for the name once: the loaders themselves would retry for minutes without a network."""
    try:
        HfApi().model_info(wanted.name, revision=wanted.revision, timeout=PROBE_SECONDS)
    except Exception as error:
        download = hub_download(wanted.name)
        fetch = f"run 't2i fetch {download}' where there is one, " if download else ""
        raise UserError(
            f"{wanted.what}: '{wanted.name}' is neither a folder, nor in the hub's cache, nor to be had from the hub "
            f"({in_one_line(error)}); check the network (HF_HUB_OFFLINE, HF_ENDPOINT) and the name, {fetch}"
            f"or {wanted.advice}"
        ) from None


def _sound(wanted: Wanted, source: str, load: Callable[[str, bool], T], *, offline: bool) -> T:
    try:
        return load(source, offline)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # damaged files: transformers and tokenizers raise anything, down to bare Exception
        raise UserError(
            f"{wanted.what}: {wanted.setting} = {source} cannot be loaded ({in_one_line(error)}); it must be "
            f"{wanted.folder}"
        ) from None


def fetched_or(name: str, hub: str) -> str:
    """The folder that `t2i fetch NAME` has put here, else the hub's name for the same."""
    try:
        return str(fetched(name))
    except UserError:
        return hub
