"""Download one file: resume it where it was cut, check it, and put it in place only when complete.

The bytes so far are kept in NAME.part, and the server's identifier of that version (ETag or date)
in NAME.part.json. A later attempt requests the rest of the same version. If the server has another
version by then, or cannot send parts, the download starts again.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from filelock import FileLock

from t2i.core.errors import UserError
from t2i.core.io.files import read_json, sync_folder, write_json
from t2i.core.io.locks import take_or_wait

ATTEMPTS = 5  # most failed attempts in a row that bring no byte
WAIT = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 60.0  # seconds without data from the server
CHUNK = 1 << 18  # bytes read at a time
SPARE = 64 << 20  # bytes to leave free on the disk

Progress = Callable[[int, int | None], None]
"""A function that takes the bytes that are here and the bytes in all (None: unknown)."""


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Args:
        url: Its address: http, https or file.
        size: Its size in bytes. None: unknown.
        checksum: "md5:..." or "sha256:...", the latter also with its first digits only. None:
            unknown.
    """

    url: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Digests:
    """Size and hashes of a file.

    Args:
        size: Its size in bytes.
        sha256: Its SHA-256, in hexadecimal.
        md5: Its MD5, in hexadecimal. None: it was not computed.
    """

    size: int
    sha256: str
    md5: str | None

    def agree(self, checksum: str | None) -> bool | None:
        """Compare with a published checksum.

        Args:
            checksum: "md5:..." or "sha256:..." (see `Remote`), or None.

        Returns:
            Whether it agrees. None if there is no checksum.
        """
        if checksum is None:
            return None
        kind, _, digits = checksum.partition(":")
        return self.md5 == digits if kind == "md5" else self.sha256.startswith(digits)


def transfer(
    remote: Remote,
    target: Path,
    *,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Digests:
    """Download a file, or check the one that is there already.

    Processes that download the same file wait for one another.

    Args:
        remote: The file to download.
        target: Where it goes.
        progress: Called as bytes arrive.
        say: Takes a line when there is something to wait for.

    Returns:
        Size and hashes of the file.

    Raises:
        UserError: The file cannot be downloaded (what has arrived is kept for the next attempt), or
            its size or checksum is wrong. A new file that is wrong is removed; one that was there
            already is left alone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target, say):
        if target.exists():
            return verified(remote, target)
        part = _Part(remote, target)
        with part.open():
            _complete(remote, part, progress, say)
            digests = part.digests()
        _check(remote, digests, f"{remote.url}: what came", part.discard)
        os.replace(part.path, target)
        part.discard()
        sync_folder(target.parent)
        return digests


def verified(remote: Remote, path: Path) -> Digests:
    """Read a file and check its size and checksum.

    Args:
        remote: The file that it should be.
        path: The file.

    Returns:
        Size and hashes of the file.

    Raises:
        UserError: The size or the checksum is wrong. The file is left alone.
    """
    hashes = _Hashes(remote.checksum)
    with open(path, "rb") as file:
        hashes.read(file)
    digests = hashes.digests()
    _check(remote, digests, str(path), None)
    return digests


def _check(remote: Remote, digests: Digests, what: str, discard: Callable[[], None] | None) -> None:
    """Raise UserError, after calling `discard` if it is given, unless size and checksum agree."""
    wrong = None
    if remote.size is not None and digests.size != remote.size:
        wrong = f"has {digests.size} bytes, not {remote.size}"
    elif digests.agree(remote.checksum) is False:
        kind, _, digits = str(remote.checksum).partition(":")
        wrong = (
            f"has the {kind.upper()} {digests.md5 if kind == 'md5' else digests.sha256}, "
            f"not {digits}"
        )
    if wrong is None:
        return
    if discard is None:
        raise UserError(
            f"{what} {wrong}: it is damaged or another file; "
            "remove it, and the same command fetches it again"
        )
    discard()
    raise UserError(f"{what} {wrong}: it was removed; try again, or another --mirror")


@contextmanager
def locked(target: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock of a file inside the block, against other processes and threads.

    Args:
        target: The file; the lock is a hidden file beside it.
        say: Takes a line if the lock is not free and this call has to wait.

    Yields:
        Nothing.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    take_or_wait(lock, lambda: say(f"{target.name}: in use by another process; waiting for it"))
    try:
        yield
    finally:
        lock.release()


def need_space(folder: Path, size: int) -> None:
    """Check that a disk has enough free space.

    Args:
        folder: A folder on the disk, which need not exist yet.
        size: Bytes that are needed; `SPARE` more must be free.

    Raises:
        UserError: Too little is free.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < size + SPARE:
        raise UserError(
            f"{folder}: {size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; "
            "free some, or choose another place (T2I_HOME, --out)"
        )


# --- the bytes so far -----------------------------------------------------------------------------


class _Hashes:
    """SHA-256 and size of the data so far, and MD5 if the checksum is one."""

    def __init__(self, checksum: str | None) -> None:
        self._md5 = (
            hashlib.md5(usedforsecurity=False) if checksum and checksum.startswith("md5:") else None
        )
        self._sha256, self.size = hashlib.sha256(), 0

    def update(self, data: bytes) -> None:
        self._sha256.update(data)
        if self._md5:
            self._md5.update(data)
        self.size += len(data)

    def read(self, file: IO[bytes]) -> None:
        while data := file.read(CHUNK):
            self.update(data)

    def digests(self) -> Digests:
        return Digests(
            self.size, self._sha256.hexdigest(), self._md5.hexdigest() if self._md5 else None
        )


def part_of(target: Path) -> Path:
    """Return where the bytes of a file are kept until it is complete.

    Args:
        target: Where the complete file goes.

    Returns:
        The path NAME.part beside it.
    """
    return target.with_name(target.name + ".part")


class _Part:
    """NAME.part, open for appending, with the hashes of its bytes.

    `validator` is the server's identifier of the version, as the header If-Range takes it: a strong
    ETag or the time of the last change. None: unknown, so the part cannot be continued.
    """

    def __init__(self, remote: Remote, target: Path) -> None:
        self.remote, self.path = remote, part_of(target)
        self._note = target.with_name(target.name + ".part.json")
        self.validator: str | None = None
        self._hashes = _Hashes(remote.checksum)
        self._file: IO[bytes]

    @contextmanager
    def open(self) -> Iterator[None]:
        with open(self.path, "ab+") as self._file:
            self.validator = self._noted()
            self._file.seek(0)
            self._hashes.read(self._file)
            if self.size and self.validator is None:
                self.restart(None)
            yield
            self._file.flush()
            os.fsync(self._file.fileno())

    def _noted(self) -> str | None:
        try:
            note = read_json(self._note, "part")
        except UserError:
            return None
        known = isinstance(note, dict) and note.get("url") == self.remote.url
        return str(note["validator"]) if known and note.get("validator") else None

    @property
    def size(self) -> int:
        return self._hashes.size

    def restart(self, validator: str | None) -> None:
        """Drop the bytes so far; those that follow are of the version `validator`."""
        self._file.truncate(0)
        self._hashes, self.validator = _Hashes(self.remote.checksum), validator
        write_json(self._note, {"url": self.remote.url, "validator": validator})

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hashes.update(data)

    def digests(self) -> Digests:
        return self._hashes.digests()

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


# --- requests -------------------------------------------------------------------------------------


class _Again(Exception):
    """An attempt failed, but another one may succeed."""


def _complete(remote: Remote, part: _Part, progress: Progress, say: Callable[[str], None]) -> None:
    """Try until the part is complete, or until `ATTEMPTS` attempts in a row brought no byte."""
    failures = 0
    while True:
        before = part.size
        try:
            _attempt(remote, part, progress)
            return
        except _Again as error:
            failures = 1 if part.size > before else failures + 1
            if failures == ATTEMPTS:
                kept = (
                    f" ({part.size} bytes are kept: the same command goes on from there)"
                    if part.size
                    else ""
                )
                raise UserError(
                    f"{remote.url}: {error}; check the network, or give a --mirror{kept}"
                ) from None
            seconds = WAIT * 2 ** (failures - 1)
            say(f"{remote.url}: {error}; trying again in {seconds:g} s")
            time.sleep(seconds)


def _attempt(remote: Remote, part: _Part, progress: Progress) -> None:
    """Send one request and read its response; raise `_Again` if the connection is cut."""
    if remote.size is not None and part.size == remote.size:
        return
    if remote.size is not None and part.size > remote.size:
        part.restart(None)
    with _asked(remote, part) as response:
        total = _begin(remote, part, response)
        if total is not None:
            need_space(part.path.parent, total - part.size)
        progress(part.size, total)
        while data := _read(response):
            part.write(data)
            progress(part.size, total)
            if remote.size is not None and part.size > remote.size:
                break  # the check of the size then fails
    promised = remote.size if total is None else total
    if promised is not None and part.size < promised:
        raise _Again(f"the connection was cut after {part.size} of {promised} bytes")


def _begin(remote: Remote, part: _Part, response: Any) -> int | None:
    """Prepare the part for a response, and return the size of the whole file if it is known.

    The part is continued if the response continues it, else started again.
    """
    headers = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        raise UserError(
            f"{remote.url}: the server compressed it ({headers['Content-Encoding']}) "
            "although that was not requested; try a --mirror"
        )
    found = (
        re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if response.status == 206
        else None
    )
    if found and int(found[1]) == part.size and _validator(headers) in (None, part.validator):
        return None if found[2] == "*" else int(found[2])
    if response.status == 206:
        part.restart(None)
        raise _Again("the server sent another part than was requested")
    part.restart(_validator(headers))
    length = headers.get("Content-Length", "")
    if not length.isdecimal():
        return None
    if remote.size is not None and int(length) != remote.size:
        raise UserError(
            f"{remote.url}: the server offers {length} bytes, not {remote.size}: another file; "
            "try a --mirror"
        )
    return int(length)


def _validator(headers: Any) -> str | None:
    """Return the identifier of a version: a strong ETag, else the time of its last change."""
    etag: str | None = headers.get("ETag")
    changed: str | None = headers.get("Last-Modified")
    return etag if etag and not etag.startswith("W/") else changed


def _asked(remote: Remote, part: _Part) -> Any:
    """Request the missing bytes and return the response.

    Raises `_Again` if another attempt may succeed, else UserError.
    """
    request = urllib.request.Request(
        remote.url, headers={"User-Agent": "t2i", "Accept-Encoding": "identity"}
    )
    if part.size and part.validator:
        request.add_header("Range", f"bytes={part.size}-")
        request.add_header("If-Range", part.validator)
    try:
        return opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            part.restart(None)
            raise _Again("the server's file is shorter than the part that is here") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Again(f"the server answered {error.code} {error.reason}") from None
        raise UserError(
            f"{remote.url}: the server answered {error.code} {error.reason}; {_REMEDY}"
        ) from None
    except urllib.error.URLError as error:
        if isinstance(
            error.reason, (ssl.SSLCertVerificationError, FileNotFoundError, PermissionError, str)
        ):
            raise UserError(f"{remote.url}: {_words(error.reason)}; {_REMEDY}") from None
        raise _Again(_words(error.reason)) from None
    except (http.client.HTTPException, OSError) as error:
        raise _Again(_words(error)) from None


_REMEDY = "check the address, or give a --mirror"


def _read(response: Any) -> bytes:
    """Read the next chunk of a response; raise `_Again` if the connection fails."""
    try:
        data: bytes = response.read(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _Again(_words(error)) from None
    return data


def _words(error: BaseException | str) -> str:
    """Describe an error briefly."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:200]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to http, where anybody could answer."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        schemes = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener() -> urllib.request.OpenerDirector:
    """Make an opener of http, https and file URLs, and no others.

    Returns:
        The opener. It uses the proxies that HTTP_PROXY and similar environment variables set.
    """
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.FileHandler, _Redirects, urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.UnknownHandler,
    ):  # fmt: skip
        director.add_handler(handler())
    return director


def small_json(url: str) -> Any:
    """Read a small JSON document that may be absent.

    Args:
        url: Its address: http, https or file.

    Returns:
        The document, of which at most 1 MiB is read. None if it cannot be read or is no JSON.
    """
    try:
        with opener().open(
            urllib.request.Request(url, headers={"User-Agent": "t2i"}), timeout=TIMEOUT
        ) as response:
            return json.loads(response.read(1 << 20))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
