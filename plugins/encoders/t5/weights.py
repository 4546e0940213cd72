"""Loading of T5's encoder and its tokenizer, from a folder or the hub.

Only safetensors, JSON and sentencepiece's vocabulary are read; no code is run.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from transformers import T5EncoderModel, T5Tokenizer

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.network_types import (
    Count,
    Layers,
    Positive,
    Share,
    check_sizes,
    check_types,
)
from t2i.plugins.common.weights.transformers_folders import (
    check_vocabulary,
    load_network,
    obtained_tokenizer,
    tokenizer_of,
)
from t2i.plugins.encoders.t5.config import T5TextConfig

WHAT = "text encoder 't5'"
FOLDER = (
    "a folder with config.json, model.safetensors and the tokenizer's files (tokenizer.json or "
    "spiece.model)"
)
SPIECE = "spiece.model"


class T5Types(BaseModel):
    """Settings of T5 that are read here, as its config.json has them."""

    model_config = ConfigDict(extra="ignore")

    vocab_size: Count = 32128
    """Tokens that have an embedding."""

    d_model: Count = 512
    """Width of the tokens."""

    d_kv: Count = 64
    """Width of an attention head."""

    d_ff: Count = 2048
    """Width inside each block."""

    num_layers: Layers = 6
    """Transformer blocks."""

    num_heads: Count = 8
    """Attention heads of each block."""

    relative_attention_num_buckets: Count = 32
    """Groups of distances that have a bias of their own."""

    relative_attention_max_distance: Count = 128
    """Distance from which on all are in one group."""

    dropout_rate: Share = 0.1
    """Share of what the dropouts drop."""

    layer_norm_epsilon: Positive = 1e-6
    """What is added to the mean square in layer norms."""

    feed_forward_proj: Annotated[str, Field(strict=True)] = "relu"
    """Kind of feed-forward layer."""


def check_config(folder: Path, shapes: Collection[tuple[int, ...]]) -> None:
    """Check the kinds of a T5's settings, and its size against its weights.

    Args:
        folder: Folder of its config.json.
        shapes: Shapes of the tensors that are there, the T5's among them.

    Raises:
        UserError: A setting is of a wrong kind, or more is described than there are weights for.
    """
    file = folder / "config.json"
    document = read_object(file, f"folder {folder}")
    check_types(document, file, T5Types)
    config = T5Types.model_validate(document)
    sizes = {
        "vocab_size": config.vocab_size * config.d_model,
        "d_ff": config.d_ff * config.d_model,
        "num_heads": config.num_heads * config.d_kv * config.d_model,
        "relative_attention_num_buckets": config.relative_attention_num_buckets * config.num_heads,
    }
    check_sizes({"num_layers": config.num_layers, **document}, file, shapes, sizes)


def wanted_weights(config: T5TextConfig) -> Wanted:
    """Describe the weights that the text encoder's settings name.

    Args:
        config: Settings of the text encoder.

    Returns:
        The description, which errors quote.
    """
    return Wanted(WHAT, "encoder.weights", config.weights, config.revision, FOLDER)


def load_text_model(config: T5TextConfig) -> T5EncoderModel:
    """Load T5's encoder with its weights.

    Args:
        config: Settings of the text encoder.

    Returns:
        The network.

    Raises:
        UserError: The weights cannot be found or are incomplete.
    """
    return load_network(T5EncoderModel, wanted_weights(config), "T5 encoder", check_config)


def load_tokenizer(config: T5TextConfig) -> T5Tokenizer:
    """Load T5's tokenizer.

    Args:
        config: Settings of the text encoder.

    Returns:
        The tokenizer.

    Raises:
        UserError: The files cannot be found, or need a package that is not installed.
    """
    wanted = tokenizer_of(wanted_weights(config), config.tokenizer)
    return obtained_tokenizer(T5Tokenizer, wanted, SPIECE, blank=("\u2581",), check=_check_packages)


def _check_packages(folder: Path) -> None:
    """Raise UserError if a folder's vocabulary cannot be read without further packages."""
    if (folder / "tokenizer.json").is_file() or not (folder / SPIECE).is_file():
        return
    lacking = [name for name in ("sentencepiece", "google.protobuf") if _is_lacking(name)]
    if lacking:
        raise UserError(
            f"{folder / SPIECE} is the vocabulary of T5's tokenizer, and reading it needs the "
            "packages sentencepiece and protobuf: pip install sentencepiece protobuf, or get the "
            "tokenizer.json of the same T5"
        )


def _is_lacking(package: str) -> bool:
    """Return whether a package is not installed."""
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:  # the package that it is in is not installed either
        return True


def check_fit(network: T5EncoderModel, tokenizer: T5Tokenizer) -> None:
    """Check that the network has an embedding for each of the tokenizer's tokens.

    Args:
        network: The network.
        tokenizer: The tokenizer.

    Raises:
        UserError: The network lacks some.
    """
    remedy = "name the right one with --set encoder.tokenizer=..."
    check_vocabulary(WHAT, network.config.vocab_size, tokenizer, remedy)
