"""A study: the images that people judge blindly, kept in a folder so that it outlives the page.

STUDY/study.json     the models, the items, the questions, and how it is asked
STUDY/images/        NUMBER-MODEL.png, pixels alone; they are sent inside the page, without names
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from t2i.benchmarks.votes.record import QUESTIONS
from t2i.core.errors import UserError
from t2i.core.io.documents import checked
from t2i.core.io.json_files import read_object, write_json

DOCUMENT = "study.json"
IMAGES = "images"

GRADED = {
    "overall": "How good is this image?",
    "faithful": "How much of the caption does this image show?",
    "real": "How real does this image look?",
}
"""The questions about one image, by their name in the votes (`QUESTIONS` has those of a pair)."""

SCALES = {
    "overall": ("bad", "rather bad", "middling", "rather good", "good"),
    "faithful": ("not at all", "a little", "half", "mostly", "completely"),
    "real": ("clearly made", "probably made", "cannot tell", "probably real", "clearly real"),
}
"""What the grades 0 to 4 mean, by question."""

Kind = Literal["pair", "scale"]
Names = Literal["after", "never"]


@dataclass(frozen=True)
class Item:
    """What the models have in common: a caption and a noise.

    Args:
        key: What the votes call it.
        caption: The caption. "": unknown.
    """

    key: str
    caption: str


@dataclass(frozen=True)
class Study:
    """Images of several models for the same captions, and what is asked about them.

    Args:
        name: Its name on the page.
        models: Names of the models, at least two for pairs.
        items: The items, at least one. Every model has an image of each.
        questions: Names of the questions (QUESTIONS), in the order in which they are asked.
        kind: "pair": which of two images; "scale": from 0 to 4 for each image.
        shown: Whether the models' names are shown after the vote, or never.
        sources: Where the images of each model come from, for the record, by model.
    """

    name: str
    models: tuple[str, ...]
    items: tuple[Item, ...]
    questions: tuple[str, ...] = ("overall",)
    kind: Kind = "pair"
    shown: Names = "after"
    sources: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        least = 2 if self.kind == "pair" else 1
        if len(set(self.models)) != len(self.models) or len(self.models) < least:
            raise UserError(f"study '{self.name}': choose at least {least} different models")
        if not self.items or len({item.key for item in self.items}) != len(self.items):
            raise UserError(f"study '{self.name}': it has no items, or one of them twice")
        if not self.questions or not set(self.questions) <= set(QUESTIONS):
            raise UserError(f"study '{self.name}': choose questions among {', '.join(QUESTIONS)}")

    @property
    def subjects(self) -> list[tuple[str, ...]]:
        """What is judged at a time: the pairs of models, or single models on scales."""
        if self.kind == "scale":
            return [(model,) for model in self.models]
        return list(combinations(self.models, 2))

    @property
    def votes_each(self) -> int:
        """Number of votes that one rater can give."""
        return len(self.subjects) * len(self.items) * len(self.questions)

    def write(self, folder: Path) -> None:
        """Write the document into the study's folder.

        Args:
            folder: The folder.
        """
        write_json(folder / DOCUMENT, {"format": 1, **asdict(self)})


def read_study(folder: Path) -> Study:
    """Read a study.

    Args:
        folder: Its folder.

    Returns:
        The study, named as its folder is.

    Raises:
        UserError: The document is missing or wrong.
    """
    from pydantic import TypeAdapter

    document = read_object(folder / DOCUMENT, f"study {folder}", finite=True)
    document.pop("format", None)
    remedy = "make the study again"
    return checked(TypeAdapter(Study), {**document, "name": folder.name}, f"study {folder}", remedy)


def list_studies(root: Path) -> list[str]:
    """List the studies in a folder.

    Args:
        root: The folder, which need not exist.

    Returns:
        Their names, the newest first.
    """
    found = [path for path in root.glob(f"*/{DOCUMENT}") if not path.parent.name.startswith(".")]
    found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [path.parent.name for path in found]


def image_path(folder: Path, study: Study, item: str, model: str) -> Path:
    """Give the file of an image.

    Args:
        folder: The study's folder.
        study: The study.
        item: Key of the item.
        model: Name of the model.

    Returns:
        The file.
    """
    number = next(n for n, one in enumerate(study.items) if one.key == item)
    return folder / IMAGES / image_name(number, study.models.index(model))


def image_name(item: int, model: int) -> str:
    """Name the file of an image.

    Args:
        item: Number of the item, from 0.
        model: Number of the model, from 0.

    Returns:
        The name.
    """
    return f"{item:05d}-{model:02d}.png"


def item_key(caption: str, sample: int, images: Sequence[bytes]) -> str:
    """Make the key of an item.

    It depends on the images' pixels: a study that is made again from the same models goes on with
    the same votes, and models that were trained longer begin anew.

    Args:
        caption: The caption.
        sample: Number of the image among those of its caption. The seed shows in the pixels.
        images: Hash of each model's image, in any order.

    Returns:
        16 hexadecimal digits.
    """
    told = json.dumps([caption, sample, sorted(digest.hex() for digest in images)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
