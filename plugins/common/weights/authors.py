"""Recognition of the files that a paper's authors released, by their content."""

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
    """One of the authors' files.

    Args:
        mark: A state-dict key that only this file contains, with or without the prefix "module.".
            "": the file is a pickle.
        file: The authors' name of the file, for errors.
        needed: Whether the import needs this file.
    """

    mark: str
    file: str
    needed: bool = True


@dataclass(frozen=True)
class Found:
    """A file that was recognised.

    Args:
        path: The file.
        document: Its content; {} for a pickle, which has not been read yet.
    """

    path: Path
    document: Mapping[Any, Any]

    def state(self, *keys: str) -> dict[str, Tensor]:
        """Return the state dict under some keys of the file.

        Args:
            keys: The keys that lead to it, the outermost first; none for the whole document.

        Returns:
            The tensors by name.

        Raises:
            UserError: There is no state dict under these keys.
        """
        return state_dict(self.document, str(self.path), *keys)


TEXT_ENCODER = Part("rnn.weight_ih_l0", "text_encoder*.pth")
VOCABULARY = Part("", "captions*.pickle")


def recognised(model: str, parts: Mapping[str, Part], files: Sequence[Path]) -> dict[str, Found]:
    """Recognise files by their content, whatever their names are.

    Args:
        model: Name of the model, for errors.
        parts: The files that can be imported, by a name for each.
        files: The files to recognise.

    Returns:
        The files by the names of `parts`.

    Raises:
        UserError: A file is none of `parts`, two files are the same part, or a needed part is
            missing.
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
