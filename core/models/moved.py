"""New names of tensors that earlier versions saved under other names.

With them, runs of earlier versions can still be opened and resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PARTS = ("generator.", "helpers.")
"""How full names can begin."""


@dataclass(frozen=True)
class Moved:
    """The rules in `ModelSpec.moved`.

    A full name is PART.NAME, where NAME is the tensor's name in the state dict of that part of the
    model.

    Args:
        rules: Pairs of an old and a new prefix of full names.
    """

    rules: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Moved:
        """Parse rules.

        Args:
            texts: Rules of the form "OLD=NEW", such as "generator.encoder.=helpers.encoder.".

        Returns:
            The rules.

        Raises:
            ValueError: A prefix begins with neither "generator." nor "helpers.".
        """
        rules = tuple((old, new) for old, _, new in (text.partition("=") for text in texts))
        for old, new in rules:
            if not (old.startswith(PARTS) and new.startswith(PARTS)):
                raise ValueError(
                    f"moved: '{old}={new}' is not of the form generator.OLD.=helpers.NEW."
                )
        return cls(rules)

    def name(self, full: str) -> str:
        """Return the current name of a tensor.

        Args:
            full: Its full name, old or current.

        Returns:
            Its current full name.
        """
        for old, new in self.rules:
            if full.startswith(old):
                return new + full.removeprefix(old)
        return full

    def part(self, part: str, saved: Callable[[str], Mapping[str, Any]]) -> dict[str, Any]:
        """Collect the tensors of a part under their current names, from all parts that held them.

        Args:
            part: Name of the part, such as "generator" or "helpers".
            saved: Function that returns the saved tensors of a part by name; empty if there are
                none.

        Returns:
            The tensors by current name in the part's state dict.
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
"""No rules: every tensor keeps its name."""
