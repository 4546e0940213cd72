"""What importers of official weights share: telling the authors' files apart, and their DAMSM text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.model import load_state
from t2i.core.registry import registry
from t2i.core.runs import Choice, RunConfig
from t2i.core.specs import resolve
from t2i.core.text import TextEncoder
from t2i.plugins.common.damsm import lstm_state, pickled_vocabulary
from t2i.plugins.common.legacy import read_legacy, state_dict

PICKLES = (".pickle", ".pkl")


@dataclass(frozen=True)
class Part:
    """One of the files that a paper's authors released: a key that it alone has ("" for a pickle), and its name."""

    mark: str
    file: str


@dataclass(frozen=True)
class Found:
    """A file that was recognised. document: what is in it (a pickle is not read yet: {})."""

    path: Path
    document: Mapping[Any, Any]


TEXT_ENCODER = Part("rnn.weight_ih_l0", "text_encoder*.pth")
VOCABULARY = Part("", "captions*.pickle")


def recognised(model: str, parts: Mapping[str, Part], files: Sequence[Path]) -> dict[str, Found]:
    """The files by the names of the parts they are, told by what is in them, whatever they are called.

    UserError if one is none of `parts`, two are the same part, or a part is missing.
    """
    found: dict[str, Found] = {}
    for path in files:
        file = Found(path, {} if path.suffix in PICKLES else read_legacy(path))
        part = next((name for name, part in parts.items() if _is(part, file)), None)
        if part is None:
            known = ", ".join(f"{name} ({part.file})" for name, part in parts.items())
            raise UserError(f"{model}: {path} is none of the files that are imported: {known}")
        if part in found:
            raise UserError(f"{model}: {found[part].path} and {path} are each a {part}: give one of them")
        found[part] = file
    for name in parts:
        if name not in found:
            raise UserError(f"{model}: no {name} among the files: add the authors' {parts[name].file}")
    return found


def _is(part: Part, file: Found) -> bool:
    if file.path.suffix in PICKLES:
        return not part.mark
    return bool(part.mark) and (part.mark in file.document or f"module.{part.mark}" in file.document)


def damsm_encoder(config: RunConfig, weights: Found, vocabulary: Found) -> tuple[Choice[Any], TextEncoder]:
    """The authors' bidirectional LSTM with its words, frozen: the choice that a run's configuration names, and the
    encoder itself. UserError if weights and vocabulary are none, or not of one another."""
    spec = registry().encoders["damsm"]
    given = config.encoder.config.model_dump() if config.encoder.name == spec.name else {}
    own = {"vocabulary": pickled_vocabulary(vocabulary.path), "frozen": True}
    choice = Choice(spec.name, resolve(spec.config).of({**given, **own}, f"vocabulary {vocabulary.path}"))
    encoder: TextEncoder = resolve(spec.build)(choice.config, None)
    state = lstm_state(state_dict(weights.document, str(weights.path)))
    load_state(encoder, state, f"{weights.path} (with the words of {vocabulary.path})")
    return choice, encoder
