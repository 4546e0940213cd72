"""Comparison of what an image shows with what its caption claims."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from t2i.core.errors import UserError
from t2i.plugins.datasets.shapes.grammar import KINDS, Claims, Obj, parse
from t2i.plugins.datasets.shapes.reader import SeenObject, SeenScene, read_scenes

ATTRIBUTES = ("shape", "colour", "size", "position", "relation", "count", "background", "all")
# Scores over all captions, and by kind of caption: "one.all", "two.relation", ...
SCORES = (*ATTRIBUTES, *(f"{kind}.{attribute}" for kind in KINDS for attribute in ATTRIBUTES))
MIN_SHIFT = 4.0  # smallest distance that counts as "left of", in units of 1/32 of the side
# Largest number of objects that are matched with the claims. An image with more has the wrong count
# anyway.
MAX_MATCHED = 5


def score(image: NDArray[np.generic], caption: str) -> dict[str, bool]:
    """Check one image against its caption.

    Args:
        image: uint8 (H, W, 3), or float in [-1, 1]; H = W.
        caption: A caption of the grammar.

    Returns:
        Whether each attribute that the caption claims is right, by name. With several objects, an
        attribute is right if it is right for each. "all": everything is right, no object is missing
        and none too many.

    Raises:
        UserError: The caption is not one of the grammar.
    """
    return score_batch(np.asarray(image)[None], [caption])[0]


def score_batch(images: NDArray[np.generic], captions: Sequence[str]) -> list[dict[str, bool]]:
    """Check images against their captions, as `score` does.

    Args:
        images: N images, uint8 (N, H, W, 3), or float in [-1, 1]; H = W.
        captions: Their N captions.

    Returns:
        One verdict for each image.

    Raises:
        UserError: A caption is not one of the grammar.
        ValueError: There are not as many captions as images, or the images have another format.
    """
    if len(images) != len(captions):
        raise ValueError(
            f"{len(images)} images cannot be scored with {len(captions)} captions: "
            "give one for each"
        )
    claims = [_claims(caption) for caption in captions]
    return [
        compare(scene, claim)
        for scene, claim in zip(read_scenes(np.asarray(images)), claims, strict=True)
    ]


def _claims(caption: str) -> Claims:
    """Parse a caption; a UserError says that it is not one of the grammar."""
    claims = parse(caption)
    if claims is None:
        raise UserError(
            f"caption {caption!r} is not one of the grammar of shapes: nothing to score; try "
            "'a large red star'"
        )
    return claims


def compare(scene: SeenScene, claims: Claims) -> dict[str, bool]:
    """Compare a scene with the claims of a caption.

    Args:
        scene: What the image shows.
        claims: What the caption claims.

    Returns:
        Whether each claim holds, by name (see `score`). Objects are matched with claims in the way
        in which most claims hold.
    """
    seen: list[SeenObject | None] = [
        *sorted(scene.objects, key=lambda obj: obj.misfit)[:MAX_MATCHED]
    ]
    seen += [None] * max(0, len(claims.objects) - len(seen))
    matches = (
        _compare_objects(chosen, claims)
        for chosen in itertools.permutations(seen, len(claims.objects))
    )
    verdict = max(matches, key=lambda held: (all(held.values()), sum(held.values())))
    # A piece that cannot be read may hide any number of objects, so the count cannot be right.
    told = all(obj.position is not None for obj in scene.objects)
    verdict["count"] = told and len(scene.objects) == len(claims.objects)
    if claims.background is not None:
        verdict["background"] = scene.background == claims.background
    verdict["all"] = all(verdict.values())
    return verdict


def _compare_objects(chosen: Sequence[SeenObject | None], claims: Claims) -> dict[str, bool]:
    """Return which attributes, and whether the relation, hold for one way to match the objects."""
    pairs = list(zip(chosen, claims.objects, strict=True))
    held = {}
    for attribute in ("shape", "colour", "size", "position"):
        if getattr(claims.objects[0], attribute) is not None:
            held[attribute] = all(_agrees(seen, claimed, attribute) for seen, claimed in pairs)
    if claims.relation is not None:
        held["relation"] = _related(chosen[0], chosen[1], claims.relation)
    return held


def _agrees(seen: SeenObject | None, claimed: Obj, attribute: str) -> bool:
    """Return whether an object was seen and has the claimed attribute."""
    return seen is not None and getattr(seen, attribute) == getattr(claimed, attribute)


def _related(a: SeenObject | None, b: SeenObject | None, relation: str) -> bool:
    """Return whether two objects were seen and have the claimed relation."""
    if a is None or b is None or a.position is None or b.position is None:
        return False
    shift = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
    return shift[relation] >= MIN_SHIFT


class Tally:
    """Counts of right claims over many images, by attribute and by kind of caption."""

    def __init__(self) -> None:
        self._held: dict[str, int] = defaultdict(int)
        self._asked: dict[str, int] = defaultdict(int)

    def add(self, verdicts: Sequence[Mapping[str, bool]], captions: Sequence[str]) -> None:
        """Add verdicts.

        Args:
            verdicts: N verdicts of `score_batch`.
            captions: The N captions that they are about.
        """
        for verdict, caption in zip(verdicts, captions, strict=True):
            kind = _claims(caption).kind
            for attribute, held in verdict.items():
                for key in (attribute, f"{kind}.{attribute}"):
                    self._held[key] += held
                    self._asked[key] += 1

    def summary(self) -> dict[str, float]:
        """Compute the accuracies.

        Returns:
            Percentages by name, of those SCORES that some caption claims.
        """
        return {key: 100 * held / asked for key, (held, asked) in self.counts().items()}

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return the counts.

        Returns:
            (number of images that are right, number of images whose caption claims it), by name.
        """
        return {key: (self._held[key], self._asked[key]) for key in SCORES if self._asked[key]}
