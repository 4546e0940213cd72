"""One file from a URL to its place: resumed where it broke off, checked, there whole or not at all.

What has come is kept in NAME.part, and beside it what the server called that version (NAME.part.json). A later attempt
asks for the rest of the same version; if the server has another one by now, or cannot give parts, it begins anew.
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

ATTEMPTS = 5  # in a row without a byte
WAIT = 1.0  # seconds before the second attempt; twice as long before each further one
TIMEOUT = 60.0  # seconds without a word from the server
CHUNK = 1 << 18
SPARE = 64 << 20  # bytes to be left free on the disk

Progress = Callable[[int, int | None], None]
"""To be called with (bytes that are here, bytes in all or None)."""


@dataclass(frozen=True)
class Remote:
    """A file elsewhere. checksum: "md5:..." or the first digits of "sha256:...", or None. size: bytes, or None."""

    url: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Digests:
    """What a file is."""

    size: int
    sha256: str
    md5: str | None

    def agree(self, checksum: str | None) -> bool | None:
        """Whether that is what was promised; None where nothing was."""
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
    """Brings the file to `target`, and returns what it is. Two that want the same file take turns.

    A file that is there already is only read. Raises UserError if the file cannot be had, or is not the one that the
    checksum and the size promise: then nothing is left of it.
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
    """What the file at `path` is. UserError if it is not what `remote` promises; it is left alone."""
    hashes = _Hashes(remote.checksum)
    with open(path, "rb") as file:
        hashes.read(file)
    digests = hashes.digests()
    _check(remote, digests, str(path), None)
    return digests


def _check(remote: Remote, digests: Digests, what: str, discard: Callable[[], None] | None) -> None:
    wrong = None
    if remote.size is not None and digests.size != remote.size:
        wrong = f"has {digests.size} bytes, not {remote.size}"
    elif digests.agree(remote.checksum) is False:
        kind, _, digits = str(remote.checksum).partition(":")
        wrong = f"has the {kind.upper()} {digests.md5 if kind == 'md5' else digests.sha256}, not {digits}"
    if wrong is None:
        return
    if discard is None:
        raise UserError(
            f"{what} {wrong}: it is damaged or another file; remove it, and the same command gets it anew"
        )
    discard()
    raise UserError(f"{what} {wrong}: it was removed; try again, or another --mirror")


@contextmanager
def locked(target: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Holds the lock of `target` against other processes and threads; says if it has to wait for it."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    take_or_wait(lock, lambda: say(f"{target.name}: another process is at it; waiting for it"))
    try:
        yield
    finally:
        lock.release()


def need_space(folder: Path, size: int) -> None:
    """UserError unless `size` bytes and some to spare are free where `folder` is, or will be."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < size + SPARE:
        raise UserError(
            f"{folder}: {size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; free some, or choose another "
            "place (T2I_HOME, --out)"
        )


# --- what has come so far --------------------------------------------------------------------------------------------


class _Hashes:
    """SHA-256 of what is read, and MD5 where that is asked for."""

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
    """Where what has come of a file is kept until it is whole."""
    return target.with_name(target.name + ".part")


class _Part:
    """NAME.part, open for appending, with the digests of what it holds. validator: what the server calls its version
    (a strong ETag, or the time of its last change), in the form of the header If-Range."""

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
        """Forgets what has come; what comes now is the version `validator`."""
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


# --- asking for it ---------------------------------------------------------------------------------------------------


class _Again(Exception):
    """It may go better another time."""


def _complete(remote: Remote, part: _Part, progress: Progress, say: Callable[[str], None]) -> None:
    """Attempts, until the part is whole."""
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
    """One request, read to its end. Raises _Again if it broke off."""
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
                break  # the check of the size says the rest
    promised = remote.size if total is None else total
    if promised is not None and part.size < promised:
        raise _Again(f"the connection was cut after {part.size} of {promised} bytes")


def _begin(remote: Remote, part: _Part, response: Any) -> int | None:
    """Makes the part ready for what the response brings. Returns how many bytes the whole file has, if it says so."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        raise UserError(
            f"{remote.url}: the server packs it ({headers['Content-Encoding']}) unasked; try a --mirror"
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
        raise _Again("the server sent another part than was asked for")
    part.restart(_validator(headers))
    length = headers.get("Content-Length", "")
    if not length.isdecimal():
        return None
    if remote.size is not None and int(length) != remote.size:
        raise UserError(
            f"{remote.url}: the server offers {length} bytes, not {remote.size}: another file; try a --mirror"
        )
    return int(length)


def _validator(headers: Any) -> str | None:
    etag: str | None = headers.get("ETag")
    changed: str | None = headers.get("Last-Modified")
    return etag if etag and not etag.startswith("W/") else changed


def _asked(remote: Remote, part: _Part) -> Any:
    """The response to a request for what is missing. Raises _Again, or UserError where asking again is no use."""
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
            raise _Again("the server does not have that much of it") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Again(f"the server says {error.code} {error.reason}") from None
        raise UserError(
            f"{remote.url}: the server says {error.code} {error.reason}; {_REMEDY}"
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
    try:
        data: bytes = response.read(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _Again(_words(error)) from None
    return data


def _words(error: BaseException | str) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:200]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, but not from https to http, where anybody could answer."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        schemes = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
            raise urllib.error.URLError(f"it leads on to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener() -> urllib.request.OpenerDirector:
    """Opens http, https and file URLs, and no others; HTTP_PROXY and its like are heeded."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.FileHandler, _Redirects, urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.UnknownHandler,
    ):  # fmt: skip
        director.add_handler(handler())
    return director


def small_json(url: str) -> Any:
    """The JSON document at a URL, None if there is none to be had. For what may be absent."""
    try:
        with opener().open(
            urllib.request.Request(url, headers={"User-Agent": "t2i"}), timeout=TIMEOUT
        ) as response:
            return json.loads(response.read(1 << 20))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
