"""The tab Judge: blind votes on pairs of images, or grades of single ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from t2i.core.errors import UserError
from t2i.web.draw.desk import explained
from t2i.web.judge import page
from t2i.web.judge.making import MOST_ITEMS, Order, make_study
from t2i.web.judge.poll import Poll, Turn, UnknownTicket
from t2i.web.judge.sources import sources_of
from t2i.web.judge.study import GRADED, SCALES, list_studies
from t2i.web.site import Site

BUTTONS = (("left", "← left (A)"), ("tie", "↑ as good (W)"), ("bad", "↓ both bad (S)"),
           ("right", "→ right (D)"))  # fmt: skip
"""The choices of a pair with the texts of their buttons, which name the keys (assets/judge.js)."""

KEYS = "Keys: arrows or A, W, S, D for pairs, 0 to 4 for grades."
PROGRESS = gr.Progress()
"""Stands for a bar of its own in each call: Gradio puts one in its place."""
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def tab(site: Site) -> None:
    """Fill the tab.

    Args:
        site: What the page serves.
    """
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
    _form(site, poll, study)
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


def _form(site: Site, poll: Poll, study: gr.Dropdown) -> None:
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
        make = gr.Button("Make the images", elem_id="make")
        state = gr.Markdown("", elem_id="make-state")
    gr.on(None, lambda: gr.update(choices=sources_of(site).names), None, sources, **PRIVATE)
    make.click(
        _maker(site, poll),
        [sources, captions, each, most, seed, questions, kind, names, name], [state, study],
        concurrency_limit=1, concurrency_id="drawing", api_visibility="private",
    )  # fmt: skip


def _maker(site: Site, poll: Poll) -> Callable[..., list[Any]]:
    """Return the function behind the form's button."""

    def work(
        chosen: list[str], text: str, each: int, most: int, seed: int, asked: list[str], kind: Any,
        names: Any, name: str, progress: gr.Progress = PROGRESS,
    ) -> list[Any]:  # fmt: skip
        try:
            places = sources_of(site).chosen(chosen or [])
            typed = [line.strip() for line in (text or "").splitlines() if line.strip()]
            order = Order(
                name or "", {name: one.place for name, one in places.models.items()},
                places.folders, typed or places.captions(),
                int(each or 1), int(seed or 0), int(most or 1),
                tuple(q for q in GRADED if q in asked), kind, names, site.device,
            )  # fmt: skip
            folder = make_study(
                order, poll.studies, lambda what, done, total: progress((done, total), desc=what)
            )
        except Exception as error:  # of a model, for example
            return [f"Not made: {_plain(explained(error))}", gr.skip()]
        said = f"Made: {_plain(folder.name)}. Begin above."
        return [said, _studies(poll, folder.name)]

    return work


def _plain(text: str) -> str:
    """Escape what Markdown would read as markup."""
    return "".join(f"&#{ord(c)};" if not c.isalnum() and c not in " .,:" else c for c in text)
