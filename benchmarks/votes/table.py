"""What votes say, as tables on a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from t2i.benchmarks.report.table import DASH, plain
from t2i.benchmarks.votes.judgement import Judgement, Judgements, Needed, Place

VALUE = {"pair": "wins %", "scale": "grade"}
MEANING = {
    "pair": "wins %: how many of 100 votes it would win, met with each other model as often; "
    "a tie and 'both bad' count half for each.",
    "scale": "grade: the mean, from 0 (worst) to 4 (best).",
}
INTERVAL = (
    "Intervals: 95 %, by leaving out one rater at a time; ranks: every two models compared at 95 %."
)


def show(judgements: Judgements, console: Console) -> None:
    """Print a table for each question, with what is to be known about it below.

    Args:
        judgements: What the votes say.
        console: Where to print.
    """
    for table in judgements.tables:
        what = "pairs" if table.kind == "pair" else "grades"
        raters = "1 rater" if table.raters == 1 else f"{table.raters} raters"
        title = f"{table.question}, {what}: {table.votes} votes of {raters}"
        console.print(plain(title, "bold"))
        console.print(_table(table))
        for line in lines_below(table):
            console.print(plain(line, "dim"))
        console.print()
    kinds = {table.kind for table in judgements.tables}
    for line in (*(words for kind, words in MEANING.items() if kind in kinds), INTERVAL):
        console.print(plain(line, "dim"))


def _table(table: Judgement) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("rank", no_wrap=True)
    shown.add_column("model", overflow="fold")
    for title in (VALUE[table.kind], "95 %", "votes"):
        shown.add_column(title, justify="right", no_wrap=True)
    for place in table.places:
        cells = (rank_words(place), place.model, number(table, place.value))
        shown.add_row(*map(plain, (*cells, interval_words(table, place), str(place.votes))))
    return shown


def number(table: Judgement, value: float) -> str:
    """Format a value: percent without decimals beyond one, a grade with two.

    Args:
        table: The table of the value.
        value: The value.

    Returns:
        The text.
    """
    return f"{value:.1f}" if table.kind == "pair" else f"{value:.2f}"


def interval_words(table: Judgement, place: Place) -> str:
    """Format the interval of a model.

    Args:
        table: The table of the model.
        place: The model.

    Returns:
        "LOW-HIGH"; a dash if there is none.
    """
    if place.low is None or place.high is None:
        return DASH
    return f"{number(table, place.low)}{DASH}{number(table, place.high)}"


def rank_words(place: Place) -> str:
    """Format the rank of a model.

    Args:
        place: The model.

    Returns:
        "RANK", or "FIRST-LAST (not settled)".
    """
    return str(place.first) if place.settled else f"{place.first}-{place.last} (not settled)"


def lines_below(table: Judgement) -> list[str]:
    """Say what a reader of a table needs to know.

    Args:
        table: The table.

    Returns:
        Lines: answers, agreement, sides, prior, votes needed, remarks.
    """
    return [
        _choices(table),
        _agreement(table),
        *_sides(table),
        *_prior(table),
        *(_needed(needed, table.raters) for needed in table.needed),
        *table.notes,
    ]


def _choices(table: Judgement) -> str:
    if table.kind == "scale":
        return f"Grades: {', '.join(f'{n} x {grade}' for grade, n in table.choices.items())}."
    decided = table.choices["left"] + table.choices["right"]
    tie, bad = (
        f"{table.choices[choice]} ({table.choices[choice] / table.votes:.0%})"
        for choice in ("tie", "bad")
    )
    return f"Votes: {decided} for one image, {tie} ties, {bad} 'both bad'."


def _agreement(table: Judgement) -> str:
    found = table.agreement
    told = f"unknown ({found.reason})" if found.alpha is None else f"{found.alpha:.2f}"
    of = "pairs of images" if table.kind == "pair" else "images"
    return (
        f"Agreement: Krippendorff's alpha ({found.scale}) {told}; {found.units} {of} with several "
        "raters. 1: full, 0: chance."
    )


def _sides(table: Judgement) -> list[str]:
    if table.sides is None or table.sides.left is None:
        return []
    sides = table.sides
    told = f"Sides: the left image won {sides.left:.0%} of {sides.votes} decided votes"
    if sides.low is None or sides.high is None:
        return [f"{told}; one rater, no interval."]
    verdict = "raters prefer a side" if sides.biased else "no preference is shown"
    return [f"{told} ({sides.low:.0%}{DASH}{sides.high:.0%}): {verdict}."]


def _prior(table: Judgement) -> list[str]:
    if not table.prior:
        return []
    return [
        f"Prior: each model is given {table.prior['votes']:g} vote more, a tie with an average "
        f"model; it moves a value by {table.prior['moves']:.1f} points at most."
    ]


def _needed(needed: Needed, raters: int) -> str:
    a, b = needed.models
    if needed.votes is None or needed.raters is None:
        told = "ask more raters" if raters == 1 else "more than 100 times as many votes"
        return f"To settle {a} and {b}: {told}."
    return (
        f"To settle {a} and {b}: about {needed.votes:,} more votes, of {needed.raters:,} more "
        "raters like these, if they differ as found (4 chances of 5)."
    )
