"""`clip` and its larger siblings as feature extractors: images and captions in the space that CLIP has for both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CLIPModel

from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.models.weights import weights_hash
from t2i.plugins.common.clip.config import MEAN, STD
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.images.resize import resized
from t2i.plugins.common.weights.hub import Wanted, fetched_or
from t2i.plugins.encoders.clip.config import ClipFeaturesConfig
from t2i.plugins.encoders.clip.encoder import readable
from t2i.plugins.encoders.clip.weights import FOLDER, fits, load_tokenizer, tokenizer_of

TELLTALES = ("vision_model.embeddings.class_embedding", "text_model.final_layer_norm.weight")
"""A small tensor of each half, by which a CLIP is known again."""


class ClipFeatures(FeatureExtractor):
    """uint8 (B, 3, H, W) -> float32 (B, 512 for ViT-B/32), and captions likewise; neither is normalised to length 1.

    Images are resized whole to CLIP's side, bicubic and antialiased, as its own processor does with square ones.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, title: str, config: ClipFeaturesConfig, source: str) -> None:
        super().__init__()
        self.title = title
        what = f"features '{title}'"
        remedy = f"'t2i fetch {title}', or set its weights to {FOLDER}"
        wanted = Wanted(what, "weights", source, config.revision, FOLDER, remedy)
        network: Any = load_clip(CLIPModel, wanted)
        self.network = network.float()
        self.tokenizer = load_tokenizer(tokenizer_of(wanted, config.tokenizer))
        sizes: Any = self.network.config
        fits(what, sizes.text_config, self.tokenizer, "set its tokenizer")
        self.side: int = sizes.vision_config.image_size
        self.dim = int(sizes.projection_dim)
        self.name = f"CLIP {config.weights}"
        self.weights_sha256 = weights_hash(self.network.state_dict())
        self.networks = tuple(dict.fromkeys([config.weights, source]))
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        images = (resized(images, (self.side, self.side), "bicubic") - self.mean) / self.std
        seen = self.network.vision_model(pixel_values=images).pooler_output
        features: Tensor = self.network.visual_projection(seen)
        return features

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        length = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            [readable(caption, length) for caption in captions],
            padding="max_length", truncation=True, max_length=length, return_tensors="pt",
        ).to(self.mean.device)  # fmt: skip
        read = self.network.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        features: Tensor = self.network.text_projection(read.pooler_output)
        return features

    def is_named(self, text: str) -> bool:
        """A hub name or a folder: of the same weights in any half of it that is here; or, where nothing of it is here,
        with the same last word."""
        if super().is_named(text):
            return True
        weights = _weights_file(text)
        if weights is not None:
            return self._has(weights)
        return "/" in text and Path(text).name in {Path(network).name for network in self.networks}

    def _has(self, weights: Path) -> bool:
        own = self.network.state_dict()
        try:
            with safe_open(weights, "pt") as file:
                shared = set(TELLTALES) & set(file.keys())
                return bool(shared) and all(
                    _alike(file.get_tensor(name), own[name].cpu()) for name in shared
                )
        except (OSError, SafetensorError):
            return False


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one and the same, kept in half precision or not."""
    return one.shape == other.shape and torch.equal(one.half(), other.half())


def _weights_file(text: str) -> Path | None:
    """The weights of a folder, or of a name that the hub's cache knows."""
    if len(text) > 1000 or "\0" in text or "\n" in text:
        return None
    folder = Path(text).expanduser()
    if folder.is_dir():
        return next(iter(sorted(folder.glob("model*.safetensors"))), None)
    try:
        found = try_to_load_from_cache(text, "model.safetensors")
    except ValueError:  # no name that the hub could have
        return None
    return Path(found) if isinstance(found, str) else None


def build(config: ClipFeaturesConfig) -> ClipFeatures:
    """A CLIP as a feature extractor. UserError, saying what to do, if its weights are not to be had."""
    standard = config.weights == type(config)().weights
    source = fetched_or(config.title, config.weights) if standard else config.weights
    return ClipFeatures(config.title, config, source)
