"""The tab Draw: where its parts stand, and what its buttons do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from t2i.core.errors import UserError
from t2i.web.draw.form import OWN, Form, form, samplers, wish_of
from t2i.web.draw.restoring import restored
from t2i.web.draw.sheet import EMPTY, sheet, status
from t2i.web.draw.sources import sources
from t2i.web.draw.studio import Studio

TICK = 0.25
"""Seconds between two looks at a drawing."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How events are declared: the tab shows its own progress, and offers no interface to programs."""


def tab(studio: Studio) -> None:
    """Fill the tab.

    Args:
        studio: The models, the queue, and the visitors' drawings.
    """
    with gr.Row(elem_classes="t2i-draw"):
        with gr.Column(scale=2, min_width=280):
            go = gr.Button("Draw", variant="primary", elem_id="draw-go", min_width=90, render=False)
            stop = gr.Button("Cancel", elem_id="draw-stop", min_width=90, render=False)
            fields = form(sources(studio.site), [go, stop])
            examples = gr.Dataset(
                components=[gr.Textbox(visible=False)], samples=[], type="values",
                label="Captions that the first model knows", elem_id="draw-examples",
            )  # fmt: skip
            back = gr.File(
                label="Drop an image of t2i: its settings fill the form", file_types=[".png"],
                height=160, elem_id="draw-back",
            )  # fmt: skip
        with gr.Column(scale=5, min_width=280):
            told = gr.HTML(elem_id="draw-status", apply_default_css=False)
            shown = gr.HTML(EMPTY, elem_id="draw-sheet", apply_default_css=False)
            with gr.Row():
                history = gr.Dropdown(
                    [], label="Your drawings", elem_id="draw-history", scale=3, min_width=200
                )
                zipped = gr.DownloadButton(
                    "Download (ZIP)", interactive=False, elem_id="draw-zip", min_width=120
                )
    _drawing(studio, fields, go, stop, [told, shown, history, zipped])
    _remembering(studio, fields, back, history, [told, shown, zipped])
    _choosing(studio, fields, examples)


def _drawing(
    studio: Studio, fields: Form, go: gr.Button, stop: gr.Button, outputs: list[Any]
) -> None:
    """Connect the buttons that begin and cancel a drawing."""

    async def draw(request: gr.Request, *values: Any) -> AsyncIterator[list[Any]]:
        visitor = str(request.session_hash)
        try:
            job, drawing = studio.begin(visitor, fields.wish(*values))
        except UserError as error:
            yield [status(None, 0, None, str(error)), gr.skip(), gr.skip(), gr.skip()]
            return
        history = gr.update(choices=studio.album(visitor).titles(), value=drawing.number)
        yield [status(job, 0, drawing), sheet(drawing), history, gr.update(interactive=False)]
        try:
            before, count = "", 0
            while not job.ended:
                await asyncio.sleep(TICK)
                now = status(job, studio.desk.place(job), drawing)
                grown = drawing.count() != count
                if now != before or grown:
                    before, count = now, drawing.count()
                    yield [now, sheet(drawing) if grown else gr.skip(), gr.skip(), gr.skip()]
        finally:
            job.cancel()
        zipped = await asyncio.to_thread(drawing.packed)
        download = gr.update(value=zipped and str(zipped), interactive=zipped is not None)
        yield [status(job, 0, drawing), sheet(drawing), gr.skip(), download]

    def cancel(request: gr.Request) -> None:
        studio.desk.cancel(str(request.session_hash))

    limit = studio.site.limits.waiting + 4
    go.click(draw, fields.fields, outputs, concurrency_limit=limit, **QUIET)
    stop.click(cancel, concurrency_limit=None, **QUIET)


def _remembering(
    studio: Studio, fields: Form, back: gr.File, history: gr.Dropdown, outputs: list[Any]
) -> None:
    """Connect what loads settings back: an image that is dropped, and the list of drawings."""

    def load(path: str | None) -> list[Any]:
        keep = [gr.skip()] * len(fields.fields)
        if path is None:
            return [gr.skip(), *keep]
        known = sources(studio.site)
        try:
            image = restored(Path(path), known, studio.site.limits)
        except UserError as error:
            return [status(None, 0, None, str(error)), *keep]
        filled = fields.filled(wish_of(image))
        if not image.settings.model:
            filled[0] = gr.skip()
        return [status(None, 0, None, image.told), *filled]

    def recall(number: int | None, request: gr.Request) -> list[Any]:
        drawing = studio.album(str(request.session_hash)).drawing(number)
        if drawing is None:
            return [gr.skip()] * (3 + len(fields.fields))
        zipped = drawing.packed()
        download = gr.update(value=zipped and str(zipped), interactive=zipped is not None)
        return [
            status(None, 0, drawing), sheet(drawing), download, *fields.filled(drawing.wish)
        ]  # fmt: skip

    back.upload(load, back, [outputs[0], *fields.fields], **QUIET)
    history.input(recall, history, [*outputs, *fields.fields], **QUIET)


def _choosing(studio: Studio, fields: Form, examples: gr.Dataset) -> None:
    """Connect what depends on the chosen models, and keeps the list of them new."""

    def about(names: list[str]) -> list[Any]:
        found = sources(studio.site)
        captions = found[names[0]].captions() if names and names[0] in found else []
        return [
            gr.update(choices=samplers(found, names or []), value=OWN),
            gr.update(samples=[[caption] for caption in captions], visible=bool(captions)),
        ]

    def arrive(names: list[str]) -> list[Any]:
        found = sources(studio.site)
        kept = [name for name in names or [] if name in found] or list(found)[:1]
        return [gr.update(choices=list(found), value=kept), *about(kept)]

    def add(chosen: list[str], prompts: str) -> str:
        return f"{prompts.rstrip()}\n{chosen[0]}".lstrip()

    def leave(request: gr.Request) -> None:
        studio.leave(str(request.session_hash))

    page = Context.root_block
    assert page is not None
    page.load(arrive, fields.models, [fields.models, fields.sampler, examples], **QUIET)
    page.unload(leave)
    fields.models.input(about, fields.models, [fields.sampler, examples], **QUIET)
    examples.click(add, [examples, fields.prompts], fields.prompts, **QUIET)
