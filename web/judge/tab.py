"""The tab Judge: blind votes on pairs of images, or grades of single ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from t2i.core.errors import UserError
from t2i.web.draw.desk import Job
from t2i.web.draw.sheet import progress
from t2i.web.draw.shelf import Shelf
from t2i.web.draw.sources import Source
from t2i.web.draw.studio import Studio
from t2i.web.draw.wish import whole
from t2i.web.judge import page
from t2i.web.judge.making import MOST_ITEMS, Order, make_study
from t2i.web.judge.poll import Poll, Turn, UnknownTicket
from t2i.web.judge.sources import sources_of
from t2i.web.judge.study import GRADED, SCALES, list_studies
from t2i.web.markup import escaped

BUTTONS = (("left", "← left (A)"), ("tie", "↑ as good (W)"), ("bad", "↓ both bad (S)"),
           ("right", "→ right (D)"))  # fmt: skip
"""The choices of a pair with the texts of their buttons, which name the keys (assets/judge.js)."""

KEYS = "Keys: arrows or A, W, S, D for pairs, 0 to 4 for grades."
TICK = 0.25
"""Seconds between two looks at a study that is being made."""
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def tab(studio: Studio) -> None:
    """Fill the tab.

    Args:
        studio: The models, and the queue in which they draw.
    """
    site = studio.site
    poll = Poll(site.votes.with_name(f"{site.votes.stem}-images"), site.votes)
    with gr.Row(equal_height=True):
        study = gr.Dropdown(label="Study", choices=[], allow_custom_value=True, elem_id="study")
        rater = gr.Textbox(
            label="Your name", placeholder="empty: a random one", max_length=40, elem_id="rater"
        )
        begin = gr.Button("Begin", variant="primary", elem_id="begin", min_width=80, scale=0)
    ticket = gr.Textbox(visible="hidden", elem_id="ticket", label="ticket")
    shown = gr.HTML(f"<p>Choose a study and begin. {KEYS}</p>", elem_id="ballot")
    with gr.Row(visible=False, elem_id="pair-buttons") as pair:
        choices = [
            (name, gr.Button(text, elem_id=f"vote-{name}", min_width=60)) for name, text in BUTTONS
        ]
    with gr.Row(visible=False, elem_id="scale-buttons") as scale:
        grades = [gr.Button(str(n), elem_id=f"vote-{n}", min_width=60) for n in range(5)]
    known = gr.BrowserState("", storage_key="t2i-rater", secret="t2i")
    outputs = [ticket, shown, rater, known, pair, scale, *grades]

    def show(turn: Turn) -> list[Any]:
        asked = poll.study(turn.study)
        there = turn.ballot is not None
        texts = SCALES[turn.ballot.question] if turn.ballot else SCALES["overall"]
        return [
            turn.ticket, page.ballot(turn, asked), turn.rater, turn.rater,
            gr.update(visible=there and asked.kind == "pair"),
            gr.update(visible=there and asked.kind == "scale"),
            *(gr.update(value=f"{n} {text}") for n, text in enumerate(texts)),
        ]  # fmt: skip

    def start(name: str | None, who: str) -> Any:
        newest = next(iter(list_studies(poll.studies)), None)
        return _told(lambda: show(poll.begin(name or newest, who)))

    def voter(choice: str | int) -> Callable[[str, str, str], Any]:
        def vote(own: str, name: str, who: str) -> Any:
            def work() -> Any:
                try:
                    turn = poll.vote(own, choice)
                except UnknownTicket:
                    return start(name, who)
                return gr.skip() if turn is None else show(turn)

            return _told(work)

        return vote

    begin.click(start, [study, rater], outputs, **PRIVATE)
    every: list[tuple[str | int, gr.Button]] = [*choices, *enumerate(grades)]
    for choice, button in every:
        button.click(voter(choice), [ticket, study, rater], outputs, concurrency_limit=8, **PRIVATE)
    _form(studio, poll, study)
    gr.on(None, lambda: _studies(poll, None), None, study, **PRIVATE)
    gr.on(None, lambda own: own or gr.skip(), known, rater, **PRIVATE)


def _told(work: Callable[[], Any]) -> Any:
    """Do some work; show an error that the visitor can mend, and change nothing then."""
    try:
        return work()
    except (UserError, OSError) as error:
        gr.Warning(str(error))
        return gr.skip()


def _studies(poll: Poll, chosen: str | None) -> Any:
    """Update the list of studies. A choice that is still there stays."""
    names = list_studies(poll.studies)
    return gr.update(choices=names, value=chosen if chosen in names else next(iter(names), None))


def _form(studio: Studio, poll: Poll, study: gr.Dropdown) -> None:
    """Add the form that makes a study, and then chooses it in the list of studies."""
    with gr.Accordion("Make a study", open=False, elem_id="make-study"):
        sources = gr.Dropdown(
            label="Models and folders", choices=[], multiselect=True, allow_custom_value=True,
            info="Models sample the same captions with the same noise. Images of folders belong "
            "together by caption or file name.", elem_id="sources",
        )  # fmt: skip
        captions = gr.Textbox(
            label="Captions, one a line", lines=4, elem_id="study-captions",
            info="Empty: those of the folders, or of the first run's own data.",
        )  # fmt: skip
        with gr.Row():
            each = gr.Number(1, label="Images of each caption", precision=0, minimum=1)
            most = gr.Number(
                50, label="At most so many items", precision=0, minimum=1, maximum=MOST_ITEMS
            )
            seed = gr.Number(0, label="Seed of the noise", precision=0, minimum=0)
        questions = gr.CheckboxGroup(
            [("overall", "overall"), ("faithful to the caption", "faithful"),
             ("looks real", "real")], value=["overall"], label="Questions",
        )  # fmt: skip
        kind = gr.Radio(
            [("pairs: left, right, as good, both bad", "pair"), ("grades from 0 to 4", "scale")],
            value="pair", label="How it is asked", elem_id="study-kind",
        )  # fmt: skip
        names = gr.Radio(
            [("after the vote", "after"), ("never", "never")], value="after",
            label="Names of the models are shown",
        )  # fmt: skip
        name = gr.Textbox(label="Name of the study", value="study", max_length=60)
        with gr.Row():
            make = gr.Button("Make the images", variant="primary", elem_id="make", min_width=90)
            stop = gr.Button("Cancel", elem_id="make-stop", min_width=90)
        state = gr.HTML(elem_id="make-state", elem_classes="t2i-status")
    gr.on(None, lambda: gr.update(choices=sources_of(studio.site).names), None, sources, **PRIVATE)
    make.click(
        _maker(studio, poll),
        [sources, captions, each, most, seed, questions, kind, names, name], [state, study],
        concurrency_limit=studio.site.limits.waiting + 4, **PRIVATE,
    )  # fmt: skip

    def cancel(request: gr.Request) -> None:
        studio.desk.cancel(str(request.session_hash))

    stop.click(cancel, queue=False, **PRIVATE)


def _maker(studio: Studio, poll: Poll) -> Callable[..., AsyncIterator[list[Any]]]:
    """Return the function behind the form's button."""

    async def make(request: gr.Request, *values: Any) -> AsyncIterator[list[Any]]:
        made: list[Path] = []
        try:
            order, places = _order(studio, *values)

            def work(job: Job, shelf: Shelf) -> None:
                def told(what: str, done: float, total: int) -> None:
                    job.check()
                    job.text, job.done = what, done / total

                made.append(
                    make_study(order, poll.studies, told, lambda name: shelf.model(places[name]))
                )

            job = studio.submit(str(request.session_hash), work)
        except UserError as error:
            yield [f'<p class="t2i-error" role="alert">Not made: {escaped(error)}</p>', gr.skip()]
            return
        try:
            before = ""
            while not job.ended:
                now = progress(job, studio.desk.place(job))
                if now != before:
                    before = now
                    yield [now, gr.skip()]
                await asyncio.sleep(TICK)
        finally:
            job.cancel()
        if made:
            said = f"<p>Made: {escaped(made[0].name)}. Begin above.</p>"
            yield [said, _studies(poll, made[0].name)]
        else:
            yield [progress(job, 0), gr.skip()]

    return make


def _order(
    studio: Studio, chosen: list[str], text: str, each: Any, most: Any, seed: Any,
    asked: list[str], kind: Any, names: Any, name: str,
) -> tuple[Order, Mapping[str, Source]]:  # fmt: skip
    """Read the form. Return what is ordered, and the places of the models by name."""
    places = sources_of(studio.site).chosen(chosen or [])
    typed = [line.strip() for line in (text or "").splitlines() if line.strip()]
    order = Order(
        name or "", {name: one.place for name, one in places.models.items()},
        places.folders, typed or places.captions(),
        whole(1 if each is None else each, "images of each caption"), whole(seed or 0, "seed"),
        whole(1 if most is None else most, "items"),
        tuple(q for q in GRADED if q in (asked or ())), kind, names, studio.site.device,
        studio.site.limits,
    )  # fmt: skip
    return order, places.models
