"""Which tensors of some weights fit a model: those of the same name and shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

EXAMPLES = 3
"""How many tensors a line names."""


@dataclass
class Overlap:
    """What weights and a model have in common.

    Args:
        own: The model's tensors by full name.
        taken: Names of those that were replaced by the weights.
        left_out: Names of tensors of the weights that the model has no place for.
        misshapen: Tensors of the same name and another shape: theirs, and the model's.
    """

    own: Mapping[str, Tensor]
    taken: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def new(self) -> list[str]:
        """The model's tensors that the weights do not have in the same shape."""
        taken = set(self.taken)
        return [name for name in self.own if name not in taken]

    @torch.no_grad()
    def take(self, theirs: Mapping[str, Tensor], kept: Collection[str] = ()) -> None:
        """Copy the tensors that fit into the model.

        Args:
            theirs: The weights, by full name, or by name within one part of the model.
            kept: Prefixes of the model's tensors that stay as they are.
        """
        before = placed(self.own, theirs)
        for name, tensor in theirs.items():
            full = before + name
            mine = self.own.get(full)
            if mine is None or full.startswith(tuple(kept)):
                self.left_out.append(name)
            elif mine.shape != tensor.shape:
                self.misshapen[full] = tuple(tensor.shape), tuple(mine.shape)
            else:
                mine.copy_(tensor)
                self.taken.append(full)

    def lines(self) -> tuple[str, str, str]:
        """Describe what fits, what is new and what is left out.

        Returns:
            A line for each, with counts and examples.
        """
        numbers = sum(self.own[name].numel() for name in self.taken)
        share = f"{len(self.taken)} of the model's {len(self.own)} tensors"
        shapes = [
            f"{name} {list(theirs)}, here {list(mine)}"
            for name, (theirs, mine) in self.misshapen.items()
        ]
        lost = [*shapes, *self.left_out]
        return (
            f"fits: {share} ({numbers:,} numbers){_such_as(self.taken)}",
            f"new: {len(self.new)}{_such_as(self.new)}",
            f"left out: {len(lost)}, {len(shapes)} of them for their shape{_such_as(lost)}",
        )

    def document(self) -> dict[str, Any]:
        """List all tensors.

        Returns:
            A JSON document: names of those that fit, are new, and are left out; and shapes.
        """
        shapes = {
            name: {"theirs": list(theirs), "ours": list(mine)}
            for name, (theirs, mine) in self.misshapen.items()
        }
        return {
            "fits": sorted(self.taken), "new": self.new, "left_out": self.left_out,
            "other_shape": shapes,
        }  # fmt: skip


def placed(own: Mapping[str, Any], theirs: Iterable[str]) -> str:
    """Find the part of a model that tensors belong to, by their names.

    Args:
        own: The model's tensors by full name.
        theirs: Names of the tensors.

    Returns:
        What the most of their names lack before them, such as "generator.unet.". "": nothing, or no
        name is known.
    """
    endings: dict[str, list[str]] = {}
    for full in own:
        endings.setdefault(full.rpartition(".")[2], []).append(full)
    counts = Counter(
        full.removesuffix(name)
        for name in theirs
        for full in endings.get(name.rpartition(".")[2], ())
        if full == name or full.endswith(f".{name}")
    )
    return max(counts, key=lambda before: (counts[before], before == ""), default="")


def _such_as(names: list[str]) -> str:
    return f", such as {'; '.join(names[:EXAMPLES])}" if names else ""
