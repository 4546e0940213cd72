"""Get pretrained weights from a folder, the hub's cache or the hub, with errors of one line.

The functions that are passed in for loading read only safetensors and JSON, and run no code.
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
    """Weights to load, and how errors describe them.

    Args:
        what: What the weights are for, such as "text encoder 'clip'".
        setting: Key of the setting that names them, such as "encoder.weights".
        name: A folder, or a name on the hub.
        revision: Branch, tag or commit on the hub.
        folder: What a folder must hold, as a phrase: "a folder with config.json and ...".
        remedy: Advice for when they cannot be loaded. "": to give a folder by that setting.
    """

    what: str
    setting: str
    name: str
    revision: str
    folder: str
    remedy: str = ""

    @property
    def advice(self) -> str:
        """What to do if the weights cannot be loaded, as the end of a message."""
        return self.remedy or f"give --set {self.setting}=FOLDER, {self.folder}"


def obtained(wanted: Wanted, load: Callable[[str, bool], T]) -> T:
    """Load weights from a folder, else from the hub's local cache, else from the hub.

    Args:
        wanted: The weights.
        load: Called as load(source, offline), where `source` is a folder or a hub name. With
            `offline` it must not use the network.

    Returns:
        What `load` returns.

    Raises:
        UserError: The weights are nowhere, or damaged. A UserError of `load` is passed on.
    """
    folder = Path(wanted.name).expanduser()
    if folder.is_dir():
        return _sound(wanted, str(folder), load, offline=True)
    if folder.is_absolute() or wanted.name.startswith((".", "~")) or wanted.name.count("/") > 1:
        raise UserError(
            f"{wanted.what}: {wanted.setting} = {wanted.name}: no such folder; give a hub name or "
            f"{wanted.folder}"
        )
    try:
        return load(wanted.name, True)
    except UserError:
        raise
    # Not in the cache, or not all of it. The libraries raise whatever their HTTP client raises.
    except Exception:
        kept = hub_folder(wanted.name) if wanted.revision == "main" else None
        if kept:  # fetched by `t2i fetch`, from the revision that has safetensors
            return _sound(wanted, str(kept), load, offline=True)
        _probe(wanted)
    return _sound(wanted, wanted.name, load, offline=False)


def refuse_foreign_code(kind: Any, source: Path | str, what: str, **where: Any) -> None:
    """Refuse a network of transformers whose config.json names a kernel on the hub.

    transformers would download the kernel and run it.

    Args:
        kind: Class of the network's configuration.
        source: Folder or hub name of the network.
        what: What the network is for, as errors name it.
        **where: Options of transformers' loading: revision, local_files_only.

    Raises:
        UserError: The config.json names a kernel.
    """
    document, _ = kind.get_config_dict(source, **where)
    for key, value in _entries(document):
        if "implementation" in key and "/" in str(value):
            raise UserError(
                f"{what}: config.json of {source} asks for the kernel {str(value)[:80]!r}, code "
                f"that is not ours to "
                f"run: remove '{key}' from it"
            )


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield keys and values, including those of nested mappings."""
    for key, value in document.items():
        yield str(key), value
        if isinstance(value, Mapping):
            yield from _entries(value)


def _probe(wanted: Wanted) -> None:
    """Look the name up on the hub once.

    Without a network, the loaders themselves would retry for minutes.
    """
    try:
        HfApi().model_info(wanted.name, revision=wanted.revision, timeout=PROBE_SECONDS)
    except Exception as error:
        download = hub_download(wanted.name)
        fetch = f"run 't2i fetch {download}' where there is one, " if download else ""
        raise UserError(
            f"{wanted.what}: '{wanted.name}' is neither a folder, nor in the hub's cache, nor to "
            f"be had from the hub "
            f"({in_one_line(error)}); check the network (HF_HUB_OFFLINE, HF_ENDPOINT) and the "
            f"name, {fetch}"
            f"or {wanted.advice}"
        ) from None


def _sound(wanted: Wanted, source: str, load: Callable[[str, bool], T], *, offline: bool) -> T:
    """Call `load`, and raise any error of damaged files as a UserError."""
    try:
        return load(source, offline)
    except UserError:
        raise
    # Damaged files: transformers and tokenizers raise anything, even a bare Exception.
    except Exception as error:
        raise UserError(
            f"{wanted.what}: {wanted.setting} = {source} cannot be loaded ({in_one_line(error)}); "
            f"it must be "
            f"{wanted.folder}"
        ) from None


def fetched_or(name: str, hub: str) -> str:
    """Return the folder of a download, or a hub name if it has not been fetched.

    Args:
        name: Registry name of the download, as in `t2i fetch NAME`.
        hub: The hub's name of the same weights.

    Returns:
        The path of the folder, or `hub`.
    """
    try:
        return str(fetched(name))
    except UserError:
        return hub
