"""The data set `stripes`: each example is computed from (seed, split, index)."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from t2i.core.interfaces.dataset import Dataset, Example
from t2i.core.interfaces.noise import random_stream
from t2i_retrieval.config import StripesConfig

COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 200),
    "yellow": (235, 205, 60),
    "black": (20, 20, 20),
    "white": (240, 240, 240),
}
DIRECTIONS = ("horizontal", "vertical", "diagonal")
PERIODS = {"wide": 0.5, "narrow": 0.25}  # as a fraction of the image's side


class Stripes(Dataset):
    """Images of stripes in two colours.

    Captions do not say where the first stripe begins, so images of one caption differ in that.

    Args:
        config: The settings.
        split: "train", which is endless, or "val".
    """

    def __init__(self, config: StripesConfig, split: str) -> None:
        self.config, self.split = config, split
        self.image_size = config.image_size
        self.endless = split == "train"

    def __len__(self) -> int:
        return self.config.train_length if self.endless else self.config.val_length

    def __getitem__(self, index: int) -> Example:
        return self._example(index, 0)

    def variant(self, index: int, number: int) -> Example:
        """Return the same stripes with another beginning.

        Args:
            index: Index of the example.
            number: Number of the variant, from 1; each begins elsewhere.

        Returns:
            The variant.
        """
        return self._example(index, number)

    def _example(self, index: int, number: int) -> Example:
        what = random_stream("stripes", self.config.seed, self.split, index)
        first, second = what.choice(list(COLOURS), 2, replace=False)
        direction, width = str(what.choice(DIRECTIONS)), str(what.choice(list(PERIODS)))
        phase = random_stream(
            "stripes", self.config.seed, self.split, index, "phase", number
        ).random()
        image = self._drawn(COLOURS[first], COLOURS[second], direction, PERIODS[width], phase)
        captions = (
            f"{width} {direction} stripes of {first} and {second}",
            f"{first} and {second} stripes, {direction} and {width}",
        )
        key = f"{self.split}-{index:06d}" + (f"-{number}" if number else "")
        return Example(image, captions, key)

    def _drawn(
        self,
        first: tuple[int, ...],
        second: tuple[int, ...],
        direction: str,
        period: float,
        phase: float,
    ) -> np.ndarray:
        x = np.arange(self.image_size) / self.image_size
        across = {
            "horizontal": x[:, None] + 0 * x,
            "vertical": 0 * x[:, None] + x,
            "diagonal": x[:, None] + x,
        }
        on = (across[direction] / period + phase) % 1 < 0.5
        return np.where(on[..., None], np.array(first, np.uint8), np.array(second, np.uint8))

    def fingerprint(self) -> str:
        return "stripes-1-" + json.dumps(
            [self.split, self.config.model_dump(mode="json")], sort_keys=True
        )

    def vocabulary(self) -> Iterable[str]:
        """Return one text with every word that captions contain.

        Returns:
            The text.
        """
        return [" ".join((*COLOURS, *DIRECTIONS, *PERIODS, "stripes of and ,"))]
