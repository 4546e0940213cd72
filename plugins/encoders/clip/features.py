"""CLIP as a feature extractor: vectors of images and captions in CLIP's common space.

The extractors are `clip` (ViT-B/32), `clip-vit-b-16` and `clip-vit-l-14`.
"""

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
from t2i.plugins.common.text.readable import readable
from t2i.plugins.common.weights.hub import Wanted, fetched_or
from t2i.plugins.encoders.clip.config import ClipFeaturesConfig
from t2i.plugins.encoders.clip.weights import FOLDER, fits, load_tokenizer, tokenizer_of

TELLTALES = ("vision_model.embeddings.class_embedding", "text_model.final_layer_norm.weight")
"""A small tensor of each half of CLIP. They identify the weights (see `ClipFeatures.is_named`)."""


class ClipFeatures(FeatureExtractor):
    """CLIP's vectors of images and captions, float32 (B, 512 for ViT-B/32), not of unit length.

    Images are resized whole to the side that CLIP reads, bicubic and antialiased, as CLIP's own
    processor does with square images.

    Args:
        title: Registry name of the extractor, for error messages.
        config: Settings.
        source: Folder or hub name from which the weights are loaded.

    Attributes:
        mean: Mean of each colour channel, for images in [0, 1], (1, 3, 1, 1).
        std: Standard deviation of each colour channel, (1, 3, 1, 1).

    Raises:
        UserError: Weights or tokenizer cannot be found, are damaged, or do not fit together.
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
        """Return whether a text in a model's settings means this CLIP.

        Args:
            text: A hub name or a folder. If its weights are on this machine (in the folder, or in
                the hub's cache), the tensors TELLTALES that they hold are compared with ours.
                Otherwise a name with a slash is compared by its last part.

        Returns:
            Whether it is the same CLIP.
        """
        if super().is_named(text):
            return True
        weights = _weights_file(text)
        if weights is not None:
            return self._has(weights)
        return "/" in text and Path(text).name in {Path(network).name for network in self.networks}

    def _has(self, weights: Path) -> bool:
        """Return whether a file holds this CLIP, or one half of it."""
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
    """Return whether two tensors are equal after rounding to half precision."""
    return one.shape == other.shape and torch.equal(one.half(), other.half())


def _weights_file(text: str) -> Path | None:
    """Return the file of weights in a folder or in the hub's cache, or None if there is none."""
    if len(text) > 1000 or "\0" in text or "\n" in text:
        return None
    folder = Path(text).expanduser()
    if folder.is_dir():
        return next(iter(sorted(folder.glob("model*.safetensors"))), None)
    try:
        found = try_to_load_from_cache(text, "model.safetensors")
    except ValueError:  # not a valid hub name
        return None
    return Path(found) if isinstance(found, str) else None


def build(config: ClipFeaturesConfig) -> ClipFeatures:
    """Build the feature extractor.

    Args:
        config: Settings. If `weights` is the default and `t2i fetch` has downloaded them, they are
            loaded from that download.

    Returns:
        The extractor.

    Raises:
        UserError: The weights cannot be found; the message says what to do.
    """
    standard = config.weights == type(config)().weights
    source = fetched_or(config.title, config.weights) if standard else config.weights
    return ClipFeatures(config.title, config, source)
