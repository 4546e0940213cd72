"""The loaded models: a few stay, and the least used one is dropped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from t2i.web.draw.sources import Source
from t2i.web.site import Limits

if TYPE_CHECKING:
    from t2i.core.models.model import Model

Loader = Callable[[Source], "Model"]
"""Loads a model."""


class Shelf:
    """Models by the place that they were loaded from. One thread uses it.

    Args:
        limits: How many models stay, and of what size together.
        load: Loads a model.
    """

    def __init__(self, limits: Limits, load: Loader) -> None:
        self._limits = limits
        self._load = load
        self._models: OrderedDict[tuple[str, int], tuple[Model, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._models)

    def model(self, source: Source) -> Model:
        """Return a model, loaded. A run that was trained further since is loaded again.

        Args:
            source: The model.

        Returns:
            The model, ready for use.

        Raises:
            UserError: It cannot be loaded.
        """
        key = (str(source.place), source.changed)
        if key in self._models:
            self._models.move_to_end(key)
            return self._models[key][0]
        for old in [old for old in self._models if old[0] == key[0]]:
            del self._models[old]
        while len(self._models) >= self._limits.models:
            self._models.popitem(last=False)
        model = self._load(source)
        self._models[key] = (model, size_of(model))
        while len(self._models) > 1 and self._bytes() > self._limits.model_bytes:
            self._models.popitem(last=False)
        return model

    def _bytes(self) -> int:
        return sum(size for _, size in self._models.values())


def size_of(model: Model) -> int:
    """Measure a model.

    Args:
        model: The model.

    Returns:
        Bytes of its parameters and buffers, each counted once.
    """
    tensors = {
        id(tensor): tensor
        for module in (model.generator, model.text_encoder)
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
