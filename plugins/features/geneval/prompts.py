"""GenEval's prompts, with the objects that an image of each must show.

Source: Ghosh et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import read_file
from t2i.core.io.tables import read_table
from t2i.plugins.common.text.readable import plain

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""Kinds of prompts, in the order of the paper's tables."""

COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
"""Colours that are told apart."""

POSITIONS = ("left of", "right of", "above", "below")

CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "computer mouse", "tv remote",
    "computer keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's 80 classes in the order of a detector's labels, by the names that the prompts use."""


@dataclass(frozen=True)
class Objects:
    """Objects of one class that an image must show, or must not.

    Args:
        name: The class, one of `CLASSES`.
        count: How many there must be at least, from 1.
        colour: Their colour, one of `COLOURS`. None: any.
        position: One of `POSITIONS`, and which objects of the prompt they must be so to (their
            place in `Prompt.include`, from 0). None: anywhere.
    """

    name: str
    count: int
    colour: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True)
class Prompt:
    """What an image of a prompt must show.

    Args:
        tag: Kind of the prompt, one of `TAGS`.
        include: Objects that must all be there.
        exclude: Objects of which there must not be so many.
    """

    tag: str
    include: tuple[Objects, ...]
    exclude: tuple[Objects, ...] = ()


def read_prompts(path: Path) -> Mapping[str, Prompt]:
    """Read GenEval's file of prompts.

    Args:
        path: JSON lines with tag, prompt, include and, if need be, exclude.

    Returns:
        What an image must show, by the prompt with single spaces.

    Raises:
        UserError: The file cannot be read, or has another layout.
    """
    try:
        table = read_table(path.name, read_file(path, "prompts"), str(path))
    except OSError as error:
        raise UserError(f"prompts {path}: {error.strerror or error}") from None
    found: dict[str, Prompt] = {}
    for row in table.rows:
        try:
            found[plain(str(row.values["prompt"]))] = _prompt(row.values)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}, {row.place}: it says nothing that can be checked ({error}); 't2i fetch "
                "geneval-prompts' gets GenEval's own file"
            ) from None
    return found


def _prompt(values: Mapping[str, Any]) -> Prompt:
    """Convert one line of the file. Raises KeyError, TypeError or ValueError for another layout."""
    include = tuple(_objects(one, place) for place, one in enumerate(values["include"]))
    if not include:
        raise ValueError("include is empty")
    exclude = tuple(_objects(one, 0) for one in values.get("exclude") or ())
    return Prompt(_one_of(values["tag"], TAGS), include, exclude)


def _objects(values: Mapping[str, Any], place: int) -> Objects:
    """Convert the objects at a place of a list. They may refer to earlier ones."""
    count, colour, position = values["count"], values.get("color"), values.get("position")
    if type(count) is not int or count < 1:
        raise ValueError(f"count is {count!r}")
    if position is not None:
        where, other = position
        if other not in range(place):
            raise ValueError(f"position refers to {other!r}")
        position = (_one_of(where, POSITIONS), int(other))
    if colour is not None:
        colour = _one_of(colour, COLOURS)
    return Objects(_one_of(values["class"], CLASSES), count, colour, position)


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is unknown")
    return str(value)
