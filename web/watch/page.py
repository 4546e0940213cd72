"""The HTML of the tab Watch: the list of runs, and what is known of one. No text is markup."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.images import read_whole
from t2i.core.io.terminal import duration
from t2i.core.runs.folder import Run
from t2i.core.runs.listing import ListedRun
from t2i.web.markup import escaped
from t2i.web.watch.chart import Line, chart
from t2i.web.watch.history import Curve, History, smoothed

MOST_ROWS = 200
"""Most runs of the table."""

LARGEST_GRID = 1600
"""Longest side of a grid as it is shown, in pixels. Larger ones are reduced."""


@dataclass(frozen=True)
class Look:
    """How curves are shown.

    Args:
        log: Whether the axes of losses are logarithmic.
        smoothing: Weight of the past in the smoothed curve, from 0 to below 1.
        raw: Whether the curves are shown as they were logged, too.
    """

    log: bool = False
    smoothing: float = 0.6
    raw: bool = True


def table(rows: Sequence[tuple[str, ListedRun, History | None, float | None]]) -> str:
    """Write the table of runs.

    Args:
        rows: For each run its name, what it is, its history and the seconds left; None where they
            are unknown.

    Returns:
        The HTML. It says so if there are no runs.
    """
    if not rows:
        return "<p>There are no runs yet. <code>t2i train --model ldm</code> begins one.</p>"
    heads = ("run", "model", "data", "state", "stage", "step", "done", "time left", "images/s",
             "last loss", "score")  # fmt: skip
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(
        f"<tr class='{escaped(run.state.replace(' ', '-'))}'>"
        + "".join(
            f'<td data-name="{name}">{escaped(cell)}</td>'
            for name, cell in zip(heads, _cells(label, run, history, left), strict=True)
        )
        + "</tr>"
        for label, run, history, left in rows[:MOST_ROWS]
    )
    more = f"<p>The newest {MOST_ROWS} of {len(rows)} runs.</p>" if len(rows) > MOST_ROWS else ""
    return (
        f'<div class="t2i-runs"><table class="t2i-list"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}"
    )


def _cells(
    label: str, run: ListedRun, history: History | None, left: float | None
) -> tuple[str, ...]:
    stage = history.stage if history else ""
    speed = history.speed.last if history else None
    loss = next((f"{n} {v:.4g}" for n, v in run.losses.items() if v is not None), "")
    state = run.progress if run.state == "damaged" else run.state
    return (
        label, f"{run.model} ({run.preset})", run.data, state, stage, f"{run.step:,}",
        share_done(run), "" if left is None else duration(left),
        "" if speed is None or run.state != "training" else f"{speed:.3g}", loss,
        f"{run.score[0]} {run.score[1]:.4g}" if run.score else "",
    )  # fmt: skip


def share_done(run: ListedRun) -> str:
    """Say how much of a run's budget is done.

    Args:
        run: The run.

    Returns:
        A percentage. "": unknown.
    """
    steps, minutes = planned(run)
    if run.state == "complete":
        return "100 %"
    if minutes:
        return f"{min(1.0, run.seconds / 60 / minutes):.0%}".replace("%", " %")
    if steps:
        return f"{min(1.0, run.step / steps):.0%}".replace("%", " %")
    return ""


def planned(run: ListedRun) -> tuple[float | None, float | None]:
    """Read the budget of a run.

    Args:
        run: The run.

    Returns:
        Planned steps and planned minutes; None where the budget is no such number.
    """
    amount, _, unit = run.budget.partition(" ")
    try:
        value = float(amount)
    except ValueError:
        return None, None
    return (None, value) if unit == "min" else (value, None)


def facts(label: str, run: ListedRun, history: History, left: float | None, complaint: str) -> str:
    """Write a line of facts about the chosen run.

    Args:
        label: Its name on the page.
        run: What it is.
        history: What its log said.
        left: Seconds left. None: unknown.
        complaint: Why it could not be resumed; "" for none.

    Returns:
        The HTML.
    """
    told = [run.progress]
    if history.stage:
        told.append(f"stage {history.stage}")
    if left is not None and run.state == "training":
        told.append(f"about {duration(left)} left")
    if history.speed.last is not None and run.state == "training":
        told.append(f"{history.speed.last:.3g} images/s")
    if history.lost:
        told.append(f"{history.lost} losses were not finite")
    said = note(complaint) if complaint else ""
    return f"<p><b>{escaped(label)}</b>: {escaped(', '.join(told))}</p>{said}"


def note(text: str) -> str:
    """Write a message.

    Args:
        text: Any text; "" for none.

    Returns:
        The HTML.
    """
    return f'<p class="t2i-note">{escaped(text)}</p>' if text else ""


def charts(history: History, look: Look) -> str:
    """Draw the scores, the losses by stage, and the speed.

    Args:
        history: What the log said.
        look: How the curves are shown.

    Returns:
        The HTML.
    """
    parts = []
    if history.scores:
        parts.append(_group("scores", [_score(name, history) for name in history.scores]))
    stages = list(dict.fromkeys(stage for stage, _ in history.losses))
    for stage in reversed(stages):  # the present one first
        own = {name: curve for (at, name), curve in history.losses.items() if at == stage}
        title = f"losses of stage {stage}" if stage else "losses"
        parts.append(_group(title, [_loss(name, curve, look) for name, curve in own.items()]))
    if history.speed.points or history.speed.last is not None:
        shown = history.speed.shown()
        note = f"{history.speed.last:.4g}" if history.speed.last is not None else ""
        parts.append(_group("speed", [chart("images/s", [Line(shown)], note=note)]))
    return "".join(parts) or "<p>Nothing is logged yet.</p>"


def _group(title: str, figures: Sequence[str]) -> str:
    return f'<h3>{escaped(title)}</h3><div class="t2i-charts">{"".join(figures)}</div>'


def _loss(name: str, curve: Curve, look: Look) -> str:
    points = curve.shown()
    raw = [Line(points, "raw")] if look.raw or not look.smoothing else []
    main = [Line(smoothed(points, look.smoothing))] if look.smoothing else []
    note = "" if curve.last is None else f"{curve.last:.4g}"
    merged = f", a point for {curve.stride} lines of the log" if curve.stride > 1 else ""
    return chart(name, [*raw, *main], log=look.log, note=note + merged)


def _score(name: str, history: History) -> str:
    points = history.scores[name]
    bands = [(p.step, *p.interval) for p in points if p.interval]
    last = points[-1]
    ends = f" ({last.interval[0]:.4g} to {last.interval[1]:.4g})" if last.interval else ""
    line = Line([(p.step, p.value) for p in points], bands=bands, dots=True)
    return chart(name, [line], note=f"{last.value:.4g}{ends}")


# --- grids ----------------------------------------------------------------------------------------


def grids(run: Run) -> list[int]:
    """List the grids of a run.

    Args:
        run: The run.

    Returns:
        Their steps, in ascending order; none if the folder has vanished.
    """
    names = (path.stem.removeprefix("step-") for path in run.samples.glob("step-*.png"))
    return sorted(int(name) for name in names if name.isdecimal())


def grid_file(run: Run, step: int) -> Path:
    """Give the file of a grid.

    Args:
        run: The run.
        step: Its step.

    Returns:
        The file.
    """
    return run.samples / f"step-{step}.png"


def grid(run: Run, step: int) -> str:
    """Show the grid of a step, with its captions below.

    Args:
        run: The run.
        step: One of `grids`.

    Returns:
        The HTML, with the image inside it; a sentence if the image cannot be read.
    """
    try:
        data = inline(grid_file(run, step))
    except (UserError, OSError):
        return "<p>This grid cannot be read: it is being written, or has vanished.</p>"
    captions = "".join(f"<li>{escaped(caption)}</li>" for caption in run.captions())
    return (
        f'<figure class="t2i-grid"><img alt="samples at step {step}" src="{data}">'
        f"<figcaption>Step {step:,}. Captions, in the order of the images:"
        f"<ol>{captions}</ol></figcaption></figure>"
    )


def inline(path: Path) -> str:
    """Encode an image file for a page, reduced if it is large.

    Args:
        path: The file.

    Returns:
        A data URL with the pixels alone: nothing of the file's name or texts.

    Raises:
        UserError: It is no image that can be read.
    """
    image = read_whole(path)
    image.thumbnail((LARGEST_GRID, LARGEST_GRID))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
