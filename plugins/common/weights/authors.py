"""Telling the files apart that a paper's authors released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from t2i.core.errors import UserError
from t2i.plugins.common.weights.legacy import read_legacy, state_dict

PICKLES = (".pickle", ".pkl")


@dataclass(frozen=True)
class Part:
    """One of the authors' files. mark: a key that it alone has, with or without "module." ("": it is a pickle). file:
    what they call it. needed: whether nothing can be imported without it."""

    mark: str
    file: str
    needed: bool = True


@dataclass(frozen=True)
class Found:
    """A file that was recognised, and what is in it (of a pickle nothing yet: {})."""

    path: Path
    document: Mapping[Any, Any]

    def state(self, *keys: str) -> dict[str, Tensor]:
        """The state dict under `keys` of the document. UserError if there is none."""
        return state_dict(self.document, str(self.path), *keys)


TEXT_ENCODER = Part("rnn.weight_ih_l0", "text_encoder*.pth")
VOCABULARY = Part("", "captions*.pickle")


def recognised(model: str, parts: Mapping[str, Part], files: Sequence[Path]) -> dict[str, Found]:
    """The files by the names of the parts they are, told by what is in them, whatever they are called.

    UserError if one is none of `parts`, two are the same part, or one that is needed is missing.
    """
    found: dict[str, Found] = {}
    for path in files:
        file = Found(path, {} if path.suffix in PICKLES else read_legacy(path))
        name = next((name for name, part in parts.items() if _is(part, file)), None)
        if name is None:
            known = ", ".join(f"{name} ({part.file})" for name, part in parts.items())
            raise UserError(f"{model}: {path} is none of the files that are imported: {known}")
        if name in found:
            raise UserError(
                f"{model}: {found[name].path} and {path} are each a {name}: give one of them"
            )
        found[name] = file
    for name, part in parts.items():
        if part.needed and name not in found:
            raise UserError(f"{model}: no {name} among the files: add the authors' {part.file}")
    return found


def _is(part: Part, file: Found) -> bool:
    if file.path.suffix in PICKLES:
        return not part.mark
    return bool(part.mark) and (
        part.mark in file.document or f"module.{part.mark}" in file.document
    )
