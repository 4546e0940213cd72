"""The board's figure of each model, which the package carries: `t2i models` shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("figures.json")
"""The figures: model -> [all right, low, high]. `pages.write_figures` writes it."""


class Figure(NamedTuple):
    """The headline score of a model, in percent.

    Attributes:
        all_right: Share of the one-object captions whose image is all right.
        low: Lower end of the 95 % interval; of several seeds, the lowest score.
        high: The upper end, or the highest score.
    """

    all_right: float
    low: float
    high: float


@cache
def figures() -> Mapping[str, Figure]:
    """Read the figures.

    Returns:
        The figure of each model that has a row on the board.
    """
    document = json.loads(FILE.read_text("utf-8"))
    return {model: Figure(*numbers) for model, numbers in document.items()}
