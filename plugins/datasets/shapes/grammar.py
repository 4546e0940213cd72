"""The grammar of `shapes`: scenes, their captions, and the claims that a caption makes.

Captions are written from a table of phrasings, and `parse` is built from the same table, so the two
always agree: `parse(caption)` gives exactly what the caption claims of its image, and None for any
other text.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from t2i.plugins.datasets.shapes.draws import Draws

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
# The cells of a 3x3 grid, row by row: POSITIONS[3 * row + column].
POSITIONS = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
BACKGROUNDS = ("black", "white", "grey")
DEFAULT_BACKGROUND = "black"
KINDS = ("one", "two", "three", "count")

# Combinations that no scene of train or val has. Each shape, colour and position still occurs in
# train. Some combinations are within the simple grammar, so that it has unseen ones too.
HELD_OUT_COLOUR_SHAPES = frozenset(
    {("purple", "circle"), ("orange", "square"), ("cyan", "triangle"), ("red", "star")}
)
HELD_OUT_SHAPE_POSITIONS = frozenset(
    {("circle", "bottom left"), ("square", "top right"), ("triangle", "center"), ("star", "top")}
)

# Synonyms; the first of each is the canonical one.
SIZE_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"small": ("small", "little"), "large": ("large", "big")}
)
POSITION_PHRASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "top left": ("in the top left corner", "at the top left"),
        "top": ("at the top",),
        "top right": ("in the top right corner", "at the top right"),
        "left": ("on the left",),
        "center": ("in the center", "in the middle"),
        "right": ("on the right",),
        "bottom left": ("in the bottom left corner", "at the bottom left"),
        "bottom": ("at the bottom",),
        "bottom right": ("in the bottom right corner", "at the bottom right"),
    }
)
RELATION_PHRASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "left of": ("left of", "to the left of"),
        "right of": ("right of", "to the right of"),
        "above": ("above",),
        "below": ("below", "under"),
    }
)
BACKGROUND_PHRASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: (f"on a {name} background", f"on {name}") for name in BACKGROUNDS}
)
COUNT_WORDS: Mapping[int, str] = MappingProxyType({2: "two", 3: "three"})


@dataclass(frozen=True)
class Obj:
    """One object of a scene, or what a caption claims of one.

    Args:
        shape: One of SHAPES.
        colour: One of COLOURS.
        size: One of SIZES. None: the caption does not state it.
        position: One of POSITIONS. None: the caption does not state it.
    """

    shape: str
    colour: str
    size: str | None = None
    position: str | None = None

    @property
    def held_out(self) -> bool:
        """Whether the object combines attributes that train never combines."""
        return (self.colour, self.shape) in HELD_OUT_COLOUR_SHAPES or (
            self.shape,
            self.position,
        ) in HELD_OUT_SHAPE_POSITIONS


@dataclass(frozen=True)
class Scene:
    """What an image shows.

    Args:
        kind: One of KINDS.
        objects: One to three objects, each with a size and a position.
        background: One of BACKGROUNDS.
    """

    kind: str
    objects: tuple[Obj, ...]
    background: str = DEFAULT_BACKGROUND

    @property
    def held_out(self) -> bool:
        """Whether any object combines attributes that train never combines."""
        return any(obj.held_out for obj in self.objects)

    @property
    def relation(self) -> str | None:
        """The direction of the first of two objects from the second, one of RELATION_PHRASES.

        It is None for scenes of other kinds, and where the objects are as far apart in one axis as
        in the other.
        """
        if self.kind != "two":
            return None
        (row_a, column_a), (row_b, column_b) = (cell_of(obj.position) for obj in self.objects)
        right, down = column_b - column_a, row_b - row_a
        if abs(right) == abs(down):
            return None
        if abs(right) > abs(down):
            return "left of" if right > 0 else "right of"
        return "above" if down > 0 else "below"


@dataclass(frozen=True)
class Claims:
    """What a caption says of its image. None means not said, and so not scored.

    Args:
        kind: One of KINDS.
        objects: The objects.
        relation: Direction of the first object from the second, one of RELATION_PHRASES.
        background: One of BACKGROUNDS.
    """

    kind: str
    objects: tuple[Obj, ...]
    relation: str | None = None
    background: str | None = None


@dataclass(frozen=True)
class Phrasing:
    """One sentence pattern.

    Args:
        kind: The kind of scene that it describes, one of KINDS.
        text: The sentence with slots. A slot is a letter and the object's number: n is an object
            with its size, m an object without its size, c a colour, s a shape, z a size, p a phrase
            for the position, l the bare name of the position. Two slots have no number: rel and
            count.
        full: Whether it states everything that a strict score needs.
    """

    kind: str
    text: str
    full: bool = True

    @property
    def relates(self) -> bool:
        """Whether the sentence states a relation."""
        return "{rel}" in self.text


PHRASINGS = (
    Phrasing("one", "{n0} {p0}"),
    Phrasing("one", "there is {n0} {p0}"),
    Phrasing("one", "{l0}: {n0}"),
    Phrasing("one", "{p0}, {n0}"),
    Phrasing("one", "the {c0} {s0} {p0} is {z0}"),
    Phrasing("one", "{n0}", full=False),
    Phrasing("one", "{m0} {p0}", full=False),
    Phrasing("one", "{m0}", full=False),
    Phrasing("two", "{n0} {p0} and {n1} {p1}"),
    Phrasing("two", "{l0}: {n0}, {l1}: {n1}"),
    Phrasing("two", "{n0} {rel} {n1}"),
    Phrasing("two", "there is {n0} {rel} {n1}"),
    Phrasing("two", "{n0} is {rel} {n1}"),
    Phrasing("two", "{m0} {rel} {m1}", full=False),
    Phrasing("two", "{n0} and {n1}", full=False),
    Phrasing("two", "{m0} {p0} and {m1} {p1}", full=False),
    Phrasing("three", "{n0} {p0}, {n1} {p1} and {n2} {p2}"),
    Phrasing("three", "there is {n0} {p0}, {n1} {p1} and {n2} {p2}"),
    Phrasing("three", "{l0}: {n0}, {l1}: {n1}, {l2}: {n2}"),
    Phrasing("three", "{n0}, {n1} and {n2}", full=False),
    Phrasing("count", "{count} {z0} {c0} {s0}s"),
    Phrasing("count", "there are {count} {z0} {c0} {s0}s"),
    Phrasing("count", "{count} {c0} {s0}s", full=False),
)


@dataclass(frozen=True)
class Grammar:
    """The choices that scenes are drawn from.

    Args:
        shapes: Some of SHAPES.
        positions: Some of POSITIONS.
        backgrounds: Some of BACKGROUNDS.
    """

    shapes: tuple[str, ...] = SHAPES
    positions: tuple[str, ...] = POSITIONS
    backgrounds: tuple[str, ...] = BACKGROUNDS

    def arrangements(self, count: int) -> tuple[tuple[str, ...], ...]:
        """List the ways to place some objects so that they cannot touch.

        Args:
            count: Number of objects.

        Returns:
            Ordered choices of `count` positions; any two of them are at opposite sides of the
            image.
        """
        return _arrangements(self.positions, count)


FULL = Grammar()
SIMPLE = Grammar(
    shapes=("circle", "square", "triangle"),
    positions=("top left", "top right", "center", "bottom left", "bottom right"),
    backgrounds=(DEFAULT_BACKGROUND,),
)


def cell_of(position: str | None) -> tuple[int, int]:
    """Return the cell of a named position.

    Args:
        position: One of POSITIONS.

    Returns:
        (row, column), each from 0 to 2.
    """
    return divmod(POSITIONS.index(str(position)), 3)


@lru_cache(maxsize=32)
def _arrangements(positions: tuple[str, ...], count: int) -> tuple[tuple[str, ...], ...]:
    """List the ordered choices of positions that are at opposite sides of the image."""

    def apart(a: str, b: str) -> bool:
        (row_a, column_a), (row_b, column_b) = cell_of(a), cell_of(b)
        return max(abs(row_a - row_b), abs(column_a - column_b)) == 2

    return tuple(
        chosen
        for chosen in itertools.permutations(positions, count)
        if all(apart(a, b) for a, b in itertools.combinations(chosen, 2))
    )


# --- drawing scenes -------------------------------------------------------------------------------


def draw_scene(draws: Draws, grammar: Grammar, kind: str, held_out: bool = False) -> Scene:
    """Draw a random scene.

    Args:
        draws: Random numbers.
        grammar: The choices.
        kind: The kind of scene, one of KINDS.
        held_out: Whether it has a held-out combination, one that every full caption names. If
            False, it has none.

    Returns:
        The scene.
    """
    background = draws.choice(grammar.backgrounds) if draws.uniform() < 0.5 else DEFAULT_BACKGROUND
    while True:  # rejection sampling: all scenes that qualify are equally likely
        objects = _draw_objects(draws, grammar, kind)
        distinct = kind == "count" or len({(obj.shape, obj.colour) for obj in objects}) == len(
            objects
        )
        if distinct and (
            _asks_for_unseen(kind, objects) if held_out else not any(o.held_out for o in objects)
        ):
            return Scene(kind, objects, background)


def _asks_for_unseen(kind: str, objects: tuple[Obj, ...]) -> bool:
    """Return whether every full caption of the objects names a held-out combination.

    Captions of several objects may leave out positions, so only colours and shapes count there.
    """
    if kind == "one":
        return objects[0].held_out
    return any((obj.colour, obj.shape) in HELD_OUT_COLOUR_SHAPES for obj in objects)


def _draw_objects(draws: Draws, grammar: Grammar, kind: str) -> tuple[Obj, ...]:
    """Draw the objects of a scene."""
    count = {"one": 1, "two": 2, "three": 3}.get(kind) or 2 + draws.below(2)
    cells = draws.choice(grammar.arrangements(count))
    if kind == "count":
        shape, colour, size = (
            draws.choice(grammar.shapes),
            draws.choice(COLOURS),
            draws.choice(SIZES),
        )
        return tuple(Obj(shape, colour, size, cell) for cell in cells)
    return tuple(
        Obj(draws.choice(grammar.shapes), draws.choice(COLOURS), draws.choice(SIZES), cell)
        for cell in cells
    )


# --- captions -------------------------------------------------------------------------------------


def captions_of(scene: Scene, draws: Draws, count: int, partial: float = 0.0) -> tuple[str, ...]:
    """Write captions of a scene.

    Args:
        scene: The scene.
        draws: Random numbers.
        count: Number of captions.
        partial: Probability that a caption leaves out sizes or positions, in [0, 1].

    Returns:
        The captions.
    """
    usable = _usable(scene.kind, scene.relation is not None)
    return tuple(
        write(draws.choice(usable[draws.uniform() >= partial]), scene, draws) for _ in range(count)
    )


@lru_cache(maxsize=16)
def _usable(kind: str, related: bool) -> tuple[tuple[Phrasing, ...], tuple[Phrasing, ...]]:
    """Return the phrasings that fit: (those that leave something out, those that say all)."""
    fitting = [p for p in PHRASINGS if p.kind == kind and (related or not p.relates)]
    return tuple(p for p in fitting if not p.full), tuple(p for p in fitting if p.full)


def write(phrasing: Phrasing, scene: Scene, draws: Draws) -> str:
    """Write one caption, with a random choice among synonyms.

    Args:
        phrasing: The sentence pattern, of the scene's kind.
        scene: The scene.
        draws: Random numbers.

    Returns:
        The caption.
    """
    slots = {"count": COUNT_WORDS.get(len(scene.objects), "")}
    if phrasing.relates:
        slots["rel"] = draws.choice(RELATION_PHRASES[str(scene.relation)])
    for number, obj in enumerate(scene.objects):
        size = draws.choice(SIZE_WORDS[str(obj.size)])
        slots |= {
            f"c{number}": obj.colour,
            f"s{number}": obj.shape,
            f"z{number}": size,
            f"n{number}": f"a {size} {obj.colour} {obj.shape}",
            f"m{number}": f"{'an' if obj.colour == 'orange' else 'a'} {obj.colour} {obj.shape}",
            f"p{number}": draws.choice(POSITION_PHRASES[str(obj.position)]),
            f"l{number}": str(obj.position),
        }
    text = phrasing.text.format_map(slots)
    # A background that is not named is the default one, which is seldom named.
    if scene.background != DEFAULT_BACKGROUND or draws.uniform() < 0.125:
        text += " " + draws.choice(BACKGROUND_PHRASES[scene.background])
    return text


def every_phrase() -> Iterator[str]:
    """List captions that together use every word and phrasing of the grammar.

    Yields:
        The captions.
    """
    words = max(len(COLOURS), len(POSITIONS))
    for turn, phrasing in itertools.product(range(2 * words), PHRASINGS):
        count = {"one": 1, "two": 2, "three": 3, "count": 2 + turn % 2}[phrasing.kind]
        draws = Draws(turn, 0, 0)
        objects = tuple(
            Obj(
                SHAPES[(turn + n) % 4],
                COLOURS[(turn + n) % 8],
                SIZES[(turn + n) % 2],
                POSITIONS[(turn + 3 * n) % 9],
            )
            for n in range(count)
        )
        if not phrasing.relates:
            yield write(phrasing, Scene(phrasing.kind, objects, BACKGROUNDS[turn % 3]), draws)
    for relation, background in itertools.product(
        RELATION_PHRASES.values(), BACKGROUND_PHRASES.values()
    ):
        yield from (
            f"a red circle {a} a blue star {b}" for a, b in itertools.product(relation, background)
        )


# --- parsing of captions --------------------------------------------------------------------------


def _inverse(words: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the name that each synonym stands for."""
    return {word: name for name, synonyms in words.items() for word in synonyms}


_SIZE_OF = _inverse(SIZE_WORDS)
_POSITION_OF = _inverse(POSITION_PHRASES) | {name: name for name in POSITIONS}
_RELATION_OF = _inverse(RELATION_PHRASES)
_BACKGROUND_OF = _inverse(BACKGROUND_PHRASES)
_COUNT_OF = {word: number for number, word in COUNT_WORDS.items()}


def _either(words: Sequence[str] | Mapping[str, object]) -> str:
    """Return a regular expression for any of the words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _slot_pattern(slot: str) -> str:
    """Return the regular expression of a slot, with groups named by attribute and object number."""
    if slot == "rel":
        return f"(?P<rel>{_either(_RELATION_OF)})"
    if slot == "count":
        return f"(?P<count>{_either(_COUNT_OF)})"
    attribute, number = slot[0], slot[1:]
    size, colour = f"(?P<z{number}>{_either(_SIZE_OF)})", f"(?P<c{number}>{_either(COLOURS)})"
    shape = f"(?P<s{number}>{_either(SHAPES)})"
    patterns = {
        "n": f"a {size} {colour} {shape}",
        "m": f"an? {colour} {shape}",
        "c": colour,
        "s": shape,
        "z": size,
        "p": f"(?P<p{number}>{_either(_inverse(POSITION_PHRASES))})",
        "l": f"(?P<p{number}>{_either(POSITIONS)})",
    }
    return patterns[attribute]


def _pattern(phrasing: Phrasing) -> re.Pattern[str]:
    """Return the regular expression of a phrasing, with or without a background."""
    body = re.sub(r"\{(\w+)\}", lambda match: _slot_pattern(match[1]), phrasing.text)
    return re.compile(f"{body}(?: (?P<background>{_either(_BACKGROUND_OF)}))?")


_PATTERNS = tuple((phrasing, _pattern(phrasing)) for phrasing in PHRASINGS)


@lru_cache(maxsize=65536)
def parse(caption: str) -> Claims | None:
    """Read what a caption claims of its image.

    Args:
        caption: Any text. Letter case, runs of blanks and a full stop at the end do not matter.

    Returns:
        The claims; None if the text is not a caption of this grammar.
    """
    text = " ".join(caption.lower().split()).removesuffix(".")
    for phrasing, pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match:
            return _claims(phrasing.kind, match.groupdict())
    return None


def _claims(kind: str, found: Mapping[str, str | None]) -> Claims:
    """Build the claims from the groups of a match."""
    count = {"one": 1, "two": 2, "three": 3}.get(kind) or _COUNT_OF[str(found["count"])]
    numbers = [0] * count if kind == "count" else range(count)
    objects = tuple(
        Obj(
            shape=str(found[f"s{n}"]),
            colour=str(found[f"c{n}"]),
            size=_SIZE_OF.get(str(found.get(f"z{n}"))),
            position=_POSITION_OF.get(str(found.get(f"p{n}"))),
        )
        for n in numbers
    )
    return Claims(
        kind,
        objects,
        relation=_RELATION_OF.get(str(found.get("rel"))),
        background=_BACKGROUND_OF.get(str(found["background"])),
    )
