"""Files that are there whole or not at all, and folders whose every byte is accounted for.

A sealed folder holds `manifest.json` with the size and SHA-256 of each file. It is written beside its place and moved
there in one step, so a folder with its final name is complete. Only safetensors and JSON are read: nothing can run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError

MANIFEST = "manifest.json"


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Writes a file atomically and durably: after a crash it holds the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def place_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all, however the command ends: one of many that need not be made
    durable one by one (after a power failure it may be damaged)."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, what: str) -> Any:
    """The JSON document at `path`; UserError naming `what` if it is missing or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{what}: cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{what}: {path} is not JSON ({str(error)[:80]}); restore the file or start anew"
        ) from None


def save_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Writes tensors as safetensors. Tensors that share memory are written once each. OSError if the disk refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(
            {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path
        )
    except SafetensorError as error:  # its words for what the system said: "... (os error 28)"
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def load_tensors(path: Path, what: str) -> dict[str, Any]:
    """The tensors of a safetensors file; UserError naming `what` if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise UserError(f"{what}: cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, MemoryError, OverflowError) as error:
        raise UserError(
            f"{what}: {path} is no sound safetensors file ({str(error)[:80]})"
        ) from None


@contextmanager
def sealed(folder: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends well it is sealed and moved to `folder`, replacing what is there."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        seal(temporary)
        _replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """A folder to fill beside `folder`, which must be new or empty, and is there when the block has ended well."""
    check_free(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(folder: Path) -> None:
    """UserError unless `folder` is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not empty: choose another --out")


def refuse_links(folder: Path) -> None:
    """UserError if a link below `folder` leads out of it: what is written there would land elsewhere."""
    inside = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise UserError(
                f"{path} is a link that leads out of {folder}: put what it leads to in its place"
            )


def seal(folder: Path) -> None:
    """Writes the manifest of everything in `folder`, and makes all of it durable."""
    files = {}
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST
    ):
        with open(path, "rb+") as file:
            files[path.relative_to(folder).as_posix()] = {
                "size": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
            os.fsync(file.fileno())
    for inner in folder.rglob("*"):
        if inner.is_dir():
            sync_folder(inner)
    write_json(folder / MANIFEST, {"format": 1, "files": files})


def verify(folder: Path, what: str) -> None:
    """Raises UserError, naming the file, unless the folder holds just what its manifest says."""
    manifest = read_json(folder / MANIFEST, what)
    try:
        files = {
            str(name): (int(entry["size"]), str(entry["sha256"]))
            for name, entry in manifest["files"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(
            f"{what}: {folder / MANIFEST} is no manifest; restore the folder or start anew"
        ) from None
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } - {MANIFEST}
    for name in sorted(files.keys() ^ present):
        state = "is missing" if name in files else "does not belong there"
        raise UserError(f"{what}: {folder / name} {state}; restore the folder or start anew")
    for name, (size, sha256) in files.items():
        with open(folder / name, "rb") as file:
            if (
                os.fstat(file.fileno()).st_size != size
                or hashlib.file_digest(file, "sha256").hexdigest() != sha256
            ):
                raise UserError(
                    f"{what}: {folder / name} is damaged (its SHA-256 is not the manifest's)"
                )


def intact(folder: Path) -> bool:
    """Whether a sealed folder is there and holds just what its manifest says."""
    settle(folder)
    try:
        verify(folder, "folder")
    except UserError:
        return False
    return True


def _replace_folder(source: Path, target: Path) -> None:
    """Moves `source` to `target`. Folders cannot be swapped in one step, so an old one steps aside first; `settle`
    brings it back if we die between the two moves."""
    aside = _aside(target)
    while True:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(target, aside)
        try:
            os.replace(source, target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else a reader took us for dead and has brought the old one back
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def settle(folder: Path) -> None:
    """Undoes half a replacement of `folder`, if a crash left one."""
    aside = _aside(folder)
    if aside.exists() and not folder.exists():
        os.replace(aside, folder)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` durable, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
