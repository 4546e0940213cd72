"""What an image shows against what its caption claims."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from t2i.core.errors import UserError
from t2i.plugins.datasets.shapes.grammar import KINDS, Claims, Obj, parse
from t2i.plugins.datasets.shapes.reader import SeenObject, SeenScene, read_scenes

ATTRIBUTES = ("shape", "colour", "size", "position", "relation", "count", "background", "all")
# Over all captions, and by kind of caption: "one.all", "two.relation", ...
SCORES = (*ATTRIBUTES, *(f"{kind}.{attribute}" for kind in KINDS for attribute in ATTRIBUTES))
MIN_SHIFT = 4.0  # units of 1/32 of the side, that "left of" asks for
MAX_MATCHED = (
    5  # objects that are tried against the claims; an image with more has the wrong count anyway
)


def score(image: NDArray[np.generic], caption: str) -> dict[str, bool]:
    """Whether each attribute that `caption` claims is right in `image` (H, W, 3), and "all": everything is, no object
    is missing and none too many. Of several objects an attribute is right if it is for each. Raises UserError for a
    caption that the grammar does not write."""
    return score_batch(np.asarray(image)[None], [caption])[0]


def score_batch(images: NDArray[np.generic], captions: Sequence[str]) -> list[dict[str, bool]]:
    """`score` of N images (N, H, W, 3) and their N captions."""
    if len(images) != len(captions):
        raise ValueError(
            f"{len(images)} images cannot be scored with {len(captions)} captions: give one for each"
        )
    claims = [_claims(caption) for caption in captions]
    return [
        compare(scene, claim)
        for scene, claim in zip(read_scenes(np.asarray(images)), claims, strict=True)
    ]


def _claims(caption: str) -> Claims:
    claims = parse(caption)
    if claims is None:
        raise UserError(
            f"caption {caption!r} is none that shapes writes: nothing to score; try 'a large red star'"
        )
    return claims


def compare(scene: SeenScene, claims: Claims) -> dict[str, bool]:
    """The claims that hold, with the objects matched so that most of them do."""
    seen: list[SeenObject | None] = [
        *sorted(scene.objects, key=lambda obj: obj.misfit)[:MAX_MATCHED]
    ]
    seen += [None] * max(0, len(claims.objects) - len(seen))
    matches = (
        _compare_objects(chosen, claims)
        for chosen in itertools.permutations(seen, len(claims.objects))
    )
    verdict = max(matches, key=lambda held: (all(held.values()), sum(held.values())))
    told = all(
        obj.position is not None for obj in scene.objects
    )  # mush is no object, and no absence of one either
    verdict["count"] = told and len(scene.objects) == len(claims.objects)
    if claims.background is not None:
        verdict["background"] = scene.background == claims.background
    verdict["all"] = all(verdict.values())
    return verdict


def _compare_objects(chosen: Sequence[SeenObject | None], claims: Claims) -> dict[str, bool]:
    """The attributes and the relation, for one way to match what is seen with what is claimed."""
    pairs = list(zip(chosen, claims.objects, strict=True))
    held = {}
    for attribute in ("shape", "colour", "size", "position"):
        if getattr(claims.objects[0], attribute) is not None:
            held[attribute] = all(_agrees(seen, claimed, attribute) for seen, claimed in pairs)
    if claims.relation is not None:
        held["relation"] = _related(chosen[0], chosen[1], claims.relation)
    return held


def _agrees(seen: SeenObject | None, claimed: Obj, attribute: str) -> bool:
    return seen is not None and getattr(seen, attribute) == getattr(claimed, attribute)


def _related(a: SeenObject | None, b: SeenObject | None, relation: str) -> bool:
    if a is None or b is None or a.position is None or b.position is None:
        return False
    shift = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
    return shift[relation] >= MIN_SHIFT


class Tally:
    """Accuracies over many images, in percent, by attribute and by kind of caption."""

    def __init__(self) -> None:
        self._held: dict[str, int] = defaultdict(int)
        self._asked: dict[str, int] = defaultdict(int)

    def add(self, verdicts: Sequence[Mapping[str, bool]], captions: Sequence[str]) -> None:
        """Counts the verdicts of `score_batch`."""
        for verdict, caption in zip(verdicts, captions, strict=True):
            kind = _claims(caption).kind
            for attribute, held in verdict.items():
                for key in (attribute, f"{kind}.{attribute}"):
                    self._held[key] += held
                    self._asked[key] += 1

    def summary(self) -> dict[str, float]:
        """Percentages by name, of those SCORES that some caption claims."""
        return {key: 100 * held / asked for key, (held, asked) in self.counts().items()}

    def counts(self) -> dict[str, tuple[int, int]]:
        """How many images are right, out of how many that were asked, by name."""
        return {key: (self._held[key], self._asked[key]) for key in SCORES if self._asked[key]}
