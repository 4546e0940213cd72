"""The tab Draw."""

from __future__ import annotations

import gradio as gr

from t2i.web.site import Site


def tab(site: Site) -> None:
    """Fill the tab.

    Args:
        site: What the page serves.
    """
    gr.Markdown(f"Runs under {site.runs}.")
