"""`t2i web`: a page to draw side by side, to watch runs, and to vote."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from t2i.cli.command import Command, device_option, path_option, run_option
from t2i.core.errors import UserError


@click.command(cls=Command)
@run_option(
    "--run",
    "named",
    multiple=True,
    metavar="NAME=RUN",
    help="Also serve this run, folder or name of the hub. Repeatable. Default: all under runs/.",
)
@path_option("--runs", metavar="DIR", help="Folder of the runs that are served (default: runs).")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=7860, show_default=True, metavar="N",
    help="Port; 0 is any free one.",
)  # fmt: skip
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="H",
    help="Address to listen on. One that other machines reach needs a password.",
)  # fmt: skip
@path_option(
    "--password-file",
    metavar="FILE",
    help="The first line is the password of all visitors (asked for if --host needs one).",
)
@click.option("--control", is_flag=True, help="Visitors may stop and resume training.")
@path_option("--votes", metavar="FILE", help="File of the votes (default: RUNS/votes.jsonl).")
@click.option(
    "--models", type=click.IntRange(1), default=6, show_default=True, metavar="N",
    help="Models that stay loaded; the least used one is dropped.",
)  # fmt: skip
@click.option(
    "--model-memory", type=click.FloatRange(0, min_open=True), default=8, show_default=True,
    metavar="GB", help="Memory of all loaded models.",
)  # fmt: skip
@device_option
def web(
    named: tuple[str, ...], runs: Path | None, port: int, host: str, password_file: Path | None,
    control: bool, votes: Path | None, models: int, model_memory: float, device: str | None,
) -> None:  # fmt: skip
    """Serve a page: draw side by side, watch runs, vote blind.

    It listens on this machine alone, and asks no other server for anything. It needs the extra
    'web': pip install 't2i-zoo[web]'.

    \b
    t2i web                                  # then open http://127.0.0.1:7860
    t2i web --run mine=runs/ldm-shapes --run sd=OWNER/NAME
    t2i web --host 0.0.0.0 --password-file secret.txt
    """
    from t2i.web.serving import serve
    from t2i.web.site import LOOPBACK, Limits, Site, named_places

    password = _password(password_file, ask=host not in LOOPBACK)
    folder = runs or Path("runs")
    serve(
        Site(
            runs=folder,
            named=named_places(named),
            control=control,
            votes=votes or folder / "votes.jsonl",
            host=host,
            port=port,
            password=password,
            device=device,
            limits=Limits(models=models, model_bytes=int(model_memory * 1e9)),
        )
    )


def _password(file: Path | None, ask: bool) -> str | None:
    """Read the password from a file, or from the terminal. It is no option: `ps` shows those."""
    if file is not None:
        try:
            with open(file, encoding="utf-8") as opened:
                password = opened.readline(4096).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UserError(f"--password-file {file}: {reason}; name a text file") from None
        if not password:
            raise UserError(f"--password-file {file}: its first line is empty; write a password")
        return password
    if ask and sys.stdin.isatty() and os.isatty(2):
        answer: str = click.prompt("password of the page", hide_input=True, err=True)
        return answer
    return None
