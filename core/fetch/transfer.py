"""Download one file: resume it where it was cut, check it, and put it in place only when complete.

The bytes so far are kept in NAME.part, and the server's identifier of that version (ETag or date)
in NAME.part.json. A later attempt requests the rest of the same version. If the server has another
version by then, or cannot send parts, the download starts again.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from t2i.core.errors import UserError
from t2i.core.fetch.incomplete import Digests, Hashes, Part, Remote, part_of
from t2i.core.fetch.web import CHUNK, Again, Pace, ask, is_web_page, read, size_in
from t2i.core.io.files import check_regular, sync_folder
from t2i.core.io.locks import take_or_wait

ATTEMPTS = 5  # most failed attempts in a row that bring less than CHUNK new bytes
WAIT = 1.0  # seconds before the second attempt; doubled before each further one
SPARE = 64 << 20  # bytes to leave free on the disk
UNTOLD = 10**10  # most bytes of a file whose size nobody has told

Progress = Callable[[int, int | None], None]
"""A function that takes the bytes that are here and the bytes in all (None: unknown)."""


class TooLarge(UserError):
    """A file has more bytes than it may have. Nothing of it is kept."""


def transfer(
    remote: Remote,
    target: Path,
    *,
    most: int | None = None,
    whole: Callable[[Path], bool] = lambda _: True,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Digests:
    """Download a file, or check the one that is there already.

    Processes that download the same file wait for one another.

    Args:
        remote: The file to download.
        target: Where it goes.
        most: Most bytes that it may have. None: as many as `remote` or the server says, and at
            most UNTOLD if neither does.
        whole: Tells of a file whether its end is there. Called where nobody says where it ends.
        progress: Called as bytes arrive.
        say: Takes a line when there is something to wait for, and before another attempt.

    Returns:
        Size and hashes of the file.

    Raises:
        TooLarge: It has more than `most` bytes.
        UserError: The file cannot be downloaded (what has arrived is kept for the next attempt), is
            a web page, or its size or checksum is wrong. A new file that is wrong is removed; one
            that was there already is left alone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target, say):
        check_regular(target, "")
        check_regular(part_of(target), "")
        part = Part(remote, target)
        if target.exists():
            digests = verified(remote, target)
            part.discard()  # what a process left that was killed once the file was in place
            return digests
        with part.open():
            try:
                _complete(remote, part, most, whole, progress, say)
            except UserError as error:
                if isinstance(error, TooLarge) or not part.size:
                    part.discard()
                raise
            digests = part.digests()
        _refuse_page(remote, part)
        _check(remote, digests, f"{remote.url}: what came", part.discard)
        os.replace(part.path, target)
        part.discard()
        sync_folder(target.parent)
        return digests


def _refuse_page(remote: Remote, part: Part) -> None:
    """Raise UserError, and remove what came, if it is a web page instead of the file."""
    with open(part.path, "rb") as file:
        page = is_web_page(file.read(1024), remote.url.partition("?")[0])
    if page:
        part.discard()
        raise UserError(
            f"{remote.url}: a web page came instead of the file (perhaps the login page of this "
            "network), and was removed: open the address in a browser, then try again"
        )


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
    hashes = Hashes(remote.checksum)
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
            f"{folder}: {size / 1e9:.2f} GB more are needed, {free / 1e9:.2f} GB are free; "
            "free some, or choose another place (T2I_HOME, --out)"
        )


# --- attempts -------------------------------------------------------------------------------------


class Allowance:
    """Bounds the bytes of a file that is coming.

    Args:
        name: The file's address, for errors.
        folder: Where its bytes go.
        most: Most bytes that it may have.
    """

    def __init__(self, name: str, folder: Path, most: int) -> None:
        self._name, self._folder, self._most = name, folder, most
        self._looked = 0

    def check(self, size: int) -> None:
        """Check that more bytes may come.

        Args:
            size: How many have come.

        Raises:
            TooLarge: These are too many, or the disk is nearly full.
        """
        if size > self._most:
            raise TooLarge(
                f"{self._name}: it has more than {self._most / 1e9:g} GB, which is more than it "
                "may have; nothing of it is kept"
            )
        if size - self._looked >= SPARE // 4:
            self._looked = size
            try:
                need_space(self._folder, 0)
            except UserError as error:
                raise TooLarge(f"{self._name}: nothing of it is kept: {error}") from None


def _complete(
    remote: Remote, part: Part, most: int | None, whole: Callable[[Path], bool],
    progress: Progress, say: Callable[[str], None],
) -> None:  # fmt: skip
    """Try until the part is complete, or ATTEMPTS attempts in a row brought next to nothing.

    A part that is dropped and comes again is nothing new.
    """
    failures, best = 0, part.size
    while True:
        try:
            if _attempt(remote, part, most, progress, say) or whole(part.path):
                return
            part.restart(None)
            raise Again("what came has no end, and the server did not say how much comes")
        except Again as error:
            failures = 1 if part.size >= best + CHUNK else failures + 1
            best = max(best, part.size)
            if failures == ATTEMPTS:
                kept = (
                    f" ({part.size} bytes are kept: the same command goes on from there)"
                    if part.size
                    else ""
                )
                raise UserError(
                    f"{remote.url}: {error}; check the network, or give a --mirror{kept}"
                ) from None
            seconds = max(WAIT * 2 ** (failures - 1), error.seconds)
            say(f"{remote.url}: {error}; trying again in {seconds:g} s")
            time.sleep(seconds)


def _attempt(
    remote: Remote, part: Part, most: int | None, progress: Progress, say: Callable[[str], None]
) -> bool:
    """Send one request and read its response; raise `Again` if the connection is cut.

    Returns whether somebody said where the file ends.
    """
    if remote.size is not None and part.size == remote.size:
        return True
    if remote.size is not None and part.size > remote.size:
        part.restart(None)
    with _asked(remote, part, say) as response:
        total = _begin(remote, part, response)
        told = remote.size if total is None else total
        limit = (UNTOLD if told is None else told) if most is None else most
        allowance = Allowance(remote.url, part.path.parent, limit)
        if total is not None:
            allowance.check(total)
            need_space(part.path.parent, total - part.size)
        progress(part.size, total)
        pace = Pace()
        while data := read(response):
            part.write(data)
            progress(part.size, total)
            if remote.size is not None and part.size > remote.size:
                break  # the check of the size then fails
            allowance.check(part.size)
            pace.add(len(data))
    if told is not None and part.size < told:
        raise Again(f"the connection was cut after {part.size} of {told} bytes")
    if told is None and not part.size:
        raise Again("an answer without a byte came")
    part.flush()
    in_chunks = response.status == 200 and getattr(response, "chunked", False)
    return told is not None or in_chunks


def _begin(remote: Remote, part: Part, response: Any) -> int | None:
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
    if found and size_in(found[1]) == part.size and _validator(headers) in (None, part.validator):
        return size_in(found[2])
    if response.status == 206:
        part.restart(None)
        raise Again("the server sent another part, or of another version, than was requested")
    part.restart(_validator(headers))
    length = headers.get("Content-Length")
    size = size_in(length)
    if length and size is None:
        raise UserError(f"{remote.url}: the server says a length that is none ({length[:20]}); "
                        "try a --mirror")  # fmt: skip
    if None not in (size, remote.size) and size != remote.size:
        raise UserError(
            f"{remote.url}: the server offers {size} bytes, not {remote.size}: another file; "
            "try a --mirror"
        )
    return size


def _validator(headers: Any) -> str | None:
    """Return the identifier of a version: a strong ETag, else the time of its last change."""
    etag: str | None = headers.get("ETag")
    changed: str | None = headers.get("Last-Modified")
    return etag if etag and not etag.startswith("W/") else changed


def _asked(remote: Remote, part: Part, say: Callable[[str], None]) -> Any:
    """Request the missing bytes and return the response; errors are those of `ask`."""
    wanted = {}
    if part.size and part.validator:
        wanted = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    try:
        return ask(remote.url, wanted, say)
    except Again as error:
        if error.status == 416:
            part.restart(None)
            raise Again("the server's file is shorter than the part that is here") from None
        raise
