"""The HTML of the tab Judge.

Nothing in it says which model an image is from, and no caption is markup.
"""

from __future__ import annotations

import base64
from pathlib import Path

from t2i.benchmarks.votes.record import QUESTIONS
from t2i.web.judge.poll import Turn
from t2i.web.judge.study import GRADED, Study
from t2i.web.markup import escaped

SIDES = ("left", "right")
SMALL = 256
"""Images of fewer pixels are enlarged with sharp pixels."""


def ballot(turn: Turn, study: Study) -> str:
    """Show what is to be judged.

    Args:
        turn: What the rater sees.
        study: The study.

    Returns:
        The HTML: the question, the caption, and the images inside it.
    """
    before = f'<p class="t2i-before">{escaped(turn.before)}</p>'
    count = f"{turn.done} of {turn.total} votes of <b>{escaped(turn.rater)}</b>"
    if turn.ballot is None:
        return f'{before}<p class="t2i-done">You have judged everything. Thank you! {count}</p>'
    wording = GRADED if study.kind == "scale" else QUESTIONS
    caption = turn.ballot.item.caption
    told = f'<p class="t2i-caption">{escaped(caption)}</p>' if caption else ""
    small = " small" if any(_width(path) < SMALL for path in turn.images) else ""
    images = "".join(
        f'<img class="t2i-blind{small}" alt="{side}" src="{inline(path)}">'
        for side, path in zip(SIDES if len(turn.images) == 2 else ("image",), turn.images,
                              strict=True)
    )  # fmt: skip
    return (
        f'{before}<p class="t2i-question">{escaped(wording[turn.ballot.question])}</p>{told}'
        f'<div class="t2i-blinds">{images}</div><p class="t2i-count">{count}</p>'
    )


def inline(path: Path) -> str:
    """Encode an image of a study for the page.

    Args:
        path: The file, a PNG without texts.

    Returns:
        A data URL.
    """
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _width(path: Path) -> int:
    """Read the width of a PNG file, in pixels."""
    with open(path, "rb") as file:
        return int.from_bytes(file.read(20)[16:20], "big")
