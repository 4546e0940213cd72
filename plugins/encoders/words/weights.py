"""Pretrained weights of the text encoder `words`: a folder with config.json and model.safetensors.

The folder may be part of another one, where it is called text_encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.core.io.sealed import verify
from t2i.core.io.tensors import load_tensors
from t2i.core.models.weights import load_state
from t2i.core.registry.tables import registry
from t2i.plugins.encoders.words.config import WordsConfig

if TYPE_CHECKING:
    from torch import nn

SIZES = (
    "width", "layers", "heads", "positions", "neighbours", "max_words", "vocabulary",
)  # fmt: skip
"""Settings that pretrained weights decide. Their config.json holds all of them."""

SUBFOLDER = "text_encoder"
WHAT = "text encoder 'words'"


def described(config: WordsConfig) -> WordsConfig:
    """Take the sizes and the vocabulary from the pretrained weights.

    Args:
        config: Settings with `weights`.

    Returns:
        The settings that describe the pretrained encoder.

    Raises:
        UserError: The folder of the weights cannot be found or read.
    """
    where = _folder(config) / "config.json"
    document = read_object(where, WHAT)
    own = {name: document[name] for name in SIZES if name in document}
    if missing := [name for name in SIZES if name not in own]:
        raise UserError(f"{where}: '{missing[0]}' is missing: this is no encoder of kind 'words'")
    return WordsConfig.of({**config.model_dump(), **own}, str(where))


def load_pretrained(encoder: nn.Module, config: WordsConfig) -> None:
    """Load the pretrained weights.

    Args:
        encoder: An encoder of the sizes that `described` returned.
        config: The encoder's settings, with `weights`.

    Raises:
        UserError: The file cannot be found or read, or does not fit the encoder.
    """
    path = _folder(config) / "model.safetensors"
    state = {name: tensor.float() for name, tensor in load_tensors(path, WHAT).items()}
    load_state(encoder, state, str(path))


def _folder(config: WordsConfig) -> Path:
    """Return the folder of the pretrained weights."""
    name = str(config.weights)
    shipped = registry().shipped(name)
    if shipped is not None:
        verify(shipped, WHAT)
    folder = shipped or Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{WHAT}: encoder.weights = {name}: no such folder, and no data set "
            "ships weights of that name; give a folder with config.json and model.safetensors"
        )
    return folder / SUBFOLDER if (folder / SUBFOLDER).is_dir() else folder
