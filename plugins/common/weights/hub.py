"""Pretrained weights from a folder, the Hugging Face hub's local cache, or the hub itself.

If they cannot be obtained, the error is one line that says why. The loaders read only safetensors
and JSON, and run no code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

from t2i.core.errors import UserError, in_one_line, out_of_memory
from t2i.core.fetch.downloads import fetched, hub_download, hub_folder
from t2i.core.fetch.hub import PROBE_SECONDS
from t2i.core.io.sealed import verify
from t2i.core.registry.tables import registry
from t2i.plugins.common.weights.trusted_files import check_folder, entries

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """Weights to obtain, and how errors describe them.

    Args:
        what: What they are for, such as "text encoder 'clip'".
        setting: The setting that names them, such as "encoder.weights".
        name: A folder, a name of shipped weights, or a name on the hub.
        revision: Branch, tag or commit on the hub.
        folder: Description of what a folder must hold.
        remedy: How else to obtain the weights. "": by the setting.
    """

    what: str
    setting: str
    name: str
    revision: str
    folder: str
    remedy: str = ""

    @property
    def advice(self) -> str:
        """How to obtain the weights in another way, for errors."""
        return self.remedy or f"give --set {self.setting}=FOLDER, {self.folder}"


def obtained(wanted: Wanted, load: Callable[[str, bool], T]) -> T:
    """Load weights from a folder, from the hub's local cache, or else from the hub.

    Weights that a data set's package ships are found by their name before the hub is asked.

    Args:
        wanted: The weights.
        load: `load(source, offline)` loads from a folder or by hub name; with `offline`, it does
            not use the network.

    Returns:
        What `load` returns.

    Raises:
        UserError: The weights cannot be obtained or are damaged, or `load` raises it.
    """
    if (shipped := registry().shipped(wanted.name)) is not None:
        verify(shipped, wanted.what)
        return _sound(wanted, str(shipped), load, offline=True)
    folder = Path(wanted.name).expanduser()
    if folder.is_dir():
        return _sound(wanted, str(folder), load, offline=True)
    if folder.is_absolute() or wanted.name.startswith((".", "~")) or wanted.name.count("/") > 1:
        raise UserError(
            f"{wanted.what}: {wanted.setting} = {wanted.name}: no such folder; give a hub name or "
            f"{wanted.folder}"
        )
    try:
        _check_cached(wanted)
        return load(wanted.name, True)
    except UserError:
        raise
    except Exception:  # not all in the cache; the libraries raise whatever their HTTP client raises
        kept = hub_folder(wanted.name) if wanted.revision == "main" else None
        if kept:  # downloaded by `t2i fetch`, from the revision that has safetensors
            return _sound(wanted, str(kept), load, offline=True)
        _probe(wanted)
    return _sound(wanted, wanted.name, load, offline=False)


def refuse_foreign_code(kind: Any, source: Path | str, what: str, **where: Any) -> None:
    """Check that a network's config.json names no kernel on the hub.

    transformers would download such a kernel and run it.

    Args:
        kind: Class of the network's configuration.
        source: Folder or hub name of the network.
        what: What the network is for, in errors.
        where: Where to look: `revision` and `local_files_only`.

    Raises:
        UserError: The configuration names a kernel.
    """
    document, _ = kind.get_config_dict(source, **where)
    for key, value in entries(document):
        if "implementation" in key and "/" in str(value):
            raise UserError(
                f"{what}: config.json of {source} names the kernel {str(value)[:80]!r}, foreign "
                f"code that is not run: remove '{key}' from it"
            )


def _probe(wanted: Wanted) -> None:
    """Request the name and its small files: without a network, the loaders would retry for minutes.

    Raises:
        UserError: The hub does not have it, or cannot be reached.
    """
    try:
        HfApi().model_info(wanted.name, revision=wanted.revision, timeout=PROBE_SECONDS)
        snapshot_download(wanted.name, revision=wanted.revision, allow_patterns=["*.json"])
    except Exception as error:
        download = hub_download(wanted.name)
        fetch = f"run 't2i fetch {download}' where there is one, " if download else ""
        raise UserError(
            f"{wanted.what}: '{wanted.name}' is neither a folder, nor in the hub's cache, nor "
            f"available from the hub ({in_one_line(error)}); check the network (HF_HUB_OFFLINE, "
            f"HF_ENDPOINT) and the name, {fetch}or {wanted.advice}"
        ) from None
    _check_cached(wanted)


def _check_cached(wanted: Wanted) -> None:
    """Check what the hub's cache has of the weights (`check_folder`)."""
    found = try_to_load_from_cache(wanted.name, "config.json", revision=wanted.revision)
    if isinstance(found, str):
        check_folder(Path(found).parent)


def _sound(wanted: Wanted, source: str, load: Callable[[str, bool], T], *, offline: bool) -> T:
    try:
        if Path(source).is_dir():
            check_folder(Path(source))
        return load(source, offline)
    except UserError:
        raise
    except BaseException as error:  # on damaged files, transformers and tokenizers raise anything
        panic = type(error).__name__ == "PanicException"  # of the tokenizers, which are in Rust
        if not (panic or isinstance(error, Exception)):
            raise
        if out_of_memory(error):
            raise UserError(
                f"{wanted.what}: there is not enough memory for {wanted.setting} = {source}; use a "
                "machine with more"
            ) from None
        raise UserError(
            f"{wanted.what}: {wanted.setting} = {source} cannot be loaded ({in_one_line(error)}); "
            f"it must be {wanted.folder}"
        ) from None


def fetched_or(name: str, hub: str) -> str:
    """Return the folder into which `t2i fetch` downloaded some weights, else their hub name.

    Args:
        name: Name of the download.
        hub: Name of the same weights on the hub.

    Returns:
        The folder or the hub name.
    """
    try:
        return str(fetched(name))
    except UserError:
        return hub
