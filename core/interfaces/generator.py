"""Generators: what turns noise and text features into images. How it is called is fixed by its family."""

from __future__ import annotations

from abc import ABC
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import nn

from t2i.core.devices import device_of
from t2i.core.interfaces.text import TextFeatures

Tolerance = Literal["exact", "level", "statistical"]
"""How closely an image drawn alone equals the one drawn in a batch: to the bit, to one 8-bit level, or only as another
draw of the same distribution would (where rounding may turn a discrete choice, or grow over an optimisation)."""

TOLERANCES: tuple[Tolerance, ...] = ("exact", "level", "statistical")
"""All tolerances, the strictest first."""


class Generator(nn.Module, ABC):
    """Turns noise and text into images, float (B, 3, H, W) in [-1, 1]. Extend a family's class, not this one.

    Attributes:
        image_size: height and width of the images, pixels.
        family: registry name of the family; set by the family's class.
        tolerance: how closely images must agree across batch sizes; set by the family's class.
    """

    family: ClassVar[str]
    tolerance: Tolerance = "level"
    image_size: int

    def condition(self, text: TextFeatures) -> TextFeatures:
        """What the network needs of the text, computed once a request: text maps, projections, prefixes, priors.

        `forward` is given what this returns, at every step. A trainer calls it too, with gradients.

        Args:
            text: features of B captions, as the text encoder made them.

        Returns:
            Features of the same B captions; new tensors go into `extras`, first axis B. Default: the text itself.
        """
        return text

    def save_assets(self, folder: Path) -> None:
        """Writes what building needs beside the weights and the settings. Default: nothing."""

    @property
    def device(self) -> torch.device:
        return device_of(self)
