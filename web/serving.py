"""Serving the page: until SIGINT or SIGTERM, on loopback unless the site says otherwise."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from t2i.core.errors import Interrupted, UserError
from t2i.core.io.terminal import note
from t2i.web.site import Site

OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
"""Variables with which Gradio and the hub's library ask nobody on the internet for anything. They
are read at import."""

PATIENCE = 2
"""Seconds that open connections have to end after a signal."""


def serve(site: Site) -> None:
    """Serve the page until a signal stops it.

    Args:
        site: What to serve, where, and to whom.

    Raises:
        UserError: Gradio is not installed, or the address is in use or is not this machine's.
        Interrupted: SIGINT or SIGTERM stopped the server.
    """
    with _listening(site) as door, _folder() as folder:
        os.environ.update(OFFLINE, GRADIO_TEMP_DIR=folder)
        server = _server(site)
        with _signals():
            note(f"t2i web: {address(site, door.getsockname()[1])} (Ctrl-C stops it)")
            server.run(sockets=[door])


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Make the folder of all files that visitors send and receive. It is removed at the end."""
    return tempfile.TemporaryDirectory(prefix="t2i-web-", ignore_cleanup_errors=True)


def address(site: Site, port: int) -> str:
    """Return the address that a visitor opens.

    Args:
        site: The site.
        port: The port that it listens on.

    Returns:
        The URL.
    """
    host = f"[{site.host}]" if ":" in site.host else site.host
    return f"http://{host}:{port}/"


def _server(site: Site) -> Any:
    """Build the server, with the guard before the page."""
    try:
        with _no_stubs():
            import gradio
    except ImportError:
        raise UserError(
            "the page needs Gradio, which is not installed: pip install 't2i-zoo[web]'"
        ) from None
    from fastapi import FastAPI
    from uvicorn import Config, Server

    from t2i.web.app import assets, build, theme
    from t2i.web.guard import Guard

    bare = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gradio.mount_gradio_app(
        bare, build(site), path="/", theme=theme(), css=assets("css"),
        head=f"<script>{assets('js')}</script>", footer_links=[], run_history=False, pwa=False,
        ssr_mode=False, mcp_server=False, max_file_size=site.limits.upload_bytes,
    )  # fmt: skip
    return Server(
        Config(
            Guard(app, site),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=PATIENCE,
            limit_concurrency=site.limits.connections,
        )
    )


@contextmanager
def _no_stubs() -> Iterator[None]:
    """Keep Gradio from writing stub files beside its sources, which is 40 % of its import.

    It asks where each component's source is, and writes none if there is no source.
    """
    real = inspect.getfile

    def getfile(found: Any) -> str:
        if type(found).__name__ == "ComponentMeta":
            raise OSError("no stubs are wanted")
        return real(found)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = real


@contextmanager
def _listening(site: Site) -> Iterator[socket.socket]:
    """Open the port before anything slow is imported: one that is in use is known at once."""
    family = socket.AF_INET6 if ":" in site.host else socket.AF_INET
    with socket.socket(family) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((site.host, site.port))
            door.listen(site.limits.connections)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"cannot listen on {site.host} port {site.port}: {reason}; choose another --port "
                "or --host"
            ) from None
        yield door


@contextmanager
def _signals() -> Iterator[None]:
    """Raise `Interrupted` for the signals that the server raises again when it has stopped."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise Interrupted("the page is stopped", number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
