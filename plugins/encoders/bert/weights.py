"""Loading of BERT and its tokenizer, from a folder or the hub.

Only safetensors, JSON and the vocabulary's text are read; no code is run.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from transformers import BertModel, BertTokenizer

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
from t2i.plugins.encoders.bert.config import BertTextConfig

WHAT = "text encoder 'bert'"
FOLDER = (
    "a folder with config.json, model.safetensors and the tokenizer's files (tokenizer.json or "
    "vocab.txt)"
)
POOLER = ("pooler.dense.weight", "pooler.dense.bias")
"""Tensors of a head that is not used, and that not every file has."""


class BertTypes(BaseModel):
    """Settings of BERT that are read here, as its config.json has them."""

    model_config = ConfigDict(extra="ignore")

    vocab_size: Count = 30522
    """Tokens that have an embedding."""

    hidden_size: Count = 768
    """Width of the tokens."""

    num_hidden_layers: Layers = 12
    """Transformer blocks."""

    num_attention_heads: Count = 12
    """Attention heads of each block."""

    intermediate_size: Count = 3072
    """Width inside each block."""

    max_position_embeddings: Count = 512
    """Largest number of tokens."""

    type_vocab_size: Count = 2
    """Segments that have an embedding."""

    hidden_dropout_prob: Share = 0.1
    """Share of what the dropouts drop."""

    attention_probs_dropout_prob: Share = 0.1
    """Share of the attention that is dropped."""

    layer_norm_eps: Positive = 1e-12
    """What is added to the variance in layer norms."""

    hidden_act: Annotated[str, Field(strict=True)] = "gelu"
    """Activation of the feed-forward layers."""


def check_config(folder: Path, shapes: Collection[tuple[int, ...]]) -> None:
    """Check the sizes in a BERT's config.json against the tensors.

    Args:
        folder: Folder of its config.json.
        shapes: Shapes of the tensors that are there, the BERT's among them.

    Raises:
        UserError: A setting is of a wrong kind, or more is described than there are weights for.
    """
    file = folder / "config.json"
    document = read_object(file, f"folder {folder}")
    check_types(document, file, BertTypes)
    config = BertTypes.model_validate(document)
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{file}: hidden_size = {config.hidden_size} is no multiple of num_attention_heads = "
            f"{config.num_attention_heads}; get the file anew"
        )
    width = config.hidden_size
    names = ("vocab_size", "intermediate_size", "max_position_embeddings", "type_vocab_size")
    sizes = {name: getattr(config, name) * width for name in names}
    check_sizes({"num_hidden_layers": config.num_hidden_layers, **document}, file, shapes, sizes)


def wanted_weights(config: BertTextConfig) -> Wanted:
    """Describe the weights that the text encoder's settings name.

    Args:
        config: Settings of the text encoder.

    Returns:
        The description, which errors quote.
    """
    return Wanted(WHAT, "encoder.weights", config.weights, config.revision, FOLDER)


def load_text_model(config: BertTextConfig) -> BertModel:
    """Load BERT with its weights.

    Args:
        config: Settings of the text encoder.

    Returns:
        The network.

    Raises:
        UserError: The weights cannot be found or are incomplete.
    """
    return load_network(BertModel, wanted_weights(config), "BERT", check_config, optional=POOLER)


def load_tokenizer(config: BertTextConfig) -> BertTokenizer:
    """Load BERT's tokenizer.

    Args:
        config: Settings of the text encoder.

    Returns:
        The tokenizer.

    Raises:
        UserError: The files cannot be found.
    """
    wanted = tokenizer_of(wanted_weights(config), config.tokenizer)
    return obtained_tokenizer(BertTokenizer, wanted, "vocab.txt")


def check_fit(config: BertTextConfig, network: BertModel, tokenizer: BertTokenizer) -> None:
    """Check that settings, network and tokenizer fit together.

    Args:
        config: Settings of the text encoder.
        network: The network.
        tokenizer: The tokenizer.

    Raises:
        UserError: The network lacks the embedding of a token or of a position.
    """
    remedy = "name the right one with --set encoder.tokenizer=..."
    check_vocabulary(WHAT, network.config.vocab_size, tokenizer, remedy)
    places = network.config.max_position_embeddings
    if config.length > places:
        raise UserError(
            f"{WHAT}: encoder.length = {config.length}, but {config.weights} reads {places} tokens "
            "at most"
        )
