"""How far raters agree on the same images: Krippendorff's alpha, as evalica computes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

EVALICA = "agreement needs evalica: pip install 't2i-zoo[votes]'"


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha of votes on the same images.

    Args:
        alpha: 1: all agree; 0: as by chance; below: less than by chance. None: it is not known.
        scale: "nominal": two answers agree or do not; "ordinal": near grades disagree less.
        units: Number of images, or pairs of images, that several raters voted on.
        reason: Why alpha is not known. Empty if it is.
    """

    alpha: float | None
    scale: Literal["nominal", "ordinal"]
    units: int
    reason: str = ""


def krippendorff(
    answers: Iterable[tuple[str, object, float]], scale: Literal["nominal", "ordinal"]
) -> Agreement:
    """Compute Krippendorff's alpha.

    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability.

    Args:
        answers: The rater, what was rated, and the answer as a number. Of several answers of a
            rater on the same thing, the last counts.
        scale: As for `Agreement`.

    Returns:
        The agreement. Alpha is not known if no two raters rated the same thing, if all answers are
        equal, or without the package evalica.
    """
    by_unit: dict[object, dict[str, float]] = {}
    for rater, unit, answer in answers:
        by_unit.setdefault(unit, {})[rater] = answer
    shared = [given for given in by_unit.values() if len(given) > 1]
    if not shared:
        return Agreement(None, scale, 0, "no two raters voted on the same images")
    if len({answer for given in shared for answer in given.values()}) < 2:
        return Agreement(None, scale, len(shared), "all answers are the same")
    if find_spec("evalica") is None:
        return Agreement(None, scale, len(shared), EVALICA)
    from evalica import alpha
    from pandas import DataFrame

    return Agreement(float(alpha(DataFrame(shared).T, scale).alpha), scale, len(shared))
