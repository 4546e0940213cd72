"""HPSv2 and HPSv2.1: CLIPs ViT-H/14 that were trained on how people ranked images.

The released files are in open_clip's layout. They are read by the project's reader, which runs no
code, and loaded into transformers' CLIP.

Source: Wu et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from t2i.plugins.common.clip.features import ClipSpace
from t2i.plugins.common.clip.tokenizer import load_tokenizer
from t2i.plugins.common.clip.weights import split_attention
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.legacy import read_legacy, renamed, side, state_dict
from t2i.plugins.common.weights.transformers_folders import check_vocabulary
from t2i.plugins.features.preference.config import HpsV2Config
from t2i.plugins.features.preference.fitting import letterboxed
from t2i.plugins.features.preference.released import fill, names_file, weights_file

HEADS = 16  # of both transformers of ViT-H/14; shapes do not tell it
TURNED = ("visual_projection.weight", "text_projection.weight")
OPEN_CLIP = (
    (r"^visual\.proj$", TURNED[0]),
    (r"^text_projection$", TURNED[1]),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
"""open_clip's names of tensors -> those of transformers."""


class HpsV2(ClipSpace):
    """The vectors of HPSv2, float32 (B, 1024), all of unit length.

    Args:
        config: Settings.

    Raises:
        UserError: Weights or tokenizer cannot be found, are damaged, or do not fit together.
    """

    def __init__(self, config: HpsV2Config) -> None:
        path, what = weights_file(config), f"features '{config.title}'"
        folder = config.tokenizer or str(path.parent)
        place = "a folder with vocab.json and merges.txt of CLIP"
        tokenizer = load_tokenizer(Wanted(what, "tokenizer", folder, "main", place))
        network = _network(path, config.title, tokenizer)
        text: Any = network.config.text_config
        check_vocabulary(what, text.vocab_size, tokenizer, "set its tokenizer")
        super().__init__(network, tokenizer)
        self.config, self.name = config, f"HPSv2 {config.file}"
        self.networks = (config.title, config.file)

    def resized(self, images: Tensor) -> Tensor:
        return letterboxed(images, self.side)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(super().forward(images), dim=-1)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        return F.normalize(super().encode_text(captions), dim=-1)

    def is_named(self, text: str) -> bool:
        return text in self.networks or names_file(text, self.config)


def _network(path: Path, title: str, tokenizer: CLIPTokenizer) -> CLIPModel:
    """Make the network of a released file."""
    released = state_dict(read_legacy(path), str(path), "state_dict")
    config = _sizes(released, str(path), tokenizer)
    state = split_attention(renamed(released, OPEN_CLIP))
    state |= {name: state[name].T for name in TURNED}
    network = CLIPModel(config)
    fill(network, state, str(path), title)
    return network


def _sizes(state: Mapping[str, Tensor], where: str, tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Read the sizes of the network from the shapes of its tensors."""

    def blocks(prefix: str) -> int:
        return sum(name.startswith(prefix) and name.endswith("ln_1.weight") for name in state)

    patch = side(state, "visual.conv1.weight", where, 2)
    grid = round((side(state, "visual.positional_embedding", where) - 1) ** 0.5)
    dim = side(state, "visual.proj", where, 1)
    side(state, "text_projection", where, 1)
    vision = {
        "hidden_size": side(state, "visual.conv1.weight", where), "num_attention_heads": HEADS,
        "num_hidden_layers": blocks("visual."), "image_size": grid * patch, "patch_size": patch,
        "intermediate_size": side(state, "visual.transformer.resblocks.0.mlp.c_fc.weight", where),
        "hidden_act": "gelu", "projection_dim": dim,
    }  # fmt: skip
    text = {
        "hidden_size": side(state, "token_embedding.weight", where, 1),
        "vocab_size": side(state, "token_embedding.weight", where),
        "max_position_embeddings": side(state, "positional_embedding", where),
        "num_hidden_layers": blocks("transformer."), "num_attention_heads": HEADS,
        "intermediate_size": side(state, "transformer.resblocks.0.mlp.c_fc.weight", where),
        "hidden_act": "gelu", "projection_dim": dim, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=dim)


def build(config: HpsV2Config) -> HpsV2:
    """Build the features `hpsv2`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: The weights cannot be found; the message says what to do.
    """
    return HpsV2(config)
