"""Requests by http, https and file URLs: bounded in time, and said when they take long.

Whoever answers may be slow, silent or hostile: nothing here waits for ever, and a number in a
header is read only if it can be a size.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from t2i.core.errors import UserError
from t2i.core.io.files import check_regular

TIMEOUT = 60.0  # seconds without data from the server
QUIET = 10.0  # seconds of waiting for an answer before a line says so
SLOWEST = 1000  # bytes a second; a server that sends less for TIMEOUT seconds is given up
LONGEST_WAIT = 60  # most seconds that a server may make us wait (Retry-After)
CHUNK = 1 << 18  # most bytes read at a time
LARGEST_JSON = 1 << 20  # bytes of a JSON document that are read
REMEDY = "check the address, or give a --mirror"
MARKUP = frozenset({".html", ".htm", ".xhtml", ".xml", ".svg"})
"""Endings of names of files that are markup, as web pages are."""
MARKS = (
    b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b"<body", b"<script", b"<meta", b"<title",
)  # fmt: skip
"""How markup begins, in small letters."""


class Again(Exception):
    """An attempt failed, but another one may succeed.

    Args:
        message: What happened.
        seconds: How long the server asks to wait. 0: it asks for nothing.
        status: The status that the server answered. 0: another failure.
    """

    def __init__(self, message: str, seconds: float = 0, status: int = 0) -> None:
        super().__init__(message)
        self.seconds, self.status = seconds, status


class Pace:
    """Watches how fast a response comes."""

    def __init__(self) -> None:
        self._since, self._size = time.monotonic(), 0

    def add(self, size: int) -> None:
        """Count bytes.

        Args:
            size: How many have come since the last call.

        Raises:
            Again: Fewer than SLOWEST bytes a second came for TIMEOUT seconds.
        """
        self._size += size
        seconds = time.monotonic() - self._since
        if seconds < TIMEOUT:
            return
        if self._size < SLOWEST * seconds:
            raise Again(f"only {self._size} bytes came in {seconds:.0f} s")
        self._since, self._size = time.monotonic(), 0


def ask(url: str, headers: dict[str, str], say: Callable[[str], None]) -> Any:
    """Send a request and return the response.

    Args:
        url: The address: http, https or file.
        headers: Further headers of the request.
        say: Takes a line if the answer takes long.

    Returns:
        The response, to be closed by the caller.

    Raises:
        Again: There is no answer, or one that another attempt may change.
        UserError: Another attempt cannot help.
    """
    try:
        if urlsplit(url).scheme == "file":
            check_regular(Path(urllib.request.url2pathname(urlsplit(url).path)), "")
        request = urllib.request.Request(
            url, headers={"User-Agent": "t2i", "Accept-Encoding": "identity", **headers}
        )
        with _said_if_slow(url, say):
            return opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        told = f"the server answered {error.code} {words(str(error.reason))}"
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            raise Again(told, _asked_wait(error.headers), error.code) from None
        raise UserError(f"{url}: {told}; {REMEDY}") from None
    except urllib.error.URLError as error:
        if isinstance(
            error.reason, (ssl.SSLCertVerificationError, FileNotFoundError, PermissionError, str)
        ):
            raise UserError(f"{url}: {words(error.reason)}; {REMEDY}") from None
        raise Again(words(error.reason)) from None
    except (http.client.InvalidURL, ValueError) as error:  # here, or where the server redirects to
        raise UserError(f"{url}: no address can be read ({words(error)}); {REMEDY}") from None
    except (http.client.HTTPException, OSError) as error:
        raise Again(words(error)) from None


def read(response: Any) -> bytes:
    """Read what has come of a response, and wait for at least a byte.

    Args:
        response: What `ask` returned.

    Returns:
        The next bytes. Empty: there are no more.

    Raises:
        Again: The connection fails, or is silent for TIMEOUT seconds.
    """
    try:
        data: bytes = response.read1(CHUNK)
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise Again(words(error)) from None
    return data


def size_in(text: str | None) -> int | None:
    """Read a size from a header.

    Args:
        text: The header's value. None: there is no such header.

    Returns:
        The size in bytes. None if there is none, or no number that a size can be.
    """
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None


def is_web_page(head: bytes, name: str) -> bool:
    """Tell whether a file is a web page, as a network's login page that answers for every address.

    Args:
        head: Its first bytes.
        name: Its name, which tells whether it should be one.

    Returns:
        Whether it is markup, though its name is not that of markup.
    """
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:32].lower()
    markup = begin.startswith(MARKS)
    return markup and PurePosixPath(name).suffix.lower() not in MARKUP


def words(error: BaseException | str) -> str:
    """Describe an error briefly, in one line.

    Args:
        error: The error, or its text.

    Returns:
        At most 200 characters.
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def opener() -> urllib.request.OpenerDirector:
    """Make an opener of http, https and file URLs, and no others.

    Returns:
        The opener. It uses the proxies that HTTP_PROXY and similar environment variables set.
    """
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, _Http, _Https,
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
        The document. None if it cannot be read within about TIMEOUT seconds, is larger than
        LARGEST_JSON bytes, or is no JSON.
    """
    try:
        with ask(url, {}, lambda _: None) as response:
            pace, content = Pace(), b""
            while len(content) <= LARGEST_JSON and (data := read(response)):
                content += data
                pace.add(len(data))
        return json.loads(content)
    except (Again, UserError, OSError, ValueError, RecursionError):
        return None


class _Timed(http.client.HTTPConnection):
    """A connection whose server has 2 TIMEOUT seconds for all headers, however slowly they come."""

    def getresponse(self) -> http.client.HTTPResponse:
        late = threading.Event()
        timer = threading.Timer(2 * TIMEOUT, self._hang_up, [late])
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        finally:
            timer.cancel()
        if late.is_set():  # what came of the headers looks like all of them
            raise TimeoutError(f"its headers took over {2 * TIMEOUT:g} s")
        return response

    def _hang_up(self, late: threading.Event) -> None:
        late.set()
        with suppress(OSError, AttributeError):  # it is closed already
            self.sock.shutdown(socket.SHUT_RDWR)


class _TimedTLS(_Timed, http.client.HTTPSConnection):
    """The same for https."""


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: Any) -> Any:
        return self.do_open(_Timed, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: Any) -> Any:
        return self.do_open(_TimedTLS, req, context=ssl.create_default_context())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to http, where anybody could answer."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        schemes = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _said_if_slow(url: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say after QUIET seconds that the block still waits for an answer."""
    text = f"{url}: no answer for {QUIET:g} s; waiting up to {TIMEOUT:g} s"
    timer = threading.Timer(QUIET, say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _asked_wait(headers: Any) -> float:
    """Return how many seconds a server asks to wait, at most LONGEST_WAIT; 0 if it does not."""
    return min(size_in(headers.get("Retry-After")) or 0, LONGEST_WAIT)
