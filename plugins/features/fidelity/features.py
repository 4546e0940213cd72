"""`inception` and `vgg16`: torch-fidelity's own networks, so that scores agree with its command.

Its classes read their weights by pickle. So the file is first read as plain tensors, by the reader that runs nothing,
and PyTorch is told to do no more than that when the class reads it again.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.plugins.common.weights.legacy import read_legacy, state_dict
from t2i.plugins.features.fidelity.config import FidelityConfig

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
POOL, CLASSES = (
    2048,
    1008,
)  # TensorFlow's graph of 2015 has 1008 logits, of which 1000 mean something


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of torch-fidelity's. name: its own; title: ours; parts: what it returns, in order, with widths."""

    name: str
    title: str
    network: Callable[..., FeatureExtractorBase]
    parts: MappingProxyType[str, int]
    layers: MappingProxyType[str, slice]
    file: str


INCEPTION = PublishedNetwork(
    "inception-v3-compat", "inception", FeatureExtractorInceptionV3,
    MappingProxyType({"2048": POOL, "logits_unbiased": CLASSES}),
    MappingProxyType({"pool": slice(0, POOL), "logits": slice(POOL, POOL + CLASSES)}),
    "weights-inception-2015-12-05-6726825d.pth",
)  # fmt: skip
VGG16 = PublishedNetwork(
    "vgg16", "vgg16", FeatureExtractorVGG16, MappingProxyType({"fc2_relu": 4096}), MappingProxyType({}),
    "vgg16-397923af.pth",
)  # fmt: skip


class FidelityFeatures(FeatureExtractor):
    """uint8 (B, 3, H, W) -> float32: `inception` (B, 2048 + 1008), pooled features and logits without bias; `vgg16`
    (B, 4096). Images are resized inside, to 299 or 224, bilinearly as TensorFlow 1 did, without antialiasing: that
    is part of what FID is, and these networks are given images at their benchmark's size, never larger ones shrunk
    by it in another way."""

    def __init__(self, published: PublishedNetwork, path: Path) -> None:
        super().__init__()
        weights = _checked(published, path)
        self.name, self.weights_sha256 = published.name, hashlib.sha256(weights).hexdigest()
        self.dim, self.layers = sum(published.parts.values()), published.layers
        try:
            with plain_weights():
                self.network: Any = published.network(
                    published.name,
                    list(published.parts),
                    feature_extractor_weights_path=io.BytesIO(weights),
                )
        except Exception as error:  # load_state_dict: other names or shapes
            raise _unfit(
                published, path, str(error).strip().partition("\n")[2].strip()[:120]
            ) from None

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.network(images), 1)


def _checked(published: PublishedNetwork, path: Path) -> bytes:
    """The bytes of a file of plain tensors, saved as PyTorch saves them. UserError if it is anything else."""
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"features '{published.title}': weights {path}: {error.strerror}; "
            f"'t2i fetch {published.title}' gets {published.file}"
        ) from None
    if weights[8:9] == b"{":
        raise _unfit(published, path, "safetensors, which torch-fidelity does not read")
    state_dict(read_legacy(path), str(path))
    return weights


@contextmanager
def plain_weights() -> Iterator[None]:
    """While it lasts, torch.load reads nothing but tensors, whatever its caller asks for."""
    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        yield
    finally:
        os.environ.pop(FORCE)
        if before is not None:
            os.environ[FORCE] = before


def _unfit(published: PublishedNetwork, path: Path, why: str) -> UserError:
    return UserError(
        f"features '{published.title}': weights {path} are not those of {published.name} ({why}); "
        f"'t2i fetch {published.title}' gets {published.file}"
    )


def _build(published: PublishedNetwork, config: FidelityConfig) -> FidelityFeatures:
    path = (
        Path(config.weights).expanduser()
        if config.weights
        else fetched(published.title, published.file)
    )
    return FidelityFeatures(published, path)


def inception(config: FidelityConfig) -> FidelityFeatures:
    """The feature extractor "inception"."""
    return _build(INCEPTION, config)


def vgg16(config: FidelityConfig) -> FidelityFeatures:
    """The feature extractor "vgg16"."""
    return _build(VGG16, config)
