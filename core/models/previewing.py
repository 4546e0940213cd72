"""Previews: the images that a model expects, while it samples them.

They are read off the network's own calls, so that samplers know nothing of previews and nothing is
computed where there are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.discrete import DiscreteDiffusionGenerator
from t2i.core.families.prediction import predicted_x_0
from t2i.core.interfaces.generator import Generator
from t2i.core.io.images import to_bytes

IMAGE_AXES = 3
"""Axes of one noisy image or latent. Embeddings of a prior have fewer."""


class Previews:
    """The last call of a diffusion network, from which the images so far are computed.

    Attributes:
        call: The generator, its inputs x_t and t, and its output. None: it was not called yet.
    """

    call: tuple[Generator, torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def images(self, count: int) -> np.ndarray | None:
        """Compute the images that the network expects at the step that it is at.

        Args:
            count: The most images, at least 1. They are the last ones of the batch. With
                classifier-free guidance they are what the caption alone leads to.

        Returns:
            The images, uint8 (B, H, W, 3). None: there is nothing to show yet.
        """
        if self.call is None:
            return None
        generator, *tensors = self.call
        x_t, t, output = (tensor[-count:] for tensor in tensors)
        with torch.no_grad():
            if isinstance(generator, DiscreteDiffusionGenerator):
                known = x_t < generator.vocabulary
                return to_bytes(generator.decode(torch.where(known, x_t, output.argmax(-1))))
            assert isinstance(generator, DiffusionGenerator)
            x_0 = predicted_x_0(generator.schedule, generator.prediction, x_t, t, output)
            return to_bytes(generator.decode(x_0.nan_to_num(0, 0, 0)))

    def _seen(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep a call of a network: a hook of torch."""
        if len(inputs) >= 2 and isinstance(output, torch.Tensor):
            self.call = (module, inputs[0], inputs[1], output)


@contextmanager
def previews(generator: Generator) -> Iterator[Previews]:
    """Watch a generator within the block.

    Args:
        generator: Any generator. Those that do not sample images by diffusion have no previews; of
            a cascade, each part has.

    Yields:
        What was seen.
    """
    seen = Previews()
    with ExitStack() as stack:
        for module in generator.modules():
            pixels = isinstance(module, DiffusionGenerator) and (
                len(module.noise_shape) == IMAGE_AXES
            )
            if pixels or isinstance(module, DiscreteDiffusionGenerator):
                stack.callback(module.register_forward_hook(seen._seen).remove)
        yield seen
