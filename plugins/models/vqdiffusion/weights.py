"""Import of the weights that VQ-Diffusion's authors released (microsoft/VQ-Diffusion)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextEncoder
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.clip.weights import split_attention
from t2i.plugins.common.tokens.taming import described
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.common.weights.legacy import (
    read_legacy,
    read_legacy_tensor,
    renamed,
    side,
    state_dict,
)
from t2i.plugins.models.vqdiffusion.config import VQDiffusionConfig
from t2i.plugins.models.vqdiffusion.networks import VQDiffusionGenerator

TRANSFORMER = (
    (r"^content_emb\.emb\.", "tokens."),
    (r"^content_emb\.height_emb\.", "rows."),
    (r"^content_emb\.width_emb\.", "columns."),
    (r"^to_logits\.0\.", "norm."),
    (r"^to_logits\.1\.", "logits."),
    (r"\.ln1_1\.", ".norm_2."),
    (r"\.ln1\.", ".norm_1."),
    (r"\.ln2\.", ".norm_3."),
    (r"\.emb\.weight$", ".times.weight"),
    (r"\.attn1\.", ".attention."),
    (r"\.attn2\.", ".cross."),
    (r"\.proj\.", ".out."),
)
"""The authors' names in Text2ImageTransformer, and ours in `Transformer`."""

CLIP = (
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"^ln_final\.", "final_layer_norm."),
)
"""OpenAI's names in CLIP's text half, and those of transformers."""

TABLE = "help_folder/statistics/taming_vqvae_2887.pt of their repository"
HEAD_WIDTH = 64
"""Channels of one of CLIP's heads, of every size."""


@dataclass(frozen=True)
class Released:
    """The tensors of the released files.

    Args:
        where: Name of the checkpoint, for errors.
        network: Text2ImageTransformer by the authors' names, averaged if the file has averages.
        clip: CLIP's text half by OpenAI's names.
        codec: The VQGAN by taming's names.
        empty: The learned words of an empty caption, if there are some.
        table: Token of each index of the VQGAN's codebook, if only some are used.
    """

    where: str
    network: Mapping[str, Tensor]
    clip: Mapping[str, Tensor]
    codec: Mapping[str, Tensor]
    empty: Tensor | None
    table: Tensor | None


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from the authors' files (`t2i import`).

    The checkpoint (*_pretrained.pth, *_learnable.pth) holds the transformer, the VQGAN and CLIP.
    All but those with a tokenizer of their own (ITHQ) also need the table of used tokens. The
    encoder of the configuration gives CLIP's tokenizer.

    Args:
        config: The run's configuration.
        files: The checkpoint, and perhaps the table, in any order.

    Returns:
        The model.

    Raises:
        UserError: A file is missing, is none of these, or does not fit.
    """
    released = read_released(files)
    encoder = _text_encoder(config, released)
    tokenizer, described_by = _tokenizer(released)
    settings = config.settings
    assert isinstance(settings, VQDiffusionConfig)
    document = config.dump() | _sizes(released, tokenizer, described_by, settings)
    document["data"] = {k: v for k, v in document["data"].items() if k != "image_size"}
    config = RunConfig.parse(document, f"weights {released.where}")
    settings = config.settings
    assert isinstance(settings, VQDiffusionConfig)
    generator = VQDiffusionGenerator(settings, encoder.shape, None, tokenizer)
    state = renamed(released.network, TRANSFORMER)
    if released.empty is not None:
        state["empty"] = released.empty.float()
    load_state(generator.transformer, state, f"weights {released.where}")
    if settings.codes:
        _use_table(generator, released)
    return Model(config, generator, encoder)


def read_released(files: Sequence[Path]) -> Released:
    """Read the authors' files.

    Args:
        files: The checkpoint, and perhaps the table, in any order.

    Returns:
        Their tensors.

    Raises:
        UserError: There is no checkpoint, or there are two files of a kind.
    """
    tables: list[Tensor] = []
    checkpoints: list[Path] = []
    for path in files:
        tensor = read_legacy_tensor(path) if path.stat().st_size < 1 << 20 else None
        if tensor is None:
            checkpoints.append(path)
        else:
            tables.append(tensor)
    if len(checkpoints) != 1 or len(tables) > 1:
        raise UserError(
            f"vqdiffusion: {len(checkpoints)} checkpoints and {len(tables)} tables among the "
            f"files: give one of the authors' .pth, and perhaps the table {TABLE}"
        )
    where = str(checkpoints[0])
    document = read_legacy(checkpoints[0])
    state = state_dict(document, where, "model")
    diffusion = _under(state, "transformer.")
    if "ema" in document:
        diffusion |= state_dict(document, where, "ema")
    codec = _under(state, "content_codec.enc.") | _under(state, "content_codec.dec.")
    if "quantize.embedding" in codec:  # their moving averages are a plain tensor
        codec["quantize.embedding.weight"] = codec.pop("quantize.embedding")
    network = {
        name: tensor
        for name, tensor in _under(diffusion, "transformer.").items()
        if not name.endswith(".mask")
    }
    clip = _under(diffusion, "condition_emb.")
    table = tables[0] if tables else None
    return Released(where, network, clip, codec, diffusion.get("empty_text_embed"), table)


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _tokenizer(released: Released) -> tuple[ImageTokenizer, TokenizerConfig]:
    """Build the VQGAN of a checkpoint, frozen, and return its settings too."""
    config = described(released.codec, released.where)
    image_size = config.reduction * side(
        released.network, "content_emb.height_emb.weight", released.where
    )
    tokenizer = ImageTokenizer(config, image_size, pretrained=True)
    own = tokenizer.state_dict()
    state = {
        re.sub(r"^quantize\.", "quantizer.", name): tensor
        for name, tensor in released.codec.items()
        if not name.startswith(("quantize.cluster_size", "quantize.embedding_avg"))
    }
    # What ours counts in training beside the authors' tensors stays as it begins.
    state |= {name: own[name] for name in own if name not in state and not name.endswith("weight")}
    load_state(tokenizer, state, f"weights {released.where}: VQGAN")
    return tokenizer, config


def _sizes(
    released: Released,
    tokenizer: ImageTokenizer,
    described_by: TokenizerConfig,
    settings: VQDiffusionConfig,
) -> dict[str, Any]:
    """Return the settings that a checkpoint decides."""
    network, where = released.network, released.where
    codes, width = (side(network, "to_logits.1.weight", where, axis) for axis in (0, 1))
    layers = {name.split(".")[1] for name in network if name.startswith("blocks.")}
    if codes != tokenizer.vocabulary and released.table is None:
        raise UserError(
            f"weights {where}: it uses {codes} of its VQGAN's {tokenizer.vocabulary} tokens: add "
            f"the table of these, {TABLE}"
        )
    return {
        "image_size": tokenizer.image_size,
        "width": width,
        "layers": len(layers),
        "mlp_ratio": side(network, "blocks.0.mlp.0.weight", where) // width,
        "timesteps": side(network, "blocks.0.ln1.emb.weight", where),
        "chain": "code",
        "unit_words": True,
        "sentence": False,
        "text": {"text_map": 0},
        "learned_null": 0 if released.empty is None else len(released.empty),
        "codes": None if codes == tokenizer.vocabulary else codes,
        "tokenizer": {**described_by.model_dump(mode="json"), "weights": where},
        "heads": settings.heads,
    }


def _use_table(generator: VQDiffusionGenerator, released: Released) -> None:
    """Set which of the VQGAN's tokens are used. Each token stands for the first of its indexes."""
    table, codes = released.table, generator.schedule.vocabulary
    every = generator.index
    fits = (
        table is not None and table.dtype == torch.int64 and table.shape == every.shape
        and torch.unique(table).tolist() == list(range(codes))
    )  # fmt: skip
    if not fits or table is None:
        raise UserError(
            f"vqdiffusion: the table of used tokens is not of {len(every)} indexes and {codes} "
            f"tokens; it is {TABLE}"
        )
    generator.index.copy_(table)
    places = torch.arange(len(table)).flip(0)
    generator.used.scatter_(0, table.flip(0), places)


def _text_encoder(config: RunConfig, released: Released) -> TextEncoder:
    """Build CLIP's text half of a checkpoint, with the tokenizer that the configuration names."""
    where, chosen = f"weights {released.where}: CLIP", config.encoder
    if chosen.name != "clip":
        raise UserError(f"{where}: its text encoder is 'clip', not '{chosen.name}'")
    settings = chosen.config.model_dump()
    settings["tokenizer"] = settings["tokenizer"] or settings["weights"]
    with tempfile.TemporaryDirectory() as folder:
        _text_half(released, where).save_pretrained(folder)
        choice = registry().encoders.choose("clip", {**settings, "weights": folder}, "encoder")
        encoder: TextEncoder = registry().encoders.build(choice, None)
    return encoder


def _text_half(released: Released, where: str) -> CLIPTextModelWithProjection:
    """Build CLIP's text half of a checkpoint, whose last two tokens are start and end of text."""
    state = split_attention(renamed(released.clip, CLIP))
    vocabulary, width = (
        side(state, "embeddings.token_embedding.weight", where, axis) for axis in (0, 1)
    )
    projected = state.pop("text_projection", torch.zeros(width, width))
    described_by = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=side(state, "encoder.layers.0.mlp.fc1.weight", where),
        projection_dim=projected.shape[1],
        num_hidden_layers=len({n.split(".")[2] for n in state if n.startswith("encoder.")}),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        max_position_embeddings=side(state, "embeddings.position_embedding.weight", where),
        hidden_act="quick_gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )
    clip = CLIPTextModelWithProjection(described_by)
    ours = {f"text_model.{name}": tensor.float() for name, tensor in state.items()}
    ours["text_projection.weight"] = projected.float().T.contiguous()
    load_state(clip, ours, where)
    return clip
