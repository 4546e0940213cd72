"""The examples of a tar file: which of its members belong together.

Members with the same name up to the first dot form an example, as in the library WebDataset:
`a.jpg` and `a.txt`, or `a.input.jpg` and `a.output.txt`. But if the tar holds an image and a
caption whose names are the same up to the last dot, and have a dot before it (`v1.0.jpg` and
`v1.0.txt`), then dots belong to its keys, and all its names are split at the last dot. The endings
that the settings name are always split off whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from t2i.core.io.images import SUFFIXES
from t2i.plugins.datasets.webdataset.tar import (
    CUT,
    DAMAGED,
    DEVICE,
    ENDLESS,
    LINK,
    SPARSE,
    Member,
    members,
)

LARGEST = {"image": 1 << 28, "text": 1 << 20, "meta": 1 << 22}
"""Largest member of each kind that is read, in bytes."""

ENDINGS = {
    **{suffix[1:]: "image" for suffix in sorted(SUFFIXES)},
    **dict.fromkeys(("txt", "text", "caption"), "text"),
    "json": "meta",
}
"""Kind of a member by its ending. Of several texts of an example, the one with the first of these
endings is read."""

KEPT = 255  # number of bytes of a key that are kept, from its end
MANY = 30  # number of different endings from which on they are taken for parts of keys

TOO_LARGE, SEVERAL = ENDLESS + 1, ENDLESS + 2
PROBLEMS = {
    LINK: "its {0} is a link, which is not followed",
    DEVICE: "its {0} is no file, but a device",
    SPARSE: "its {0} is a sparse file",
    CUT: "its {0} is cut off: the tar ends within it",
    DAMAGED: "the tar is damaged from here on",
    TOO_LARGE: "its {0} is too large",
    SEVERAL: "several of its members could be the {0}; name one by its ending with data.{0}",
}
"""What is wrong with an example, as text with a place for the part that has the problem."""

HIDDEN = "hidden file of macOS or another system"


class Choice(NamedTuple):
    """The endings that the settings name, without the first dot.

    Attributes:
        image: Endings of images. (): those that are known.
        caption: Endings of captions. (): those that are known.
    """

    image: tuple[str, ...] = ()
    caption: tuple[str, ...] = ()


KNOWN = Choice()
"""The known endings."""


class Index(NamedTuple):
    """The examples of a tar file.

    Attributes:
        rows: An array of `row_type`, in the order in which the examples begin.
        endings: Number of members by ending, such as {"input.jpg": 40}.
        left: Number of members that no example has, by reason.
    """

    rows: np.ndarray
    endings: dict[str, int]
    left: dict[str, int]


def row_type(key_length: int) -> np.dtype:
    """Return the type of one row of an index.

    A row has the offset and size of each member of an example ("image", "text", "meta"; -1 if it
    has none), "problem" (key of PROBLEMS, or 0), "part" (which member has the problem), and "key".

    Args:
        key_length: Number of bytes of the longest key.

    Returns:
        The type.
    """
    return np.dtype(
        [(kind, "<i8", (2,)) for kind in LARGEST]
        + [("problem", "u1"), ("part", "u1"), ("key", f"S{key_length}")]
    )


def usable(rows: np.ndarray) -> np.ndarray:
    """Tell which examples have an image and what may hold a caption.

    Args:
        rows: Rows of an index.

    Returns:
        bool, one for each row.
    """
    told = (rows["text"][:, 0] >= 0) | (rows["meta"][:, 0] >= 0)
    sound: np.ndarray = (rows["problem"] == 0) & (rows["image"][:, 0] >= 0) & told
    return sound


def index_of(path: Path, choice: Choice = KNOWN) -> Index:
    """Index the examples of a tar file.

    Args:
        path: The file.
        choice: The endings that the settings name.

    Returns:
        The index.

    Raises:
        NoTar: The file is not a tar.
        OSError: It cannot be read.
    """
    left: Counter[str] = Counter()
    with open(path, "rb") as file:
        found = list(_parts(members(file), choice, left))
    examples = _grouped(found, choice, left)
    keys = [key.encode("utf-8", "surrogateescape")[-KEPT:] for key in examples]
    rows = np.empty(len(examples), row_type(max(map(len, keys), default=1)))
    for i, example in enumerate(examples.values()):
        rows[i] = (*map(example.place, LARGEST), *example.problem(), keys[i])
    return Index(rows, _endings(found), dict(left))


@dataclass(frozen=True)
class _Part:
    """A member, and its place in an example.

    Args:
        folder: Start of its name, up to and with the last "/".
        stem: What follows, up to the ending.
        ending: The rest, in lower case, without the dot before it.
        kind: "image", "text" or "meta"; "" if it is neither.
        fixed: Whether the settings name its ending, so that its key is certain.
        member: The member.
    """

    folder: str
    stem: str
    ending: str
    kind: str
    fixed: bool
    member: Member

    @property
    def key(self) -> str:
        return self.folder + self.stem

    @property
    def dotted(self) -> bool:
        return "." in self.stem

    def at_first_dot(self) -> _Part:
        """Return the same member, split at the first dot of its name."""
        if self.fixed or not self.dotted:
            return self
        stem, _, rest = self.stem.partition(".")
        return _Part(
            self.folder, stem, f"{rest.lower()}.{self.ending}", self.kind, False, self.member
        )


@dataclass
class _Example:
    """The members of one example by kind, and those that are one too many."""

    parts: dict[str, _Part] = field(default_factory=dict)
    several: str = ""

    @property
    def complete(self) -> bool:
        return "image" in self.parts and len(self.parts) > 1

    def place(self, kind: str) -> tuple[int, int]:
        """Return (offset, size) of a member; (-1, -1) if there is none of this kind."""
        part = self.parts.get(kind)
        return (part.member.offset, part.member.size) if part else (-1, -1)

    def problem(self) -> tuple[int, int]:
        """Return (key of PROBLEMS or 0, number of the kind that has it)."""
        kinds = list(LARGEST)
        if self.several:
            return SEVERAL, kinds.index(self.several)
        for kind, part in self.parts.items():
            problem = part.member.problem
            if problem or part.member.size > LARGEST[kind]:
                return problem or TOO_LARGE, kinds.index(kind)
        return 0, 0


def _parts(found: Iterable[Member], choice: Choice, left: Counter[str]) -> Iterator[_Part]:
    """Split the names of members; count those without a name that could be split."""
    for member in found:
        folder, slash, name = member.name.rpartition("/")
        if member.problem == ENDLESS:
            left["tar without an end, which may be cut off"] += 1
        elif member.problem == DAMAGED:
            yield _Part("", member.name, "", "image", True, member)
        elif name.startswith(".") or folder.rpartition("/")[2] == "__MACOSX":
            left[HIDDEN] += 1
        else:
            stem, ending, kind, fixed = _split(name, choice)
            yield _Part(folder and folder + slash, stem, ending, kind, fixed, member)


def _split(name: str, choice: Choice) -> tuple[str, str, str, bool]:
    """Split a name: (stem, ending, kind, whether the settings name the ending)."""
    lower = name.lower()
    for kind, endings in (("image", choice.image), ("text", choice.caption)):
        for ending in endings:
            if lower.endswith(f".{ending}") and len(name) > len(ending) + 1:
                told = "meta" if kind == "text" and ending.endswith("json") else kind
                return name[: -len(ending) - 1], ending, told, True
    stem, dot, last = lower.rpartition(".")
    if not dot:
        return name, "", "", False
    kind = ENDINGS.get(last, "")
    if (choice.image and kind == "image") or (choice.caption and kind in ("text", "meta")):
        kind = ""
    return name[: len(stem)], last, kind, False


def _grouped(parts: list[_Part], choice: Choice, left: Counter[str]) -> dict[str, _Example]:
    """Group members to examples by key; count those that no example has."""
    known = []
    for part in parts:
        if part.kind:
            known.append(part)
        else:
            left[f"neither an image nor a caption ({_shown(part.ending)})"] += 1
    examples = _by_key(known, choice, Counter())
    if any(example.complete and _first(example).dotted for example in examples.values()):
        extra = Counter[str]()
        for key in [key for key, example in examples.items() if _extra(key, example, examples)]:
            extra.update(_unused(part) for part in examples.pop(key).parts.values())
        kept = [part for part in known if part.key in examples]
        left.update(extra)
        return _by_key(kept, choice, left)
    return _by_key([part.at_first_dot() for part in known], choice, left)


def _by_key(parts: Iterable[_Part], choice: Choice, left: Counter[str]) -> dict[str, _Example]:
    """Choose the members of each example; count those that are one too many."""
    groups: dict[str, dict[str, list[_Part]]] = {}
    for part in parts:
        groups.setdefault(part.key, {}).setdefault(part.kind, []).append(part)
    order = [*choice.image, *choice.caption, *ENDINGS]
    examples = {}
    for key, kinds in groups.items():
        example = examples[key] = _Example()
        for kind, found in kinds.items():
            plain = [part for part in found if part.fixed or part.ending in ENDINGS]
            if kind == "text":
                plain.sort(key=lambda part: order.index(part.ending))
            example.parts[kind] = (plain or found)[0]
            if not plain and len(found) > 1:
                example.several = "image" if kind == "image" else "text"
            left.update(_unused(part) for part in found if part is not example.parts[kind])
    return examples


def _extra(key: str, example: _Example, examples: Mapping[str, _Example]) -> bool:
    """Tell whether an incomplete example is but a further member of a complete one."""
    if example.complete:
        return False
    part = _first(example)
    pieces = part.stem.split(".")
    starts = (".".join(pieces[:count]) for count in range(1, len(pieces)))
    return any(
        (other := examples.get(part.folder + start)) is not None and other.complete
        for start in starts
    )


def _first(example: _Example) -> _Part:
    return next(iter(example.parts.values()))


def _unused(part: _Part) -> str:
    what = "image" if part.kind == "image" else "caption"
    return f"one more {what} of an example ({_shown(part.ending.rpartition('.')[2])})"


def _shown(ending: str) -> str:
    return f".{ending}" if ending else "no ending"


def _endings(parts: Iterable[_Part]) -> dict[str, int]:
    """Count endings: from the first dot on, or if there are many such, from the last dot on."""
    named = [part for part in parts if part.member.problem != DAMAGED]
    counts = Counter(part.at_first_dot().ending for part in named)
    if len(counts) > MANY:
        counts = Counter(part.ending for part in named)
    return dict(counts.most_common(MANY))


def told_endings(indexes: Iterable[Index]) -> str:
    """List the endings in some tars, for a message.

    Args:
        indexes: Indexes of the tars.

    Returns:
        Such as ".jpg (40), .cap (39)".
    """
    counts: Counter[str] = Counter()
    for index in indexes:
        counts.update(index.endings)
    told = [f"{_shown(ending)} ({count})" for ending, count in counts.most_common(8)]
    return ", ".join([*told, *(["..."] if len(counts) > 8 else [])]) or "none"
