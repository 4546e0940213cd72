"""The metric `geneval`: how often images show the objects that GenEval's prompts name.

Source: Ghosh et al. 2023.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import (
    ImageBatch,
    Intervals,
    Metric,
    Scores,
    proportion_interval,
)
from t2i.plugins.features.geneval.config import GenevalConfig
from t2i.plugins.features.geneval.prompts import TAGS
from t2i.plugins.features.geneval.rules import COUNTING_THRESHOLD, MARGIN, MOST, THRESHOLD

OVERALL = "geneval"


class Geneval(Metric):
    """GenEval's scores, in percent.

    Each tag of `TAGS` has the share of its images that show what their prompts name. `geneval` is
    the mean of the six; it is left out if a tag has no image.

    Args:
        config: The settings.
    """

    better = MappingProxyType(dict.fromkeys((OVERALL, *TAGS), "higher"))
    titles = MappingProxyType({OVERALL: "GenEval %"})
    text = True

    def __init__(self, config: GenevalConfig) -> None:
        self.features: str = config.features
        self._right: dict[str, dict[int, list[bool]]] = {tag: {} for tag in TAGS}

    def update(self, images: ImageBatch) -> None:
        marks = images.features[self.features]
        if marks.shape[1] != len(TAGS):
            raise UserError(
                f"metric 'geneval': the features '{self.features}' are {marks.shape[1]} numbers, "
                f"not one for each of {len(TAGS)} tags: use the features 'geneval'"
            )
        for group, row in zip(images.groups, marks.tolist(), strict=True):
            for tag, mark in zip(TAGS, row, strict=True):
                if mark:
                    self._right[tag].setdefault(group, []).append(mark > 0)

    def compute(self) -> Scores:
        every = {tag: [one for each in by.values() for one in each] for tag, by in self._seen()}
        scores = {tag: 100 * sum(each) / len(each) for tag, each in every.items()}
        if len(scores) < len(TAGS):
            return scores
        return {OVERALL: sum(scores.values()) / len(TAGS), **scores}

    def intervals(self) -> Intervals:
        found = {tag: _interval(by) for tag, by in self._seen()}
        if len(found) < len(TAGS):
            return found
        return {OVERALL: _of_mean(self.compute(), found), **found}

    def _seen(self) -> list[tuple[str, dict[int, list[bool]]]]:
        """Return the tags that have images, with what their images show, by prompt."""
        return [(tag, by) for tag, by in self._right.items() if by]

    def protocol(self) -> dict[str, Any]:
        return {
            "threshold": THRESHOLD,
            "counting_threshold": COUNTING_THRESHOLD,
            "most_objects": MOST,
            "margin": MARGIN,
        }

    def warnings(self, scores: Scores, real: Scores | None) -> list[str]:
        if OVERALL in scores:
            return []
        lacking = ", ".join(tag for tag in TAGS if tag not in scores)
        return [f"no GenEval score over all tags: there are no images of {lacking}"]


def _interval(by_prompt: dict[int, list[bool]]) -> tuple[float, float]:
    """Return the interval of a tag. Images of one prompt are not independent."""
    right = sum(sum(each) / len(each) for each in by_prompt.values())
    return proportion_interval(right, len(by_prompt))


def _of_mean(scores: Scores, intervals: Intervals) -> tuple[float, float]:
    """Return the interval of the mean of the tags, from the intervals of each.

    The distances to each end are added as squares, because the tags are independent.

    Source: Zou and Donner 2008.
    """
    below = math.hypot(*(scores[tag] - low for tag, (low, _) in intervals.items()))
    above = math.hypot(*(high - scores[tag] for tag, (_, high) in intervals.items()))
    mean, count = scores[OVERALL], len(intervals)
    return mean - below / count, mean + above / count


def build(config: GenevalConfig) -> Geneval:
    """Build the metric `geneval`.

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return Geneval(config)
