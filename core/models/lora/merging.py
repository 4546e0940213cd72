"""LoRAs that are merged into the weights of a model, and can be taken out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from t2i.core.models.lora.files import LoraFile


@dataclass(frozen=True, eq=False)
class AppliedLora:
    """A LoRA in a model's weights.

    Args:
        file: The file.
        weight: The factor of its change.
        merged: All LoRAs of the model.
    """

    file: LoraFile
    weight: float
    merged: MergedLoras

    @property
    def told(self) -> str:
        """What of the file is used, in a sentence."""
        return self.file.told

    def remove(self) -> None:
        """Take the LoRA out of the model. The weights are then what they were without it."""
        self.merged.remove(self)

    def document(self) -> dict[str, Any]:
        """Describe it as JSON.

        Returns:
            Its file, hash and weight.
        """
        return {"file": str(self.file.path), "hash": self.file.hash, "weight": self.weight}


class MergedLoras:
    """The LoRAs of one model: W + sum of weight alpha / r B A.

    The weights that they change are kept, so that they can be restored to the bit.
    """

    def __init__(self) -> None:
        self._applied: list[AppliedLora] = []
        self._first: dict[Tensor, Tensor] = {}

    def __len__(self) -> int:
        return len(self._applied)

    @property
    def applied(self) -> Sequence[AppliedLora]:
        """The LoRAs, in the order in which they came."""
        return tuple(self._applied)

    def add(self, file: LoraFile, weight: float) -> AppliedLora:
        """Merge a LoRA into the weights.

        Args:
            file: The file, fitted to the model.
            weight: The factor of its change.

        Returns:
            The LoRA in the model.
        """
        one = AppliedLora(file, weight, self)
        self._applied.append(one)
        self._merge({layer.weight for layer, _ in file.pairs})
        return one

    def remove(self, one: AppliedLora) -> None:
        """Take a LoRA out.

        Args:
            one: The LoRA. If it is out already, nothing happens.
        """
        if one in self._applied:
            self._applied.remove(one)
            self._merge({layer.weight for layer, _ in one.file.pairs})

    @torch.no_grad()
    def _merge(self, weights: set[Tensor]) -> None:
        """Compute some of the weights anew from the first ones."""
        sums = {weight: self._kept(weight).float() for weight in weights}
        for one in self._applied:
            for layer, pair in one.file.pairs:
                if layer.weight in sums:
                    change = pair.change().view(layer.weight.shape).to(layer.weight.device)
                    sums[layer.weight] = sums[layer.weight] + one.weight * change
        for weight, merged in sums.items():
            weight.copy_(merged)
        changed = {layer.weight for one in self._applied for layer, _ in one.file.pairs}
        self._first = {weight: kept for weight, kept in self._first.items() if weight in changed}

    def _kept(self, weight: Tensor) -> Tensor:
        """Return the weights as they were without a LoRA, and keep them."""
        if weight not in self._first:
            self._first[weight] = weight.detach().clone()
        return self._first[weight].to(weight.device)

    def first(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the weights of a network that LoRAs changed, as they were before.

        Args:
            module: The network.

        Returns:
            Those weights by name.
        """
        return {
            name: self._first[parameter]
            for name, parameter in module.named_parameters()
            if parameter in self._first
        }
