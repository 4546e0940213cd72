"""The data set `shapes`, whose examples are a function of (seed, split, index) alone."""

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import replace

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Dataset, Example
from t2i.plugins.datasets.shapes import grammar
from t2i.plugins.datasets.shapes.config import ShapesConfig
from t2i.plugins.datasets.shapes.draws import Draws
from t2i.plugins.datasets.shapes.grammar import Scene
from t2i.plugins.datasets.shapes.render import render

SPLITS = ("train", "val", "compositions")
VERSION = 1  # to be raised whenever the same settings give other images or captions


class Shapes(Dataset):
    """Images of simple shapes with English captions.

    The split `train` is endless, unless the settings say otherwise. `val` has the same kinds of
    scenes from another random stream, and its captions state all attributes. `compositions` is like
    `val`, but each scene has a combination of attributes that neither of the others ever shows.

    Args:
        config: Settings.
        split: "train", "val" or "compositions".

    Raises:
        UserError: There is no such split.
    """

    def __init__(self, config: ShapesConfig, split: str) -> None:
        if split not in SPLITS:
            raise UserError(f"shapes has no split {split!r}: name one of {', '.join(SPLITS)}")
        self.config = config
        self.split = split
        self.image_size = config.image_size
        self.endless = split == "train" and config.endless
        self.grammar = grammar.FULL if config.grammar == "full" else grammar.SIMPLE
        self._kinds = _kinds(config)

    def __len__(self) -> int:
        return self.config.train_length if self.split == "train" else self.config.val_length

    def __getitem__(self, index: int) -> Example:
        """Render one example.

        Args:
            index: Any number >= 0; in a split that is not endless, numbers beyond its length are
                legal too.

        Returns:
            The example, with an image uint8 (image_size, image_size, 3).

        Raises:
            IndexError: The index is negative.
        """
        scene, draws = self._draw(index)
        image = render(scene, draws, self.image_size)
        partial = self.config.partial_captions if self.split == "train" else 0.0
        captions = grammar.captions_of(scene, draws, self.config.captions_per_image, partial)
        return Example(image=image, captions=captions, key=f"{self.split}-{index:06d}")

    def scene(self, index: int) -> Scene:
        """Return what the image of one example shows.

        Args:
            index: Index of the example, >= 0.

        Returns:
            The scene.
        """
        return self._draw(index)[0]

    def variant(self, index: int, number: int) -> Example:
        """Render the scene of an example again, with another jitter of places, sizes and colours.

        Args:
            index: Index of the example.
            number: Number of the variant, from 1 on; the same number gives the same image.

        Returns:
            An example with the same captions.
        """
        original, scene = self[index], self.scene(index)
        # The random streams of variants do not overlap with those of the splits.
        draws = Draws(self.config.seed, SPLITS.index(self.split) + len(SPLITS) * number, index)
        return replace(
            original, image=render(scene, draws, self.image_size), key=f"{original.key}-{number}"
        )

    def fingerprint(self) -> str:
        """Return a hash of everything that determines the examples of this split."""
        own = self.config.model_dump(mode="json", exclude={"max_broken", "few_broken"})
        # No folder is read. The key stays, because scores of before must stay comparable.
        settings = {"version": VERSION, "split": self.split, **own, "dir": None}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def vocabulary(self) -> Iterable[str]:
        """Return captions that together use every word and phrasing of the full grammar."""
        return grammar.every_phrase()

    def _draw(self, index: int) -> tuple[Scene, Draws]:
        """Draw a scene, and return it with the random numbers that its image and captions use."""
        if index < 0:
            raise IndexError(
                f"shapes: index {index} of split {self.split} is negative: count from 0"
            )
        draws = Draws(self.config.seed, SPLITS.index(self.split), index)
        at = draws.uniform()
        kind = next(kind for kind, upper in self._kinds if at < upper)
        return grammar.draw_scene(
            draws, self.grammar, kind, held_out=self.split == "compositions"
        ), draws


def _kinds(config: ShapesConfig) -> tuple[tuple[str, float], ...]:
    """Return each kind of scene with the upper end of its share of [0, 1)."""
    shares, total = config.shares, sum(config.shares.values())
    uppers = itertools.accumulate(shares.values())
    # The last end is 2, so that rounding cannot leave a gap below 1.
    return tuple(
        (kind, upper / total if upper < total else 2.0)
        for kind, upper in zip(shares, uppers, strict=True)
    )


def build(config: ShapesConfig, split: str) -> Shapes:
    """Build one split.

    Args:
        config: Settings.
        split: "train", "val" or "compositions".

    Returns:
        The data set.

    Raises:
        UserError: There is no such split.
    """
    return Shapes(config, split)
