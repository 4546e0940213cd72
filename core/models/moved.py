"""Tensors that earlier versions saved under other names, so that older runs are still opened and
resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PARTS = ("generator.", "helpers.")


@dataclass(frozen=True)
class Moved:
    """What `ModelSpec.moved` says. A full name is PART.NAME: a tensor's name in the state dict of a
    part of the model.

    Attributes:
        rules: old and new prefix of full names.
    """

    rules: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Moved:
        """Rules from "OLD=NEW". Raises ValueError unless both are prefixes of generator or
        helpers."""
        rules = tuple((old, new) for old, _, new in (text.partition("=") for text in texts))
        for old, new in rules:
            if not (old.startswith(PARTS) and new.startswith(PARTS)):
                raise ValueError(
                    f"moved: '{old}={new}' is not of the form generator.OLD.=helpers.NEW."
                )
        return cls(rules)

    def name(self, full: str) -> str:
        """The present full name of a tensor."""
        for old, new in self.rules:
            if full.startswith(old):
                return new + full.removeprefix(old)
        return full

    def part(self, part: str, saved: Callable[[str], Mapping[str, Any]]) -> dict[str, Any]:
        """The tensors of a part under their present names.

        Args:
            saved: part -> tensors that were saved for it; empty if there are none.
        """
        sources = {
            part,
            *(old.partition(".")[0] for old, new in self.rules if new.startswith(f"{part}.")),
        }
        named = {
            self.name(f"{source}.{name}"): x
            for source in sorted(sources)
            for name, x in saved(source).items()
        }
        return {
            name.removeprefix(f"{part}."): x
            for name, x in named.items()
            if name.startswith(f"{part}.")
        }


UNMOVED = Moved()
"""No tensor has another name than it had."""
