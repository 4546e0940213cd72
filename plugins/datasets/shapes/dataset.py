"""The data set: an example is a function of (seed, split, index)."""

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
VERSION = 1  # raise it whenever the same settings give other images or captions


class Shapes(Dataset):
    """Images of simple shapes and what they show in English.

    `train` is endless, unless the settings say otherwise; `val` is drawn like it from other seeds, and every caption
    states all attributes; `compositions` is like `val`, but each scene holds a combination that neither of the others
    ever shows.
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
        """The example of any index >= 0: its image is uint8 (image_size, image_size, 3)."""
        scene, draws = self._draw(index)
        image = render(scene, draws, self.image_size)
        partial = self.config.partial_captions if self.split == "train" else 0.0
        captions = grammar.captions_of(scene, draws, self.config.captions_per_image, partial)
        return Example(image=image, captions=captions, key=f"{self.split}-{index:06d}")

    def scene(self, index: int) -> Scene:
        """What the image of that index shows."""
        return self._draw(index)[0]

    def variant(self, index: int, number: int) -> Example:
        """The same scene and captions as example `index`, drawn anew: places, sizes and colours jitter."""
        original, scene = self[index], self.scene(index)
        # Streams of variants lie beyond those of the splits.
        draws = Draws(self.config.seed, SPLITS.index(self.split) + len(SPLITS) * number, index)
        return replace(
            original, image=render(scene, draws, self.image_size), key=f"{original.key}-{number}"
        )

    def fingerprint(self) -> str:
        """A hash of all that decides the examples of this split."""
        own = self.config.model_dump(mode="json", exclude={"max_broken"})
        settings = {"version": VERSION, "split": self.split, **own}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def vocabulary(self) -> Iterable[str]:
        """Captions that together use every word and phrasing of the full grammar."""
        return grammar.every_phrase()

    def _draw(self, index: int) -> tuple[Scene, Draws]:
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
    """Each kind of scene with the upper end of its share of [0, 1)."""
    shares, total = config.shares, sum(config.shares.values())
    uppers = itertools.accumulate(shares.values())
    # Above 1 for the last, whatever rounding does.
    return tuple(
        (kind, upper / total if upper < total else 2.0)
        for kind, upper in zip(shares, uppers, strict=True)
    )


def build(config: ShapesConfig, split: str) -> Shapes:
    """The split `split` ("train", "val" or "compositions")."""
    return Shapes(config, split)
