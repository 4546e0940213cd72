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
from transformers import CLIPModel, CLIPTokenizer

from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.models.weights import weights_hash
from t2i.plugins.common.clip.config import MEAN, STD, ClipFeaturesConfig
from t2i.plugins.common.clip.tokenizer import FOLDER, load_tokenizer
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.images.resize import resized
from t2i.plugins.common.text.readable import readable
from t2i.plugins.common.weights.hub import Wanted, fetched_or
from t2i.plugins.common.weights.transformers_folders import check_vocabulary, tokenizer_of

TELLTALES = ("vision_model.embeddings.class_embedding", "text_model.final_layer_norm.weight")
"""A small tensor of each half of CLIP. They identify the weights (see `ClipFeatures.is_named`)."""


class ClipSpace(FeatureExtractor):
    """Vectors of images and captions in the common space of a CLIP, float32 (B, D).

    They are not of unit length. Images are resized whole to the side that the network reads,
    bicubic and antialiased, as CLIP's own processor does with square images.

    Args:
        network: transformers' CLIPModel with its weights.
        tokenizer: Its tokenizer.

    Attributes:
        mean: Mean of each colour channel, for images in [0, 1], (1, 3, 1, 1).
        std: Standard deviation of each colour channel, (1, 3, 1, 1).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.network, self.tokenizer = network.float(), tokenizer
        self.side: int = network.config.vision_config.image_size
        self.dim = int(network.config.projection_dim)
        self.weights_sha256 = weights_hash(self.network.state_dict())
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def resized(self, images: Tensor) -> Tensor:
        """Resize images to the side that the network reads.

        Args:
            images: Images, uint8 (B, 3, H, W).

        Returns:
            The images, float32 (B, 3, side, side) in [0, 1].
        """
        return resized(images, (self.side, self.side), "bicubic")

    def forward(self, images: Tensor) -> Tensor:
        pixels = (self.resized(images) - self.mean) / self.std
        seen = self.network.vision_model(pixel_values=pixels).pooler_output
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


class ClipFeatures(ClipSpace):
    """The vectors of a CLIP whose weights are in a folder or on the hub.

    Args:
        title: Registry name of the extractor, for error messages.
        config: Settings.
        source: Folder or hub name from which the weights are loaded.

    Raises:
        UserError: Weights or tokenizer cannot be found, are damaged, or do not fit together.
    """

    def __init__(self, title: str, config: ClipFeaturesConfig, source: str) -> None:
        what = f"features '{title}'"
        remedy = f"'t2i fetch {title}', or set its weights to {FOLDER}"
        wanted = Wanted(what, "weights", source, config.revision, FOLDER, remedy)
        network: Any = load_clip(CLIPModel, wanted)
        tokenizer = load_tokenizer(tokenizer_of(wanted, config.tokenizer))
        vocabulary = network.config.text_config.vocab_size
        check_vocabulary(what, vocabulary, tokenizer, "set its tokenizer")
        super().__init__(network, tokenizer)
        self.title, self.name = title, f"CLIP {config.weights}"
        self.networks = tuple(dict.fromkeys([config.weights, source]))

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


def source_of(config: ClipFeaturesConfig) -> str:
    """Choose where the weights of the features are loaded from.

    Args:
        config: Settings.

    Returns:
        The download of `t2i fetch`, if `weights` is the default and it is there; else `weights`.
    """
    standard = config.weights == type(config)().weights
    return fetched_or(config.title, config.weights) if standard else config.weights


def build(config: ClipFeaturesConfig) -> ClipFeatures:
    """Build the feature extractor.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: The weights cannot be found; the message says what to do.
    """
    return ClipFeatures(config.title, config, source_of(config))
