"""ImageReward: a BLIP that reads an image with its caption, and a head that rates the two.

Source: Xu et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig, BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from t2i.core.interfaces.scoring import PairedExtractor
from t2i.core.models.weights import weights_hash
from t2i.plugins.common.clip.config import MEAN, STD
from t2i.plugins.common.images.resize import cropped
from t2i.plugins.common.text.readable import readable
from t2i.plugins.common.weights.hub import Wanted, obtained
from t2i.plugins.common.weights.legacy import read_legacy, renamed, side, state_dict
from t2i.plugins.features.preference.config import ImageRewardConfig
from t2i.plugins.features.preference.released import fill, names_file, weights_file

TOKENS = 35  # longer captions are cut
HEAD_WIDTH = 64  # of both transformers of BLIP; shapes do not tell it
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
"""Mean and standard deviation of the head's values, by which the authors normalise the score."""
RELEASED = (
    (r"^blip\.visual_encoder\.", "image."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.layers\.", "head."),
    (r"^image\.cls_token$", "image.embeddings.class_embedding"),
    (r"^image\.pos_embed$", "image.embeddings.position_embedding"),
    (r"^image\.patch_embed\.proj\.", "image.embeddings.patch_embedding."),
    (r"^image\.blocks\.(\d+)\.norm([12])\.", r"image.encoder.layers.\1.layer_norm\2."),
    (r"^image\.blocks\.(\d+)\.attn\.proj\.", r"image.encoder.layers.\1.self_attn.projection."),
    (r"^image\.blocks\.(\d+)\.attn\.qkv\.", r"image.encoder.layers.\1.self_attn.qkv."),
    (r"^image\.blocks\.", "image.encoder.layers."),
    (r"^image\.norm\.", "image.post_layernorm."),
)
"""Names of tensors in ImageReward.pt -> ours."""


class ImageReward(PairedExtractor):
    """ImageReward's score of an image with its caption, float32 (B, 1).

    Args:
        config: Settings.

    Attributes:
        mean: Mean of each colour channel, for images in [0, 1], (3, 1, 1).
        std: Standard deviation of each colour channel, (3, 1, 1).

    Raises:
        UserError: Weights or tokenizer cannot be found, or are damaged.
    """

    dim = 1
    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageRewardConfig) -> None:
        super().__init__()
        path = weights_file(config)
        self.config, self.name = config, f"ImageReward {config.file}"
        self.networks = (config.title, config.file, "THUDM/ImageReward")
        self.tokenizer = _tokenizer(config.tokenizer or str(path.parent))
        self.parts = _parts(path, config.title)
        self.weights_sha256 = weights_hash(self.parts.state_dict())
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def of_pairs(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        parts: Any = self.parts
        pixels = cropped(images, parts["image"].config.image_size, round)
        seen = parts["image"](pixel_values=(pixels - self.mean) / self.std).last_hidden_state
        tokens = self.tokenizer(  # transformers 5.0 keeps capitals, which the vocabulary lacks
            [readable(caption, TOKENS).lower() for caption in captions],
            padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt",
        ).to(images.device)  # fmt: skip
        read = parts["text"](
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"],
            encoder_hidden_states=seen,
        ).last_hidden_state  # fmt: skip
        reward: Tensor = parts["head"](read[:, 0])
        return (reward - REWARD_MEAN) / REWARD_STD

    def is_named(self, text: str) -> bool:
        return text in self.networks or names_file(text, self.config)


def _tokenizer(folder: str) -> BertTokenizer:
    """Load BERT's tokenizer."""
    place = "a folder with vocab.txt of bert-base-uncased"
    wanted = Wanted("features 'image-reward'", "tokenizer", folder, "main", place)

    def load(source: str, offline: bool) -> BertTokenizer:
        if Path(source).is_dir() and not (Path(source) / "vocab.txt").is_file():
            raise FileNotFoundError("no vocab.txt there")
        tokenizer: Any = BertTokenizer.from_pretrained(source, local_files_only=offline)
        found: BertTokenizer = tokenizer
        return found

    return obtained(wanted, load)


def _parts(path: Path, title: str) -> nn.ModuleDict:
    """Make the three networks of the released file."""
    released = state_dict(read_legacy(path), str(path))
    state, where = renamed(released, RELEASED), str(path)
    parts = nn.ModuleDict(
        {
            "image": BlipVisionModel(_image_sizes(state, where)),
            "text": BlipTextModel(_text_sizes(state, where), add_pooling_layer=False),
            "head": _head(state, where),
        }
    )
    fill(parts, state, where, title)
    return parts.eval()


def _layers(state: Mapping[str, Tensor], prefix: str, name: str) -> int:
    return sum(key.startswith(prefix) and key.endswith(name) for key in state)


def _image_sizes(state: Mapping[str, Tensor], where: str) -> BlipVisionConfig:
    """Read the sizes of BLIP's image encoder from the shapes of its tensors."""
    patch = side(state, "image.embeddings.patch_embedding.weight", where, 2)
    grid = round((side(state, "image.embeddings.position_embedding", where, 1) - 1) ** 0.5)
    width = side(state, "image.embeddings.patch_embedding.weight", where)
    return BlipVisionConfig(
        hidden_size=width, num_attention_heads=max(1, width // HEAD_WIDTH), patch_size=patch,
        intermediate_size=side(state, "image.encoder.layers.0.mlp.fc1.weight", where),
        num_hidden_layers=_layers(state, "image.encoder.", ".layer_norm1.weight"),
        image_size=grid * patch, hidden_act="gelu", layer_norm_eps=1e-6,
    )  # fmt: skip


def _text_sizes(state: Mapping[str, Tensor], where: str) -> BlipTextConfig:
    """Read the sizes of BLIP's text encoder from the shapes of its tensors."""
    words = "text.embeddings.word_embeddings.weight"
    block = "text.encoder.layer.0."
    width = side(state, words, where, 1)
    return BlipTextConfig(
        vocab_size=side(state, words, where), hidden_size=width,
        num_attention_heads=max(1, width // HEAD_WIDTH),
        encoder_hidden_size=side(state, f"{block}crossattention.self.key.weight", where, 1),
        intermediate_size=side(state, f"{block}intermediate.dense.weight", where),
        num_hidden_layers=_layers(state, "text.encoder.", ".intermediate.dense.weight"),
        max_position_embeddings=side(state, "text.embeddings.position_embeddings.weight", where),
        hidden_act="gelu", layer_norm_eps=1e-12,
    )  # fmt: skip


def _head(state: Mapping[str, Tensor], where: str) -> nn.Sequential:
    """Make the head: linear layers, with dropout between them in training alone."""
    numbers = sorted(
        int(name.split(".")[1])
        for name in state
        if name.startswith("head.") and name.endswith(".weight") and name.split(".")[1].isdigit()
    )
    layers = [nn.Identity() for _ in range(max(numbers, default=-1) + 1)]
    head = nn.Sequential(*layers)
    for number in numbers:
        name = f"head.{number}.weight"
        head[number] = nn.Linear(side(state, name, where, 1), side(state, name, where))
    return head


def build(config: ImageRewardConfig) -> ImageReward:
    """Build the features `image-reward`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: The weights cannot be found; the message says what to do.
    """
    return ImageReward(config)
