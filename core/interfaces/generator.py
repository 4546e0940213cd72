"""The base class of generators, the networks that turn noise and text features into images.

How a generator is called depends on its family (`t2i.core.families`).
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from t2i.core.devices import device_of
from t2i.core.interfaces.likelihood import Likelihood
from t2i.core.interfaces.text import TextFeatures

Tolerance = Literal["exact", "level", "statistical"]
"""How closely an image sampled alone must equal the same image sampled in a batch.

"exact": bit by bit. "level": each 8-bit value differs by one at most. "statistical": the image may
differ as another sample of the same distribution would, because rounding can change a discrete
choice or grow over an optimisation.
"""

TOLERANCES: tuple[Tolerance, ...] = ("exact", "level", "statistical")
"""All tolerances, from the strictest to the loosest."""


class Generator(nn.Module, ABC):
    """A network that turns noise and text into images, float (B, 3, H, W) in [-1, 1].

    A model extends the class of its family (such as `OneShotGenerator`), not this class.

    Attributes:
        family: Registry name of the family. The family's class sets it.
        tolerance: How closely images must agree across batch sizes. The family's class sets it.
        image_size: Height and width of the images, pixels.
        size_step: Height and width may each be any multiple of this number of pixels, at a
            request's wish (`Request.size`). None: images of `image_size` only.
    """

    family: ClassVar[str]
    tolerance: Tolerance = "level"
    image_size: int
    size_step: int | None = None

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Compute what the network needs of the text, once for each request.

        Examples are text maps, projections, prefixes and priors. Every call of `forward` receives
        the result. A trainer calls this method too, with gradients. By default the text is returned
        as it is.

        Args:
            text: Features of B captions, as the text encoder returned them.

        Returns:
            Features of the same B captions. New tensors go into `extras`, with first axis B.
        """
        return text

    def save_assets(self, folder: Path) -> None:
        """Write the files that building the generator needs beside its weights and settings.

        By default nothing is written.

        Args:
            folder: An existing folder. `ModelSpec.generator` receives it as `assets` when the model
                is loaded.
        """

    def likelihood(self, settings: Mapping[str, Any]) -> Likelihood | None:
        """Make the log-likelihood of images under this generator, if it computes one itself.

        It is called if the model's specification names no likelihood (`ModelSpec.likelihood`).

        Args:
            settings: Settings of the likelihood by name.

        Returns:
            The likelihood. None (the default): it computes none.

        Raises:
            UserError: A setting is unknown or wrong.
        """
        return None

    @property
    def device(self) -> torch.device:
        """The device of the parameters, or of the buffers if there are no parameters."""
        return device_of(self)
