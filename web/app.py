"""The page: its three tabs, its colours and its fonts. Importing this module imports Gradio."""

from __future__ import annotations

import atexit
from importlib.resources import files

import gradio as gr

from t2i.web.draw.studio import Studio
from t2i.web.draw.tab import tab as draw
from t2i.web.judge.tab import tab as judge
from t2i.web.site import Site
from t2i.web.watch.tab import tab as watch

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONOSPACED = ("ui-monospace", "SFMono-Regular", "Menlo", "monospace")


CLEANING = (600, 7200)
"""Every how many seconds files are removed that visitors sent, and how old they are then."""


def build(site: Site) -> gr.Blocks:
    """Build the page.

    Args:
        site: What it serves.

    Returns:
        The page, for `serve`.
    """
    studio = Studio(site)
    atexit.register(studio.desk.close)
    page = gr.Blocks(title="t2i", analytics_enabled=False, delete_cache=CLEANING)
    with page:
        with gr.Tab("Draw", id="draw", elem_id="tab-draw"):
            draw(studio)
        with gr.Tab("Watch", id="watch", elem_id="tab-watch"):
            watch(site)
        with gr.Tab("Judge", id="judge", elem_id="tab-judge"):
            judge(studio)
    page.queue(max_size=site.limits.connections)
    return page


def theme() -> gr.themes.Base:
    """Choose the colours, and fonts of the visitor's own system: nothing is fetched.

    Returns:
        The theme.
    """
    return gr.themes.Default(font=FONTS, font_mono=MONOSPACED)


def assets(kind: str) -> str:
    """Read the page's own style sheets or scripts.

    Args:
        kind: "css" or "js".

    Returns:
        All of them, one after the other.
    """
    folder = files("t2i.web").joinpath("assets")
    found = sorted((file for file in folder.iterdir() if file.name.endswith(f".{kind}")), key=str)
    return "\n".join(file.read_text("utf-8") for file in found)
