"""What a discriminator sees in a step: real and generated images, and their conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from t2i.core.interfaces.trainer import Batch, Engine

Inputs = Tensor | Sequence[Tensor]
"""What a discriminator sees of images: the images, or several maps of features; each (B, ...)."""


@dataclass(frozen=True)
class Seen:
    """What one discriminator sees in a step: P packs of images, or single ones.

    Args:
        name: Name of the discriminator.
        batch: The batch that it comes from.
        engine: The engine.
        real: Real images or their features, without gradients.
        fake: Generated ones of the same shapes, with the generator's graph.
        sentence: The condition of each pack, float (P, D). None: the model takes no text.
    """

    name: str
    batch: Batch
    engine: Engine
    real: Inputs
    fake: Inputs
    sentence: Tensor | None

    @cached_property
    def mismatched(self) -> Tensor:
        """The conditions rolled by one pack over the global batch, without gradients."""
        assert self.sentence is not None
        return self.engine.shifted(self.sentence.detach())

    @property
    def images(self) -> Tensor:
        """The real images, where the discriminator sees images."""
        assert isinstance(self.real, Tensor)
        return self.real

    @property
    def generated(self) -> Tensor:
        """The generated images, where the discriminator sees images."""
        assert isinstance(self.fake, Tensor)
        return self.fake

    @property
    def condition(self) -> Tensor:
        """The condition, where the model takes text."""
        assert self.sentence is not None
        return self.sentence

    def for_discriminator(self, *, detached: bool = True) -> Seen:
        """Return the same without the gradients that the discriminator's loss does not want.

        Args:
            detached: Whether generated images lose the generator's graph too.

        Returns:
            The same tensors, cut from their graphs.
        """
        fake = each(self.fake, Tensor.detach) if detached else self.fake
        sentence = None if self.sentence is None else self.sentence.detach()
        return replace(self, fake=fake, sentence=sentence)


def each(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    """Apply a function to a tensor, or to each of several.

    Args:
        inputs: A tensor or several.
        function: The function.

    Returns:
        A tensor, or a list of several.
    """
    return function(inputs) if isinstance(inputs, Tensor) else [function(x) for x in inputs]


def listed(inputs: Inputs) -> list[Tensor]:
    """Return a tensor, or several, as a list.

    Args:
        inputs: A tensor or several.

    Returns:
        The list.
    """
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)


def like(inputs: Inputs, tensors: list[Tensor]) -> Inputs:
    """Return tensors in the form of others: one tensor alone, or a list.

    Args:
        inputs: A tensor or several.
        tensors: As many tensors.

    Returns:
        The tensor itself where `inputs` is one, else the list.
    """
    return tensors[0] if isinstance(inputs, Tensor) else tensors
