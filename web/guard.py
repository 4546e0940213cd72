"""What is refused before the page sees it: strangers, other sites' requests, and what is too large.

A page of another site can send requests to loopback from a visitor's own browser. It cannot forge
the headers Origin and Host, so both are checked; Host also stops DNS rebinding.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from t2i.web.attempts import Attempts
from t2i.web.site import LOOPBACK, Site

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGES = ("/", "/config", "/favicon.ico", "/manifest.json", "/robots.txt", "/theme.css")
"""Whole paths that the page uses."""

FOLDERS = (
    "/assets/", "/static/", "/svelte/", "/gradio_api/app_id", "/gradio_api/cancel",
    "/gradio_api/file=/", "/gradio_api/heartbeat/", "/gradio_api/info", "/gradio_api/queue/",
    "/gradio_api/reset", "/gradio_api/startup-events", "/gradio_api/upload",
)  # fmt: skip
"""Beginnings of the other paths that the page uses. Gradio has many more, such as a proxy."""

HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Headers of every answer. With the first one a browser asks no other server for anything."""

OVERHEAD = 2**20
"""Bytes that a request may have beside the file that it sends."""


class TooLarge(Exception):
    """A request's body is longer than it may be."""


class Guard:
    """An ASGI application that refuses some requests, and hands the others on.

    Args:
        app: The application behind it.
        site: Who may ask, and how much may be sent.
    """

    def __init__(self, app: Application, site: Site) -> None:
        self.app = app
        self.site = site
        self.most = site.limits.upload_bytes + OVERHEAD
        self.attempts = Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Args:
            scope: The request, as ASGI describes it.
            receive: Gives the parts of its body.
            send: Takes the parts of the answer.
        """
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1")
                   for key, value in scope["headers"]}  # fmt: skip
        refused = self._refusal(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message["headers"], *_encoded(HEADERS.items())]}
            await send(message)

        try:
            await self.app(scope, self._counted(receive), guarded)
        except TooLarge:
            if not started:
                await _answer(send, 413, "the request is too large")

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Say why a request is refused; None if it is not."""
        host = headers.get("host", "")
        if self.site.host in LOOPBACK and _name(host) not in LOOPBACK:
            return 403, "this page answers on loopback only"
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return 403, "requests of other sites are refused"
        cross = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if cross and not (scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"):
            return 403, "requests of other sites are refused"
        if self.site.password and (stranger := self._stranger(scope, headers)):
            return stranger
        if scope["path"] not in PAGES and not scope["path"].startswith(FOLDERS):
            return 404, "there is no such page"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most:
            return 413, "the request is too large"
        return None

    def _stranger(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Refuse who does not know the password, and who has guessed too often."""
        given = headers.get("authorization")
        if given is None:
            return 401, "a password is needed"
        address = str((scope.get("client") or ("",))[0])
        if self.attempts.too_many(address):
            return 429, "too many wrong passwords: try again in a minute"
        if _knows(self.site.password or "", given):
            return None
        self.attempts.add(address)
        return 401, "the password is wrong"

    def _counted(self, receive: Receive) -> Receive:
        """Count the bytes of a body whose length is not stated."""
        left = self.most

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLarge
            return message

        return counted


def _name(host: str) -> str:
    """Return the name in a header Host, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """Return name and port of a header Origin; None if it is damaged."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _knows(password: str, header: str) -> bool:
    """Tell whether a header Authorization has the password. The user's name is not looked at."""
    scheme, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded, validate=True)
    except ValueError:  # no base64, or letters beyond ASCII
        return False
    given = text.partition(b":")[2]
    return scheme.lower() == "basic" and secrets.compare_digest(given, password.encode())


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


async def _answer(send: Send, status: int, text: str) -> None:
    """Send a short answer in plain text."""
    headers = {**HEADERS, "content-type": "text/plain; charset=utf-8"}
    if status == 401:
        headers["www-authenticate"] = 'Basic realm="t2i", charset="UTF-8"'
    body = f"{text}\n".encode()
    headers["content-length"] = str(len(body))
    await send(
        {"type": "http.response.start", "status": status, "headers": _encoded(headers.items())}
    )
    await send({"type": "http.response.body", "body": body})
