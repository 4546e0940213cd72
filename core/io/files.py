"""Atomic writes of files and folders, and folders with a manifest.

A sealed folder holds `manifest.json` with the size and the SHA-256 of each file. It is filled under
a temporary name and renamed in one step, so a folder that has its final name is complete. Only
safetensors and JSON are read: neither format can run code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import reprlib
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from t2i.core.errors import UserError
from t2i.core.io.clutter import CLUTTER, clutter_in, entries
from t2i.core.io.documents import MOST_BYTES, parse_json, read_bytes

MANIFEST = "manifest.json"
"""Name of the file in a sealed folder that lists the others."""
HUBS = ("README.md", ".gitattributes", ".cache")
"""What the Hugging Face hub and its downloader add to a folder. Nothing reads it."""


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically and durably: after a crash it holds the old bytes or the new ones.

    Args:
        path: The file. Its folder is created if it does not exist.
        data: The new content.
    """
    write_parts(path, [data])


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file atomically and durably, part by part.

    Args:
        path: The file. Its folder is created if it does not exist.
        parts: The new content. It may be read from the old one meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with _opened_anew(temporary) as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def place_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically, but not durably.

    However the command ends, the file is complete or absent. After a power failure it may be
    damaged. This is for many files, such as sampled images, for which one fsync each would be too
    slow.

    Args:
        path: The file. Its folder must exist.
        data: The new content.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with _opened_anew(temporary) as file:
        file.write(data)
    os.replace(temporary, path)


def _opened_anew(path: Path) -> BinaryIO:
    """Open a new file to write; what a killed command left there, or a link, is removed first."""
    path.unlink(missing_ok=True)
    return open(path, "xb")


def detach(path: Path) -> None:
    """Make a file that is going to be changed in place a file of its own.

    A symbolic link is removed. Of a file with several names, which a copy by hard links or somebody
    else may have made, this name gets a copy.

    Args:
        path: The file, which need not exist.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        path.unlink()
    elif stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        temporary = temporary_beside(path)
        try:
            temporary.unlink(missing_ok=True)
            shutil.copy2(path, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document, indented, atomically and durably.

    Args:
        path: The file. Its folder is created if it does not exist.
        value: The document. NaN and infinities are not allowed.
    """
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """Replace the numbers that JSON cannot hold.

    Args:
        value: A document: mappings, sequences, numbers, texts, None.

    Returns:
        The document, with None instead of NaN and infinities.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return value


def check_regular(path: Path, what: str) -> None:
    """Check that a path is no pipe, socket or device, which could be waited for, or read, for ever.

    Args:
        path: The path. Nothing is said of a folder, or of one that does not exist.
        what: What the file belongs to; the error begins with it. "": the path.

    Raises:
        UserError: It is one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        told = f"{what}: {path}" if what else str(path)
        raise UserError(
            f"{told} is no regular file (a pipe, a socket or a device): give a file or a folder"
        )


def read_file(path: Path, what: str) -> bytes:
    """Read a file that the user or another file names.

    Args:
        path: The file.
        what: As for `check_regular`.

    Returns:
        Its content.

    Raises:
        UserError: It is a pipe, a socket or a device.
        OSError: It cannot be read.
    """
    check_regular(path, what)
    return path.read_bytes()


def read_lines(path: Path, what: str) -> Iterator[bytes]:
    """Read the lines of a file in bounded memory, however large it is.

    Args:
        path: The file.
        what: As for `check_regular`.

    Yields:
        The lines without their ends. Those that are longer than MOST_BYTES are left out.

    Raises:
        UserError: It is a pipe, a socket or a device.
        OSError: It cannot be read.
    """
    check_regular(path, what)
    with open(path, "rb") as file:
        within = True  # of a line that is read
        while part := file.readline(MOST_BYTES):
            ends = part.endswith(b"\n")
            if within and (ends or len(part) < MOST_BYTES):
                yield part.rstrip(b"\r\n")
            within = ends


def read_json(path: Path, what: str, *, finite: bool = False) -> Any:
    """Read a JSON document, in bounded time and memory (`documents.py`).

    Args:
        path: The file.
        what: What the file belongs to; error messages begin with it.
        finite: Whether a number that is not finite is an error, as in all that t2i writes.

    Returns:
        The parsed document, of any JSON type.

    Raises:
        UserError: The file cannot be read, is not JSON, or is too large.
    """
    try:
        check_regular(path, what)
        return parse_json(read_bytes(path), finite=finite)
    except OSError as error:
        raise UserError(f"{what}: cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{what}: {path} is not JSON ({str(error)[:80]}); restore the file or start anew"
        ) from None


def read_object(path: Path, what: str, *, finite: bool = False) -> dict[str, Any]:
    """Read a JSON document that must be an object.

    Args:
        path: The file.
        what: What the file belongs to; error messages begin with it.
        finite: Whether a number that is not finite is an error.

    Returns:
        The object.

    Raises:
        UserError: The file cannot be read, is not JSON, or holds something else.
    """
    document = read_json(path, what, finite=finite)
    if not isinstance(document, dict):
        raise UserError(
            f"{what}: {path} holds no JSON object, but {reprlib.repr(document)[:40]}; "
            "restore the file or start anew"
        )
    return document


def json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that may be missing.

    Args:
        path: The file.

    Returns:
        The object. Empty if the file is missing, damaged, or holds something else.
    """
    try:
        return read_object(path, "")
    except UserError:
        return {}


def save_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors as a safetensors file, durably but not atomically.

    The file has the permissions that the umask gives, like every other file.

    Args:
        path: The file. Its folder must exist.
        tensors: Tensors by name, on any device. Each is copied to the CPU and made contiguous. No
            two may share memory (`owned_tensors` removes duplicates).

    Raises:
        OSError: The system cannot write the file.
    """
    from safetensors.torch import save_file

    with _errors_of_the_system(path):
        save_file(
            {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path
        )
    follow_umask([path])
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _errors_of_the_system(path: Path) -> Iterator[None]:
    """Turn errors of safetensors within the block into OSErrors.

    It gives the system's error as text: "... (os error 28)".
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # which is not imported for this
            raise
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None


def follow_umask(files: Iterable[Path]) -> None:
    """Give files the permissions that new files have here. Libraries may write for the owner only.

    Args:
        files: The files. No permission is taken away.
    """
    by_folder: dict[Path, int] = {}
    for file in list(files):
        folder = file.parent
        if folder not in by_folder:  # a new file shows the umask, which cannot be read safely
            probe = folder / f".mode.{os.getpid()}.tmp"
            try:
                probe.touch()
                by_folder[folder] = probe.stat().st_mode & 0o777
            finally:
                probe.unlink(missing_ok=True)
        mode = file.stat().st_mode & 0o777
        if mode | by_folder[folder] != mode:
            file.chmod(mode | by_folder[folder])


def load_tensors(path: Path, what: str) -> dict[str, Any]:
    """Read a safetensors file.

    Args:
        path: The file.
        what: What the file belongs to; error messages begin with it.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        UserError: The file cannot be read, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_regular(path, what)
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
    """Give a temporary folder to fill, then seal it and move it to its final name.

    If the block raises, the temporary folder is removed and `folder` stays as it was.

    Args:
        folder: The final name. A folder that exists there is replaced.

    Yields:
        The temporary folder, empty, beside `folder`.
    """
    temporary = _temporary(folder)
    try:
        yield temporary
        seal(temporary)
        _replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, then move it to its final name, without a manifest.

    If the block raises, the temporary folder is removed and `folder` stays as it was.

    Args:
        folder: The final name. It must not exist, or be an empty folder.

    Yields:
        The temporary folder, empty, beside `folder`.

    Raises:
        UserError: `folder` is a file, or a folder that is not empty.
        OSError: The system cannot write a file, for example because the disk is full.
    """
    check_free(folder)
    folder = Path(os.path.realpath(folder))  # a folder cannot replace a link
    with filling(folder) as temporary:
        yield temporary
        _arrive(temporary, folder)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill. It is removed at the end, unless it was moved.

    Args:
        folder: A path beside which it is made. Folders above it are made if they do not exist.

    Yields:
        The temporary folder, empty.

    Raises:
        OSError: The system cannot write a file, for example because the disk is full.
    """
    temporary = _temporary(folder)
    try:
        with _errors_of_the_system(folder):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def arrive_numbered(temporary: Path, base: Path) -> Path:
    """Move a folder that is complete to a name that nothing has.

    Args:
        temporary: The folder (`filling`).
        base: The preferred name.

    Returns:
        Its new path: `base`, or else the first of `base`-2, `base`-3, ... that is free.
    """
    return next(place for place in numbered(base) if _arrived(temporary, place))


def numbered(base: Path) -> Iterator[Path]:
    """List the names for a new folder, or for one of its kind.

    Args:
        base: The preferred name.

    Yields:
        `base`, `base`-2, `base`-3, ... without end.
    """
    yield base
    for n in count(2):
        yield base.with_name(f"{base.name}-{n}")


def _arrived(temporary: Path, folder: Path) -> bool:
    """Move a complete folder to its name; return False if something else has it."""
    if os.path.lexists(folder):
        return False
    try:
        _arrive(temporary, folder)
    except UserError:  # another command was faster
        return False
    return True


def _arrive(temporary: Path, folder: Path) -> None:
    """Move a complete folder to its name, if nothing else has it."""
    follow_umask(path for path in temporary.rglob("*") if path.is_file())
    for file in clutter_in(folder):
        os.replace(file, temporary / file.name)
    try:
        os.replace(temporary, folder)
    except OSError:
        check_free(folder)  # another command was faster
        raise
    sync_folder(folder.parent)


def _temporary(folder: Path) -> Path:
    """Make an empty folder to fill beside another, and remove those that killed processes left."""
    temporary = temporary_beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def temporary_beside(path: Path) -> Path:
    """Name a temporary file or folder of this process, and remove those of processes that died.

    Args:
        path: What it is to become.

    Returns:
        The path, in the same folder. Something may be there.
    """
    for litter, process in _litter(path.parent.absolute()).get(path.name, ()):
        if _is_running(process):
            continue
        if litter.is_dir() and not litter.is_symlink():
            shutil.rmtree(litter, ignore_errors=True)
        else:
            litter.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@lru_cache(maxsize=256)
def _litter(folder: Path) -> dict[str, list[tuple[Path, int]]]:
    """List temporary files and folders by what they were to become, with their processes.

    A process looks into a folder once: it may write thousands of files there.
    """
    found: dict[str, list[tuple[Path, int]]] = {}
    with suppress(OSError), os.scandir(folder) as inside:
        for entry in inside:
            if name := re.fullmatch(r"\.(.+)\.(\d{1,9})\.tmp", entry.name, re.DOTALL | re.ASCII):
                found.setdefault(name[1], []).append((Path(entry.path), int(name[2])))
    return found


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there, this would be Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        return True
    return True


def check_free(folder: Path) -> None:
    """Check that a folder does not exist yet, or is empty.

    Args:
        folder: Where a command is going to write.

    Raises:
        UserError: It is a file, or a folder that holds more than clutter (`clutter.py`).
    """
    if folder.exists() and (not folder.is_dir() or entries(folder)):
        raise UserError(f"{folder} is there already, and not empty: choose another --out")


def refuse_links(folder: Path) -> None:
    """Check that no symbolic link below a folder leads out of it.

    What a command writes through such a link would land elsewhere.

    Args:
        folder: A folder from another source, in which a command is going to write.

    Raises:
        UserError: A link leads out of the folder.
    """
    inside = Path(os.path.realpath(folder))
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            # realpath, unlike Path.resolve, also ends where links lead in a circle
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
                raise UserError(
                    f"{path} is a link that leads out of {folder}: "
                    "put what it leads to in its place"
                )


def seal(folder: Path) -> None:
    """Write the manifest of a folder, and make everything in it durable.

    Args:
        folder: The folder. A manifest that is there already is replaced.
    """
    follow_umask(path for path in folder.rglob("*") if path.is_file())
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
    """Check that a sealed folder holds exactly what its manifest lists.

    Every file is read, to compare its SHA-256.

    Args:
        folder: The folder.
        what: What the folder is; error messages begin with it.

    Raises:
        UserError: A file is missing, damaged or not listed, or the manifest cannot be read. The
            message names the file.
    """
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
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] not in HUBS
        and path.name not in CLUTTER
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
    """Return whether a sealed folder exists and holds exactly what its manifest lists.

    A replacement of the folder that a crash interrupted is undone first (`settle`). What such a
    crash left beside a folder that is intact is removed.

    Args:
        folder: The folder.

    Returns:
        False if it is missing, incomplete or damaged.
    """
    settle(folder)
    try:
        verify(folder, "folder")
    except UserError:
        return False
    shutil.rmtree(_aside(folder), ignore_errors=True)
    return True


def _replace_folder(source: Path, target: Path) -> None:
    """Move the folder `source` to `target`, replacing what is there.

    Folders cannot be swapped in one step, so the old one is renamed first. If the process dies
    between the two moves, `settle` restores the old one.
    """
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
                raise
            # Another process took this one for dead: its `settle` restored the old folder. Retry.
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def settle(folder: Path) -> None:
    """Restore the old folder if a crash interrupted its replacement.

    Args:
        folder: The folder's final name. Nothing happens if it exists.
    """
    aside = _aside(folder)
    if aside.exists() and not folder.exists():
        os.replace(aside, folder)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, on systems that can.

    Args:
        folder: The folder that holds the renamed files.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
