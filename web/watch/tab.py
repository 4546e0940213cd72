"""The tab Watch: runs while they are trained."""

from __future__ import annotations

from typing import Any

import gradio as gr

from t2i.core.errors import UserError
from t2i.core.runs.folder import Run
from t2i.web.site import Site
from t2i.web.watch import page
from t2i.web.watch.control import Resumed, stop
from t2i.web.watch.watching import Watching

EVERY = 2.0
"""Seconds between two looks at the runs."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def tab(site: Site) -> None:
    """Fill the tab.

    Args:
        site: What the page serves. Without its `control` there is no way to stop or resume a run.
    """
    watching, resumed = Watching(site), Resumed()
    table = gr.HTML(elem_id="runs")
    run = gr.Dropdown(label="Run", choices=[], allow_custom_value=True, elem_id="watched")
    facts = gr.HTML(elem_id="facts")
    if site.control:
        _control(watching, resumed, run)
    with gr.Row():
        scale = gr.Radio(["linear", "log"], value="linear", label="Axis of the losses")
        smoothing = gr.Slider(0, 0.99, value=0.6, step=0.01, label="Smoothing")
        raw = gr.Checkbox(True, label="also as logged", elem_id="raw")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            charts = gr.HTML(elem_id="charts")
        with gr.Column(scale=2, min_width=300):
            place = gr.Slider(0, 1, value=0, step=1, label="Grid", visible=False, elem_id="grids")
            grid = gr.HTML(elem_id="grid")
    seen = gr.State(())

    def look(
        name: str | None, scale: str, smoothing: float, raw: bool, place: float, seen: Any
    ) -> list[Any]:  # fmt: skip
        """Read what is new, and send what has changed since the last look."""
        now: tuple[Any, ...]
        rows = watching.rows()
        names = [label for label, *_ in rows]
        name = name or next(iter(names), None)
        listed = gr.update(choices=names, value=name)
        try:
            found = watching.find(name)
            with watching.history(found.run) as history:
                style = page.Look(scale == "log", min(max(smoothing or 0, 0), 0.99), bool(raw))
                now = (name, history.lines, style, len(steps := page.grids(found.run)))
                drawn = gr.skip() if now[:3] == seen[:3] else page.charts(history, style)
                left = history.seconds_left(*page.planned(found))
                complaint = resumed.complaint(found.run)
                told = page.facts(str(name), found, history, left, complaint)
        except UserError as error:
            told, drawn, steps, now = page.note(str(error) if name else ""), "", [], ()
        same = now[:1] == seen[:1]
        stays = bool(now) and same and place < seen[3] - 1  # the visitor looks at an older grid
        slider = _slider(steps, place if stays else None)
        slider = gr.skip() if now and same and now[3] == seen[3] else slider
        return [page.table(rows), listed, told, drawn, slider, now]

    def show(name: str | None, place: float) -> str:
        try:
            own = watching.find(name).run
        except UserError:
            return ""
        steps = [step for step in page.grids(own) if site.allowed(page.grid_file(own, step))]
        return page.grid(own, steps[min(int(place), len(steps) - 1)]) if steps else ""

    settings = [run, scale, smoothing, raw, place, seen]
    outputs = [table, run, facts, charts, place, seen]
    gr.on([gr.Timer(EVERY).tick, run.change, scale.change, smoothing.release, raw.change],
          look, settings, outputs, concurrency_limit=4, **QUIET)  # fmt: skip
    gr.on([place.change, run.change], show, [run, place], grid, concurrency_limit=4, **QUIET)


def _slider(steps: list[int], place: float | None) -> Any:
    """Update the slider through the grids: it stands at the newest one unless a place is given."""
    last = len(steps) - 1
    label = f"Grid, of {len(steps)}: steps {steps[0]:,} to {steps[-1]:,}" if steps else "Grid"
    return gr.update(
        maximum=max(1, last), value=max(0, last) if place is None else place,
        visible=bool(steps), label=label, interactive=last > 0,
    )  # fmt: skip


def _control(watching: Watching, resumed: Resumed, run: gr.Dropdown) -> None:
    """Add the buttons that stop and resume a run."""
    with gr.Row():
        stops = gr.Button("Stop", elem_id="stop", min_width=80, scale=0)
        resumes = gr.Button("Resume", elem_id="resume", min_width=80, scale=0)
        said = gr.HTML(elem_id="control-state")

    def stopping(own: Run) -> str:
        return f"Process {stop(own)} has got SIGINT: it saves the run and stops."

    def resuming(own: Run) -> str:
        return f"Training goes on, also when this page ends. Its output: {resumed.start(own)}"

    for button, act in ((stops, stopping), (resumes, resuming)):

        def work(name: str | None, act: Any = act) -> str:
            try:
                return page.note(act(watching.find(name).run))
            except UserError as error:
                return page.note(str(error))

        button.click(work, run, said, concurrency_limit=1, api_visibility="private")
